"""Kinds of files: how one is damaged, who reads it, and what of a file that is accepted is right."""
