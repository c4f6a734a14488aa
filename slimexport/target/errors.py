"""Errors of the target side. As everywhere, a message says what, found, expected, and what to do."""

from __future__ import annotations

from slimtrain.base.errors import ResourceError, UserError


class BundleError(UserError):
    """A bundle is missing, incomplete or damaged."""


class MissingBackend(ResourceError):
    """A backend is not installed, or cannot run here."""


class NotProven(UserError):
    """Files that were not proven to compute what they should."""

    exit_code = 1
