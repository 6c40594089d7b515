"""Benchmarks whose figures the documentation quotes; the first lines of each say how to run it."""
