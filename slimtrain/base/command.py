"""What all commands do with errors and signals: one message and an exit code, never a traceback for a user's mistake."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import click

from slimtrain.base.errors import ResourceError, UserError
from slimtrain.base.free_memory import free_memory, gib
from slimtrain.base.interruption import interruptible
from slimtrain.base.packages import install_command
from slimtrain.base.process.leaving import end_without_them
from slimtrain.base.process.memory import lack_of_memory
from slimtrain.base.process.streams import lasting_streams
from slimtrain.base.process.utf8 import begin_in_utf8
from slimtrain.base.spelling import likely_options
from slimtrain.base.untrusted.quoting import printable, reason

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True}
OWN_PACKAGES = ("slimtrain", "slimexport", "benchmarks")
INTERRUPTED = 130  # as a shell counts Ctrl-C
SCRIPTS = {"slimtrain": "slimtrain", "slimexport": "slimexport", "benchmarks": "slimbench"}  # package to console script
LESS = {  # what takes less memory, by the name of a command
    "train": "Take a smaller --batch-size or --image-size, or fewer --workers.",
    "search": "Take a smaller --batch-size, --search-batch or --image-size, or fewer --workers.",
    "test": "Take fewer --widths at a time, a smaller --batch-size, or fewer --workers.",
    "calibrate": "Take fewer --widths at a time, a smaller --batch-size, or fewer --workers.",
    "profile": "Take fewer --widths at a time.",
    "groups": "Take a smaller --image-size.",
    "slimexport": "Take fewer --widths at a time, a smaller --calibration-batch-size, fewer --probes or --workers.",
    "benchmarks": "Take fewer --widths at a time, smaller --batches, or fewer --threads.",
    "choose": "Take fewer --widths at a time, a smaller --batch, or fewer --threads.",
    "load": "Take fewer --widths or --seconds, or a smaller --rate.",
    "channels": "Take a smaller --batch or --image-size, or fewer --threads.",
}


def script_name() -> str:
    """The file that this process was started as: `slimbench` for a console script, `__main__.py` for `python -m`."""
    return os.path.basename(sys.argv[0]).removesuffix(".exe")


def started_as(package: str) -> str:
    """`slimbench` where the console script of `package` was started, else `python -m benchmarks`."""
    return SCRIPTS[package] if script_name() == SCRIPTS[package] else f"python -m {package}"


def as_started(text: str) -> str:
    """`text` with its `python -m PACKAGE` as the user has to type it, if that is shorter."""
    return re.sub(rf"python -m ({'|'.join(SCRIPTS)})(?![.\w])", lambda match: started_as(match[1]), text)


class Command(click.Command):
    """A command whose help says how it was started, and that knows what a wrong option was to be. `settings` are keys that
    `--set KEY=VALUE` takes."""

    settings: Sequence[str] = ()

    def main(self, *arguments: Any, **options: Any) -> Any:
        begin_in_utf8(SCRIPTS.values(), OWN_PACKAGES)
        lasting_streams()
        try:
            return super().main(*arguments, **options)
        except SystemExit as end:
            end_without_them(end.code)
            raise

    def get_help(self, ctx: click.Context) -> str:
        return as_started(super().get_help(ctx))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            known = [name for parameter in self.get_params(ctx) for name in parameter.opts if name.startswith("--")]
            likely = likely_options(error.option_name, known, self.settings)
            hint = f" Did you mean {' or '.join(likely)}?" if likely else ""
            raise click.UsageError(f"No such option {error.option_name!r}.{hint}", ctx) from error


class Group(Command, click.Group):
    """Such commands, and the help of all of them."""

    command_class = Command


class Failure(click.ClickException):
    """A user's mistake or a failed check: one message, the error's exit code."""

    def __init__(self, program: str, error: UserError) -> None:
        super().__init__(str(error))
        self.program = program
        self.exit_code = error.exit_code  # type: ignore[misc]

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(printable(f"{self.program}: {self.message}"), err=True)


@contextmanager
def messages(program: str, interrupted: str = "interrupted.") -> Iterator[None]:
    """A user's mistake and too little memory end as one message, Ctrl-C and a polite kill as the line `interrupted`, all after
    `program`."""
    lasting_streams()
    program = SCRIPTS[program] if script_name() == SCRIPTS.get(program) else program
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        with interruptible():
            yield
    except UserError as error:
        lack = None if error.exit_code == ResourceError.exit_code else lack_of_memory(error)
        raise Failure(program, error if lack is None else too_little_memory(lack)) from error
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in OWN_PACKAGES:
            raise
        missing = f"the package {error.name} is not installed, and this needs it: {install_command(error.name or '')}."
        raise Failure(program, ResourceError(missing)) from error
    except KeyboardInterrupt as error:  # one that knows what was done by then says it
        click.echo(printable(f"{program}: {str(error) or interrupted}"), err=True)
        sys.exit(INTERRUPTED)
    except Exception as error:
        if (lack := lack_of_memory(error)) is None:
            raise
        raise Failure(program, too_little_memory(lack)) from error


def too_little_memory(error: BaseException) -> ResourceError:
    """What an error that tells of it is to the user: in which command, what was asked for, how much is left, what to do."""
    context = click.get_current_context(silent=True)
    name = (context.command.name if context else None) or ""
    left = free_memory()
    free = "" if left is None else f" {gib(left)} are free now."
    if isinstance(error, ImportError):  # no option makes a library smaller
        advice = "Loading it takes more: end what else takes memory, or raise the limit (ulimit -v)."
    elif name in LESS:
        advice = f"{LESS[name]} Or end what else takes memory."
    else:
        advice = "End what else takes memory."
    during = f" for {name}" if name in LESS else ""
    return ResourceError(f"too little memory{during} ({reason(error)}).{free} {advice}")


@contextmanager
def script_messages(program: str, interrupted: str = "interrupted.") -> Iterator[None]:
    """`messages`, for scripts that are no click commands."""
    try:
        with messages(program, interrupted):
            yield
    except Failure as failure:
        failure.show()
        sys.exit(failure.exit_code)
