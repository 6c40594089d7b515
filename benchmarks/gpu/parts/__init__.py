"""The parts of a run on a GPU, one module each with `measure`, named in `benchmarks.gpu.sizes`."""
