"""What every operator does to labels, a file for each kind. `RULES` (registry.py) holds them by operator."""
