"""What this machine can do at best: the fastest of many products and copies, per backend."""
