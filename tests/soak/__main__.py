"""Hostile files, kills, failing disks and many exports in one process, with a fixed seed: tried, refused, right, wrong.

    python -m tests.soak fuzz [--from 0] [--count 5000] [--kinds yaml,images] [--keep FOLDER]
    python -m tests.soak replay yaml 17 --keep FOLDER
    python -m tests.soak kill [--count 200] [--scenarios export,train]
    python -m tests.soak faults [--count 100]
    python -m tests.soak exports [--count 1000]
    python -m tests.soak guided [--seconds 60]
    python -m tests.soak join one.json other.json --output FILE

fuzz: damaged files of every kind, each given to what the commands read it with, in processes that may take 10 s and 2 GiB more
than the file's own size; the first 20 of a kind are given to the command itself. replay: one again, with its traceback.
kill: commands that get SIGKILL, SIGTERM or SIGINT, at moments of their time and at system calls that write. faults: each
such call fails with ENOSPC, EIO and EACCES, alone, for good, or behind half a write. exports: what one process holds does not
grow. guided: readers under atheris. join: files of results into FILE, of each class the newest, or the sum of what the same
readers were tried on. With --output FILE, what came out is joined with what the file holds of other modes; fuzz
adds up there, over runs of other numbers (--from): a number never counts twice, nor what other versions of the readers were
tried on, unless --other-readers asks for it.

Exit codes: 0 nothing wrong; 1 something is; 2 usage; 3 a C compiler, or atheris, is not there.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: forked processes have one thread

from benchmarks.studies.script import script_parser
from slimtrain.base.command import script_messages
from slimtrain.base.errors import UserError, nearest
from slimtrain.base.files import write_atomically
from tests.soak.guided import GUIDED
from tests.soak.kinds.registry import KINDS
from tests.soak.modes import Asked, Class, exports, fuzz, hurt, under_atheris
from tests.soak.results import class_of, joined, read, readers, run_of, shown, text_of, with_newer, write
from tests.soak.scenarios import SCENARIOS

PROGRAM = "tests.soak"
COUNTS = {"fuzz": 5000, "kill": 200, "exports": 1000}


def chosen(text: str | None, known: Sequence[str]) -> list[str]:
    """The names of a list, all where there is none. UserError for one that is not known."""
    names = list(known) if text is None else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise UserError(f"{name!r} is not known{nearest(name, known)}. Available: {', '.join(known)}.")
    return names


def classes_of(arguments: argparse.Namespace) -> Iterator[Class]:
    """What the mode that was asked for gives, class by class."""
    asked = Asked(arguments.seed, arguments.workers, arguments.keep, lambda text: print(text, flush=True), arguments.first)
    mode, count = arguments.mode, arguments.count
    if count is None:
        count = COUNTS.get(mode)
    if mode == "fuzz":
        yield from fuzz(asked, chosen(arguments.kinds, list(KINDS)), count, arguments.commands)
    elif mode in ("kill", "faults"):
        yield from hurt(asked, mode == "kill", chosen(arguments.scenarios, list(SCENARIOS)), count)
    elif mode == "exports":
        yield from exports(asked, count)
    else:
        yield from under_atheris(asked, chosen(arguments.kinds, GUIDED), arguments.seconds)


def parser() -> argparse.ArgumentParser:
    """Of the command's options."""
    options = script_parser(__doc__)
    options.add_argument("mode", choices=("fuzz", "replay", "kill", "faults", "exports", "guided", "join"))
    options.add_argument("case", nargs="*", help="of replay: KIND NUMBER; of join: files of results")
    options.add_argument(
        "--count", type=int, metavar="N", help=f"files of a kind, moments, calls, exports  [default: {_counts()}]"
    )
    options.add_argument("--from", dest="first", type=int, default=0, metavar="N", help="of fuzz: the first number of a file")
    options.add_argument("--other-readers", action="store_true", help="add to what other versions were tried on")
    options.add_argument("--kinds", metavar="LIST", help=f"of {', '.join(KINDS)}  [default: all]")
    options.add_argument("--scenarios", metavar="LIST", help=f"of {', '.join(SCENARIOS)}  [default: all]")
    options.add_argument(
        "--commands", type=int, default=20, metavar="N", help="of fuzz: files of a kind for the command itself"
    )
    options.add_argument("--seconds", type=int, default=60, metavar="S", help="of guided: for each kind")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--workers", type=int, default=2, metavar="N", help="processes at once")
    options.add_argument("--keep", type=Path, metavar="FOLDER", help="have files that show something wrong here")
    options.add_argument("--output", type=Path, metavar="FILE", help="write what came out, beside what is there")
    return options


def _counts() -> str:
    return ", ".join(f"{mode} {count}" for mode, count in COUNTS.items()) + ", faults all"


def main(words: Sequence[str] | None = None) -> int:
    """Run a mode, and print its figures as they come; the exit code."""
    given = list(sys.argv[1:] if words is None else words)
    options = parser()
    arguments = options.parse_args(given)
    if arguments.mode == "replay":
        return _replay(options, arguments)
    if arguments.mode == "join":
        return _join(options, arguments)
    began, classes = time.monotonic(), list[dict[str, Any]]()
    with script_messages(PROGRAM, "interrupted."):
        before = read(arguments.output) if arguments.output is not None else {}
        if arguments.mode == "fuzz" and arguments.count != 0:
            _addable(arguments, before)
        for one in classes_of(arguments):
            classes.append(one)
            print(shown([{**one, "wrong_kinds": []}]), flush=True)
            if arguments.output is not None:  # at once: all of them take hours
                run = run_of(arguments.mode, given, time.monotonic() - began, arguments.seed, classes)
                write(arguments.output, before, run, arguments.other_readers)
        print(shown(classes))
    return int(any(one["wrong"] for one in classes))


def _addable(arguments: argparse.Namespace, before: dict[str, Any]) -> None:
    """UserError, before the work, where a file of results could not take what will come."""
    numbers = {"ranges": [[arguments.first, arguments.first + (arguments.count or COUNTS["fuzz"])]], "readers": [readers()]}
    classes = [class_of(f"file: {name}", [], "", **numbers) for name in chosen(arguments.kinds, list(KINDS))]
    run = {"mode": arguments.mode, "seed": arguments.seed, "classes": classes}
    joined(before, run, arguments.other_readers)


def _replay(options: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    from tests.soak.fuzzing import replay

    if len(arguments.case) != 2 or not arguments.case[1].isdecimal() or arguments.keep is None:
        options.error("replay takes KIND NUMBER, and --keep FOLDER, where the file goes")
    (name,) = chosen(arguments.case[0], list(KINDS))
    arguments.keep.mkdir(parents=True, exist_ok=True)
    replay(name, int(arguments.case[1]), arguments.seed, arguments.keep)
    print("read, and right")
    return 0


def _join(options: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    if not arguments.case or arguments.output is None:
        options.error("join takes files of results, and --output FILE")
    with script_messages(PROGRAM, "interrupted."):
        content = read(arguments.output)
        for name in arguments.case:
            if not Path(name).is_file():
                raise UserError(f"{name}: no such file.")
            content = with_newer(content, read(Path(name)))
        write_atomically(arguments.output, text_of(content))
        print(shown([one for run in content.get("runs", []) for one in run["classes"]]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
