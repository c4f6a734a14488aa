"""The machine: what it is, what it is doing meanwhile, threads, GPUs. Only asks, never changes."""
