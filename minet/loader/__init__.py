"""Batches for training and evaluation: loading, sharding, prefetching, memory limits."""
