"""Slimmable networks: what they are, how they are trained and read. Importing this loads no torch."""

from slimtrain.base.version import __version__ as __version__
