"""Labeled images become a checkpoint."""
