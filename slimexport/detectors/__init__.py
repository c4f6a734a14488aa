"""Detectors as bundles: from image to boxes, on scenes with something to find."""
