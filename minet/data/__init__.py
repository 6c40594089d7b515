"""Data sets: settings, the synthetic sample, list files, and the index of checked images."""
