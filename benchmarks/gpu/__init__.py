"""Everything that a GPU is wanted for, measured and tested in minutes; see benchmarks/gpu.sh."""
