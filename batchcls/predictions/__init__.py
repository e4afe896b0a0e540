"""The predictions file: its columns, written, read back, and matched with labels."""
