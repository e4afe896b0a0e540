"""Explain answers: heat maps of the places in an image that speak for a class."""
