"""A trained file becomes an engine folder."""
