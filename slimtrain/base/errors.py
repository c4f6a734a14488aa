"""Errors that a user can act on. A message says what, what was found, what was expected, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something the user gave is wrong: a file, a width, an option. Commands exit with `exit_code`.

    >>> import slimtrain
    >>> try:
    ...     slimtrain.read_config("digits", ["epoch=3"])
    ... except slimtrain.UserError as error:
    ...     print(error)
    digits: key 'epoch' is not known (did you mean 'epochs'?).
    """

    exit_code = 2


class CheckpointError(UserError):
    """A checkpoint cannot be read, is damaged, or is not one of the known networks."""


class WidthError(UserError):
    """A width, switch or channel plan that the network does not have."""


class BudgetError(UserError):
    """No width meets the budget that was asked for."""

    exit_code = 1


class TrainingError(UserError):
    """Training came to nothing: the loss is no longer finite."""

    exit_code = 1


class ResourceError(UserError):
    """The environment lacks something: a package, a device, space on a disk."""

    exit_code = 3


class CommandError(UserError):
    """Another command that was run failed; ours ends with its exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def nearest(word: str, known: Iterable[str]) -> str:
    """`" (did you mean ...?)"` for a mistyped name, or nothing where no known name is close."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
