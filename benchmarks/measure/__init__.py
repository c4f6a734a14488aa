"""Measuring cells in turns: threads and their CPUs, rounds, warm-up, drift, checks of outputs, progress."""
