"""TensorRT engines of a bundle: built, checked, verified, described. No torch."""
