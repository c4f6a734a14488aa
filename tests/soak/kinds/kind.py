"""What the kinds of files are made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Protocol


class WrongResultError(AssertionError):
    """A damaged file was accepted, and what is computed from it is not what it says, or was."""


@dataclass(frozen=True)
class Case:
    """A damaged file at `path`, and how it was damaged. `checked`: its kind has a checksum that the damage did not mend, so
    that it has to be refused, or to compute what the whole one does."""

    path: Path
    damage: str
    checked: bool = False


class Kind(Protocol):
    """A kind of files, in the process that damages and reads them. `right` says what of an accepted file is right."""

    name: str
    right: str

    def open(self, originals: Path) -> Any:
        """What a process needs for all cases."""

    def damage(self, draw: Random, folder: Path) -> Case:
        """A damaged file in an empty folder."""

    def judge(self, case: Case) -> None:
        """Read it as the commands do. UserError where it is refused, WrongResultError where what came out is wrong; anything
        else raised is a traceback for a user."""

    def command(self, case: Case, folder: Path) -> list[str]:
        """`python -m` these words: a command that reads it."""
