"""Measurements that the documentation quotes; each file says how it is run."""
