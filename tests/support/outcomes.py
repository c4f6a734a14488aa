"""What a run of a command left."""

from __future__ import annotations

import contextlib
import io
import json
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest


@dataclass(frozen=True)
class Outcome:
    """What a run of the command left: exit code, standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def manifest(self) -> dict[str, Any]:
        printed: dict[str, Any] = json.loads(self.out)
        return printed

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class Terminal(io.StringIO):
    """Standard error as a person sees it."""

    def isatty(self) -> bool:
        return True


def outcome_of(command: click.Command, name: str, *args: str | Path, terminal: bool = False) -> Outcome:
    """`NAME ARGS` in this process. Any exception but an orderly exit (a traceback, for a user) passes through.

    `terminal`: standard error is one.
    """
    out, err = io.StringIO(), Terminal() if terminal else io.StringIO()
    handler = signal.getsignal(signal.SIGTERM)  # commands set their own
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as exit_info:
            command([str(arg) for arg in args], prog_name=name)
    finally:
        signal.signal(signal.SIGTERM, handler)
    code = exit_info.value.code or 0
    assert isinstance(code, int)
    return Outcome(code, out.getvalue(), err.getvalue())
