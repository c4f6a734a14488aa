"""Slimmable networks: what they are, how they are trained and read. Importing this loads no torch."""

__version__ = "0.1.0"
