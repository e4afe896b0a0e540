"""Trained networks: their architectures, tensors, labels and recipes."""
