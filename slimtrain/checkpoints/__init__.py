"""Checkpoints: read without running code, identified by keys and shapes, written, taken over."""
