"""Errors of the target side. As on the export side, a message says what, found, expected, and what to do."""

from __future__ import annotations


class BundleError(ValueError):
    """A bundle is missing, incomplete or damaged. Commands exit with `exit_code`."""

    exit_code = 2


class MissingBackend(ValueError):
    """A backend is not installed, or cannot run here."""

    exit_code = 3
