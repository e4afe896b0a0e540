"""Slides become predictions: one run, in one process or several."""
