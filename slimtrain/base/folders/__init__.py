"""Folders that one process writes at a time, and that are replaced whole. Standard library only."""
