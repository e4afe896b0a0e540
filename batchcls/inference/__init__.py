"""Slides become predictions: one run, on one device or several."""
