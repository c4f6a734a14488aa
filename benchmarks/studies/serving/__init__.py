"""A bundle under load: the figures that serving is judged by."""
