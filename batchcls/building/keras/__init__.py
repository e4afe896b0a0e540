"""Keras files, read without trusting them: their configuration, their weights, and the network that the two make."""
