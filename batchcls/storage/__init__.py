"""Every folder and file that a command makes, renames or clears: its own, and whole or not at all."""
