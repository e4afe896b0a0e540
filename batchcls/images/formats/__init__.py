"""Formats of image files: headers, limits and memory costs, read before any pixel is decoded."""
