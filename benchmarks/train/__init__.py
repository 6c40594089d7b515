"""minet's training step compared with other training loops; run as a module."""
