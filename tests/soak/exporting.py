"""Many exports in one process: what it holds (memory, open files, threads, temporary files) does not grow, and every bundle is
the first one, byte by byte."""

from __future__ import annotations

import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.soak.outcomes import RIGHT, ROOT, WRONG, Outcome
from tests.soak.scenarios import hidden, tree

SIZE, WIDTH = 32, 0.125
SETTLED = 10  # by then a tenth of all exports, or so many, allocators have what they keep
GROWN_MIB = 16.0  # what they may still take on
KIND = "exports in one process"


@dataclass(frozen=True)
class Held:
    """What a process holds after so many exports."""

    exports: int
    memory_mib: float
    files: int
    threads: int
    temporary: int
    same: bool
    hidden: int


def export_often(count: int, checkpoint: Path, folder: Path, temporary: Path) -> Iterator[Held]:
    """Export so often, over the last bundle each time."""
    import torch

    import slimexport
    from slimexport.request import Writing

    torch.set_num_threads(1)
    first = None
    for number in range(1, count + 1):
        bundle = folder / "b"
        slimexport.export(str(checkpoint), widths=[WIDTH], image_size=SIZE, output_dir=bundle, writing=Writing(overwrite=True))
        content = tree(bundle)
        first = content if first is None else first
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        yield Held(
            number,
            pages * resource.getpagesize() / 2**20,
            len(os.listdir("/proc/self/fd")),
            max(threading.active_count(), len(os.listdir("/proc/self/task"))),
            len(list(temporary.iterdir())),
            content == first,
            len(hidden(folder)),
        )


def judged(held: list[Held]) -> Iterator[Outcome]:
    """An outcome for every export, and what has grown since allocators had settled."""
    settled = held[min(len(held) - 1, max(len(held) // 10, min(SETTLED, len(held) // 2)))]
    for one in held:
        grown = []
        if one.exports > settled.exports:
            if one.memory_mib - settled.memory_mib > GROWN_MIB:
                grown.append(f"memory from {settled.memory_mib:.0f} to {one.memory_mib:.0f} MiB")
            names = ("files", "threads", "temporary")
            grown += [
                f"{name} {getattr(settled, name)} to {getattr(one, name)}"
                for name in names
                if getattr(one, name) > getattr(settled, name)
            ]
        if not one.same:
            grown.append("another bundle than the first")
        if one.hidden:
            grown.append("hidden files left")
        what = ", ".join(name.split(" ")[0] for name in grown)
        yield Outcome(KIND, one.exports, WRONG if grown else RIGHT, what, ", ".join(grown))


def exports(count: int, originals: Path, scratch: Path) -> list[Held]:
    """So many exports in a process of its own."""
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        temporary, folder = Path(name) / "temporary", Path(name) / "exports"
        temporary.mkdir()
        folder.mkdir()
        environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        words = [
            sys.executable,
            "-m",
            "tests.soak.exporting",
            str(count),
            str(originals / "own.pt"),
            str(folder),
            str(temporary),
        ]
        done = subprocess.run(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        return [Held(**json.loads(line)) for line in done.stdout.splitlines() if line.startswith("{")]


if __name__ == "__main__":
    for one in export_often(int(sys.argv[1]), *map(Path, sys.argv[2:])):
        print(json.dumps(asdict(one)), flush=True)
