"""Where slides come from."""
