"""Measuring cells in turns: rounds, warm-up, drift, checks of outputs, progress."""
