"""Detectors: boxes, labels and scores of what is in an image, on a slimmable network."""
