"""The competitors of `benchmarks.data`, each measured in its own process."""
