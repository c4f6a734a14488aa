"""What a run leaves to read: its lines, its figures, and their curves."""
