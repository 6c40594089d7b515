"""Training: the loop, its step and state, snapshots for resuming, optimizers, loggers."""
