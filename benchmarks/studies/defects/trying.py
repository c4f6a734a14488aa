"""Defects tried one after the other, of several files at once."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies.defects.victim import AGAIN, AT_EXPORT, BROKEN, CAUGHT, ELSEWHERE, PASSES, WAYS, Victim

HARMLESS, MISSED = "harmless", "missed"
OUTCOMES = BROKEN, CAUGHT, HARMLESS, MISSED
TRIES = 20  # for a place of a defect that is drawn
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def attempts(
    victim: Victim, precision: str, most: int, seed: int, folder: Path, at_export: bool = True
) -> Iterator[dict[str, Any]]:
    """`most` defects of one file, kinds in turn, none twice: what, where, and what came of it, also `at_export`."""
    import onnx

    from benchmarks.studies.defects.mutations import MUTATIONS

    model = onnx.load_from_string(victim.files[precision][0])
    assert victim.proven(precision, folder), f"the right {precision} file is not proven right"
    draw = np.random.default_rng(seed)
    kinds, seen, tried = list(MUTATIONS), set[bytes](), 0
    while tried < most and kinds:
        name = kinds.pop(0)
        if (defect := _drawn(model, name, draw, seen)) is None:  # there is none, or no other one
            continue
        kinds.append(name)
        tried += 1
        content, where = defect
        outcomes, change = _outcomes(victim, precision, content, folder, at_export)
        yield {"precision": precision, "defect": name, "where": where, **outcomes, "change": change}


def _drawn(model: Any, name: str, draw: np.random.Generator, seen: set[bytes]) -> tuple[bytes, str] | None:
    """A file with a defect that was not there before, and where that is."""
    from benchmarks.studies.defects.mutations import NotHere, mutated

    for _ in range(TRIES):
        try:
            defect, where = mutated(model, name, draw)
        except NotHere:
            continue
        content = defect.SerializeToString(deterministic=True)
        digest = hashlib.sha256(content).digest()
        if digest not in seen:
            seen.add(digest)
            return content, where
    return None


def _outcomes(
    victim: Victim, precision: str, content: bytes, folder: Path, at_export: bool
) -> tuple[dict[str, str], float | None]:
    """What comes of a file on each way, and how far it changes outputs, if it passes on any."""
    outcomes = {AT_EXPORT: victim.proof(precision, content, folder)} if at_export else {}
    try:
        runner = victim.runner(precision, content, folder)
    except Exception:  # as in `proof`
        return dict.fromkeys([*outcomes, AGAIN, ELSEWHERE], BROKEN), None
    outcomes |= {way: victim.again(runner, precision, way) for way in (AGAIN, ELSEWHERE)}
    change = victim.changes(runner, precision) if PASSES in outcomes.values() else None
    for way, outcome in outcomes.items():
        if outcome == PASSES:
            assert change is not None
            outcomes[way] = HARMLESS if change <= victim.tolerance(precision, way) else MISSED
    return outcomes, change


@dataclass(frozen=True)
class Task:
    """One file, and how many of its defects are tried."""

    network: str
    width: float | None
    size: int | None
    precision: str
    most: int
    seed: int
    at_export: bool = True

    def rows(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """What came of each defect, and what the file is permitted."""
        victim = _victim(self.network, self.width, self.size)
        name = self.network.removeprefix("random:")
        with tempfile.TemporaryDirectory() as folder:
            tried = attempts(victim, self.precision, self.most, self.seed, Path(folder), self.at_export)
            rows = [{"network": name, **row} for row in tried]
        tolerances = {way: victim.tolerance(self.precision, way) for way in WAYS}
        return rows, {"network": name, "precision": self.precision, "probes": len(victim.job.images), **tolerances}


@lru_cache(maxsize=1)
def _victim(network: str, width: float | None, size: int | None) -> Victim:
    return Victim(network, width, size, digits=not network.startswith("random:"))


def tried(tasks: list[Task], processes: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of all tasks, in their order, and what files are permitted; each process computes in one thread."""
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    results: dict[Task, tuple[list[dict[str, Any]], dict[str, Any]]] = {}
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        pending = {pool.submit(Task.rows, task): task for task in reversed(tasks)}  # int8 takes longest
        for future in as_completed(pending):
            results[pending[future]] = future.result()
            for row in results[pending[future]][0]:
                if MISSED in row.values():
                    print(f"missed: {row}", flush=True)
    return [row for task in tasks for row in results[task][0]], [results[task][1] for task in tasks]
