"""Predictions, with or without the truth, become figures and pages."""
