"""Explain predictions: heat maps of the places in an image that are evidence for a class."""
