"""Proof that a file of fewer bits computes what it is to compute, layer by layer."""
