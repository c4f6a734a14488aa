"""Values out of /proc, /sys and small commands: what is there, or None. Nothing here raises, whatever the machine lacks.

Paths lie under a `root`, `/` but in tests, so that any machine can be laid out in a folder.
"""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

COMMAND_TIMEOUT_S = 10.0

RunCommand = Callable[[Sequence[str]], tuple[int, str] | None]  # as `command`, which tests replace


def text(path: Path) -> str | None:
    """A small file's content without white space and NULs around it (the device tree ends its strings with one); None where
    it is missing, unreadable or empty."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \t\r\n") or None
    except OSError:
        return None


def to_number(value: str | None) -> float | None:
    """The finite number that `value` spells, or None."""
    try:
        parsed = float(value) if value is not None else math.nan
    except ValueError:
        return None
    return parsed if math.isfinite(parsed) else None


def number(path: Path) -> float | None:
    """The finite number that is all of a file's content, or None."""
    return to_number(text(path))


def field(path: Path, name: str) -> str | None:
    """The first value of a `name: value` line in a file such as /proc/cpuinfo, or None."""
    pairs = (line.partition(":") for line in (text(path) or "").splitlines())
    return next((value.strip() or None for key, colon, value in pairs if colon and key.strip() == name), None)


def entries(folder: Path, pattern: str = "*") -> list[Path]:
    """What `pattern` matches in a folder, sorted; nothing where it is missing, unreadable or vanishes meanwhile."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def command(words: Sequence[str], timeout_s: float = COMMAND_TIMEOUT_S) -> tuple[int, str] | None:
    """Exit status and output of a program; None where it is not installed, cannot start, or takes longer than `timeout_s`
    seconds."""
    program = shutil.which(words[0])
    if program is None:
        return None
    try:
        ran = subprocess.run(
            [program, *words[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return ran.returncode, ran.stdout
