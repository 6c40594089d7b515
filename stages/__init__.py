"""The stages of dvc.yaml: each parses paths, calls the library once and writes."""
