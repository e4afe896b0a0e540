"""Folders as the Hugging Face hub has them: a configuration, the weights, and how images become the input."""
