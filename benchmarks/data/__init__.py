"""minet's data path beside the tools that people would use instead; run as a module."""
