"""The competitors of `benchmarks.data`, each measured in a process of its own."""
