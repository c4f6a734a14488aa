"""Latencies that were measured on this machine, in the user's cache, so that the next start measures nothing.

A file for every set of networks, backend, machine and batches, as JSON that says of what it is. One that is damaged, or of
something else, is as good as none; one that cannot be written costs the next start its time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from slimexport.target.records import EntryError, Record, Within, from_json, to_json
from slimexport.target.timings import Samples
from slimexport.target.timings.cache_folder import cache_folder
from slimtrain.base.errors import UserError
from slimtrain.base.files import write_atomically
from slimtrain.base.untrusted.json_text import JsonError, parse_json
from slimtrain.base.untrusted.opening import read_text
from slimtrain.base.untrusted.quoting import reason

log = logging.getLogger(__name__)

FOLDER = "serving"
MOST_BYTES = 4 << 20
MOST_FILES = 200  # the oldest go
SCHEMA_VERSION = 1
CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Key:
    """What latencies depend on: the networks (SHA-256 of their `files`, by label), the backend with its version, its threads
    (None: its own choice), the device that runs it, the batches, and where not all of them are measured the deadline, which
    decides on some."""

    files: Mapping[str, str | None]
    backend: str
    version: str
    threads: int | None
    device: str
    batches: tuple[int, ...]
    deadline_ms: float | None = None

    def as_json(self) -> str:
        """One text for equal keys, whatever the order of files."""
        return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(self)}, sort_keys=True)

    def path(self) -> Path:
        return cache_folder() / FOLDER / f"{hashlib.sha256(self.as_json().encode()).hexdigest()[:32]}.json"


@dataclass(frozen=True, kw_only=True)
class KeptSamples(Record):
    """What a file holds: the key as one text, and milliseconds by label and batch."""

    of: str
    samples_ms: Mapping[str, Mapping[str, tuple[Annotated[float, Within(1e-6, 1e9)], ...]]]


def read_kept(key: Key) -> Samples | None:
    """The samples that were kept under a key; None where there are none that can be read."""
    path = key.path()
    try:
        kept = from_json(KeptSamples, parse_json(read_text(path, MOST_BYTES)))
        if kept.of != key.as_json() or set(kept.samples_ms) != set(key.files):
            raise EntryError("it is of something else")
        samples = {label: {int(batch): times for batch, times in row.items()} for label, row in kept.samples_ms.items()}
        if not all(row and set(row) <= set(key.batches) and all(row.values()) for row in samples.values()):
            raise EntryError("it has other batches")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, JsonError, ValueError) as error:
        log.warning("latencies kept in %s are not used (%s): they are measured anew", path, reason(error))
        return None
    return samples


def keep(key: Key, samples: Samples) -> None:
    """Keep samples under a key, in place of those that were there."""
    path = key.path()
    rows = {
        label: {str(batch): tuple(round(ms, 6) for ms in times) for batch, times in row.items()}
        for label, row in samples.items()
    }
    try:
        write_atomically(path, (json.dumps(to_json(KeptSamples(of=key.as_json(), samples_ms=rows))) + "\n").encode())
    except UserError as error:
        log.warning("latencies are not kept (%s): the next start measures anew", error)
        return
    with contextlib.suppress(OSError):
        files = sorted(path.parent.glob("*.json"), key=lambda file: file.stat().st_mtime)
        for old in files[:-MOST_FILES]:
            old.unlink()


def cpu_name() -> str:
    """The CPU's model, as the system calls it, with how many of its threads this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, UnicodeDecodeError):
        lines = CPU_INFO.read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {usable} threads"
