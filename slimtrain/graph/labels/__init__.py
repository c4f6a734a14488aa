"""A graph run on labels: what every operator does to them, a file for each kind. `RULES` (registry.py) holds the rules."""
