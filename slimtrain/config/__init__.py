"""A run's configuration: what it holds, read from files of ours and of the published code. No torch."""
