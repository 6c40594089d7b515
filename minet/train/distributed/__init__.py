"""Training in several processes: process group, launcher, synchronized batch norm."""
