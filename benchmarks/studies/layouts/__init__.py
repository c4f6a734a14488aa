"""Layouts in memory, timed by convolutions."""
