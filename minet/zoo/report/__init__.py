"""The zoo's HTML report: its page, its charts, the details of a row."""
