"""Costs of a model: parameters, multiply-adds, memory, depth."""
