"""Building blocks of networks, and a model's construction, weights and checkpoint files."""
