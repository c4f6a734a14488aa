"""One run of the study: what is there already is taken over, the rest is exported and measured, and all is kept."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cells.backends import BACKENDS, CPU
from benchmarks.cells.cell import Options
from benchmarks.cells.inputs import RandomImages, cache_bytes
from benchmarks.cells.records import RESULTS, Recorded, Records, read_records
from benchmarks.machine.environment import environment
from benchmarks.machine.sampler import StateSampler
from benchmarks.measure.method import Method
from benchmarks.measure.progress import OnProgress
from benchmarks.measure.threads import pinned
from benchmarks.measure.turns import CellSource
from benchmarks.runners.opening import open_runner
from benchmarks.studies.zoo.bundles import References, cells_of, check_wanted, export
from benchmarks.studies.zoo.turns import Turns, same_settings, settings_of, take_turns
from slimtrain.base.errors import UserError
from slimtrain.base.image_size import ImageSize
from slimtrain.base.text import count, duration
from slimtrain.models.spec import PUBLISHED_SIZE

TURNS = "turns.jsonl"  # in the folder of results, until all are taken
SEED = 0  # of the random inputs


@dataclass(frozen=True)
class Asked:
    """What is measured: all switches of `networks` at `batches`. `threads` None: one per physical core. `image_size` None: as
    the errors were published at."""

    networks: tuple[str, ...]
    batches: tuple[int, ...]
    backend: str
    precision: str
    threads: int | None
    method: Method
    image_size: ImageSize | None = None

    def __post_init__(self) -> None:
        check_wanted(self.networks, self.backend, self.precision)
        if any(batch < 1 for batch in self.batches) or not self.batches or not self.networks:
            raise UserError(f"batches {', '.join(map(str, self.batches))}: expected whole numbers from 1, as in 1,32.")


def zoo_results(
    asked: Asked, folder: Path, command: str, say: Callable[[str], None], progress: OnProgress, again: bool = False
) -> Recorded:
    """The results in `folder`: those of a finished run, else measured. Raises UserError where they were measured otherwise
    than asked, and KeyboardInterrupt: what was measured stays, and the next call goes on from it."""
    path = folder / RESULTS
    if again:
        for name in (RESULTS, TURNS):
            (folder / name).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    with pinned(asked.threads) as threads:
        run = {"command": command, "settings": _settings(asked, threads)}
        if path.exists():
            recorded = read_records(path)
            same_settings(path, recorded.run, run)
            say(f"{path}: is measured, and drawn again (--again measures anew)")
            return recorded
        turns = Turns.at(folder / TURNS)
        if turns.run:
            say(f"{turns.path}: goes on after {len(turns.taken)} turns of an interrupted run")
        turns.begin({**run, "environment": environment()})
        with tempfile.TemporaryDirectory() as files:
            _measure(asked, Path(files), turns, say, progress)
        return read_records(path)


def _settings(asked: Asked, threads: dict[str, Any]) -> dict[str, Any]:
    images = RandomImages(asked.image_size or PUBLISHED_SIZE)
    covered = all(images.covers_cache(batch, cache_bytes()) for batch in asked.batches)
    inputs = {"distribution": "standard normal", "seed": SEED, "covers_cache": covered}
    what = {"networks": asked.networks, "batches": asked.batches, "backend": asked.backend, "precision": asked.precision}
    return settings_of(asked.method, **what, image_size=asked.image_size, threads=threads, inputs=inputs)


def _measure(asked: Asked, files: Path, turns: Turns, say: Callable[[str], None], progress: OnProgress) -> None:
    """Export, take the turns that are lacking, and write `results.jsonl` in place of the file of turns."""
    began = time.monotonic()
    bundles = export(asked.networks, asked.precision, files, say, asked.image_size)
    cells = cells_of(bundles, asked.backend, asked.precision, asked.batches)
    seconds = len(cells) * (asked.method.duration_s + asked.method.repeats * asked.method.warmup_s)
    rounds = count(asked.method.repeats, "round")
    say(f"{count(len(cells), 'cell')} in {rounds}: more than {duration(seconds)}, and the loading")
    images = RandomImages(cells[0].image_size, SEED)
    folders = {bundle.name: bundle.folder for bundle in bundles}
    device = BACKENDS[asked.backend].device or CPU
    options = Options(threads=turns.run["settings"]["threads"]["threads"], device=device)
    source = CellSource(lambda cell: folders[cell.bundle], open_runner, lambda cell: images, options, References(bundles))
    with closing(StateSampler(device)) as sampler:
        take_turns(cells, source, asked.method, turns, progress, sampler)
    _keep(turns, turns.results(cells), time.monotonic() - began)


def _keep(turns: Turns, results: Sequence[Any], seconds: float) -> None:
    path = turns.path.with_name(RESULTS)
    unfinished = path.with_name(f"{RESULTS}.part")
    unfinished.unlink(missing_ok=True)
    with Records(unfinished) as records:
        records.run(turns.run["command"], turns.run["environment"], turns.run["settings"])
        for result in results:
            records.add(result)
        records.end(environment(), seconds)
    unfinished.replace(path)
    turns.path.unlink()
