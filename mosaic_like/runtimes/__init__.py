"""Processes: they do what the states of `core` decide."""
