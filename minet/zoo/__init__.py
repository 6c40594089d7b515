"""The zoo: every published experiment as a row, run, compared and reported."""
