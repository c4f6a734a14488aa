"""Names of files in UTF-8, whatever the locale.

A file's name is bytes. Under `LANG=C` or Latin-1 Python makes another text of the same bytes than under UTF-8, so that a run's
configuration, a manifest and results would name files that no other machine, or the next shell, finds again; libraries take
names in UTF-8 only. So a command that is begun in such a locale begins anew in Python's UTF-8 mode (PEP 540), and so do the
processes that it starts. Bytes that are no UTF-8 stay what they were there too (PEP 383).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection

MODE = "PYTHONUTF8"


def begin_in_utf8(scripts: Collection[str], packages: Collection[str]) -> None:
    """Begin this process anew in UTF-8 mode where it is not in it, the locale is another, and it is one of `scripts`, by the
    name of its file, or one of `packages` run with `python -m`. A program that only calls a command is left as it is."""
    if os.name != "posix" or sys.flags.utf8_mode or "utf8" in sys._xoptions or _is_utf8(sys.getfilesystemencoding()):
        return
    if _started(scripts, packages):
        os.environ[MODE] = "1"
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 (our own words)


def _is_utf8(encoding: str) -> bool:
    return encoding.lower().replace("_", "-") in ("utf-8", "utf8")


def _started(scripts: Collection[str], packages: Collection[str]) -> bool:
    """Whether the program of this process is a command of ours."""
    specification = getattr(sys.modules.get("__main__"), "__spec__", None)
    if specification is not None:
        return specification.name in {f"{package}.__main__" for package in packages}
    words = sys.orig_argv[1:]
    return os.path.basename(sys.argv[0]) in scripts and sys.argv[0] in words
