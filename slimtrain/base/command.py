"""What all commands do with errors and signals: one message and an exit code, never a traceback for a user's mistake."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import IO, Any

import click

from slimtrain.base.errors import ResourceError, UserError

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
OWN_PACKAGES = ("slimtrain", "slimexport", "benchmarks")
INTERRUPTED = 130  # as a shell counts Ctrl-C


class Failure(click.ClickException):
    """A user's mistake or a failed check: one message, the error's exit code."""

    def __init__(self, program: str, error: UserError) -> None:
        super().__init__(str(error))
        self.program = program
        self.exit_code = error.exit_code  # type: ignore[misc]

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"{self.program}: {self.message}", err=True)


@contextmanager
def messages(program: str, interrupted: str = "interrupted.") -> Iterator[None]:
    """A user's mistake ends as one message, Ctrl-C and a polite kill as the line `interrupted`, both after `program`."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    before = None
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    except UserError as error:
        raise Failure(program, error) from error
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in OWN_PACKAGES:
            raise
        missing = f"the package {error.name} is not installed, and this needs it. Install as README.md says."
        raise Failure(program, ResourceError(missing)) from error
    except KeyboardInterrupt:
        click.echo(f"{program}: {interrupted}", err=True)
        sys.exit(INTERRUPTED)
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def script_messages(program: str, interrupted: str = "interrupted.") -> Iterator[None]:
    """`messages`, for scripts that are no click commands."""
    try:
        with messages(program, interrupted):
            yield
    except Failure as failure:
        failure.show()
        sys.exit(failure.exit_code)


def _stop(number: int, frame: FrameType | None) -> None:
    """A polite kill ends as Ctrl-C does: what was begun is cleaned up."""
    raise KeyboardInterrupt
