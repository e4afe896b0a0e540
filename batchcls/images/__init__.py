"""Image files: their sources, formats, labels and pixels."""
