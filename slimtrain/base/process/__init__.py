"""What the system gives a command's process: where it prints to, memory, locks."""
