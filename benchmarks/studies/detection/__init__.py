"""Slimmable detectors on scenes of digits."""
