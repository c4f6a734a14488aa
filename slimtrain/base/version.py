"""The version of all three packages: setup.cfg reads it here."""

__version__ = "0.1.0"
