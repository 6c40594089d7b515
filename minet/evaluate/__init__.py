"""Evaluation: predictions on a split and the metrics computed from them."""
