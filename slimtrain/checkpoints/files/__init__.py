"""Forms of checkpoint files: pickles read without running code, several files with an index."""
