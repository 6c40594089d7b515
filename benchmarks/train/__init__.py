"""minet's training step beside the loops that people would use instead; run as a module."""
