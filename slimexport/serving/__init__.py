"""A bundle served from the command line: its options, and what it prints."""
