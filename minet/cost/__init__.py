"""What a model costs: parameters, multiply-adds, memory, depth."""
