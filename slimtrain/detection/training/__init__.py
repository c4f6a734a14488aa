"""Detectors trained at several plans in every step, and tested at each."""
