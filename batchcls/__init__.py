"""Classify whole folders of slide images, fast and without losing a row."""

__version__ = "0.1.0"
