"""minet's data path compared with other tools; run as a module."""
