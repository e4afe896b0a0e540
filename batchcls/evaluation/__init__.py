"""Evaluate predictions against true labels, and report on predictions with or without them."""
