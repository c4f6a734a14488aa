"""What things cost, measured: scripts whose results, with their environment, are kept in `results/`."""
