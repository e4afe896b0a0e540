"""The engine folder on disk, and the backends that run it."""
