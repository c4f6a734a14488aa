"""The published networks in one picture, error against latency and MACs: the command is in `__main__`."""
