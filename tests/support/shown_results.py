"""Results made up for tests of what is shown: latencies with known medians, and seeded noise where it is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.cells.cell import MEASURED, NOT_MEASURED, Cell, Result, Round
from benchmarks.cells.records import Recorded
from benchmarks.cells.statistics import Summary
from benchmarks.report.analysis import AnalysisRow

CPU = {"threads": 1}


def cell(label: str, macs: int, **changes: Any) -> Cell:
    """A cell of `net`; the width is read off its label: `0.5x`, `s1`, or None."""
    width: float | int | None = None
    if label.endswith("x"):
        width = float(label[:-1])
    elif label.startswith("s") and label[1:].isdigit():
        width = int(label[1:])
    plain = Cell(
        bundle="net",
        network="net",
        name=f"net_{label}",
        plan=label,
        width=width,
        label=label,
        file=f"net_{label}.onnx",
        backend="onnxruntime-cpu",
        precision="fp32",
        batch=1,
        image_size=10,
        macs=macs,
        params=macs // 100,
        size_bytes=macs // 25,
        activations=1000,
        layers=20,
    )
    return replace(plain, **changes)


def result(of: Cell, rounds_ms: Sequence[Sequence[float]], **changes: Any) -> Result:
    """A measured result with exactly these wall times."""
    rounds = tuple(Round({"wall": list(samples)}) for samples in rounds_ms)
    return replace(Result(of, MEASURED, "", rounds, CPU), **changes)


def steady(of: Cell, *medians_ms: float) -> Result:
    """A result with a round per median, each of three samples 1 % around it."""
    return result(of, [[0.99 * value, value, 1.01 * value] for value in medians_ms])


def noisy(of: Cell, median_ms: float, seed: int = 0, noise: float = 0.03, rounds: int = 3) -> Result:
    """A result with 40 samples a round, skewed as latencies are, and a drift between rounds."""
    random = np.random.default_rng([seed, of.macs % 2**31, of.batch])
    drift = 1 + 0.3 * noise * random.standard_normal(rounds)
    return result(of, [list(median_ms * factor * (1 + noise * random.gamma(1.0, 1.0, 40))) for factor in drift])


def failed(of: Cell, reason: str = "no room for it") -> Result:
    return Result(of, NOT_MEASURED, reason)


def on_gpu(of: Result, wall: float = 1.2, transfers: bool = False) -> Result:
    """The same latencies by device events, a longer wall time, and transfers."""
    rounds = []
    for round_ in of.rounds:
        device = np.asarray(round_.samples_ms["wall"])
        kinds = {"wall": wall * device, "device": device, "enqueue": 0.1 * device}
        if transfers:
            kinds |= {"upload": 0.25 * device, "download": 0.05 * device}
        rounds.append(Round({kind: values.tolist() for kind, values in kinds.items()}))
    return replace(of, rounds=tuple(rounds))


def figures(row: AnalysisRow | None) -> Summary:
    """What is known of a row that was measured."""
    assert row is not None and row.summary is not None
    return row.summary


def recorded(results: Sequence[Result], ceilings: Mapping[str, Any] | None = None, **environment: Any) -> Recorded:
    """A run with these results."""
    run = {
        "command": "python -m benchmarks exports/net",
        "environment": {"cpu": "Intel(R) Xeon(R) Processor", "cores": 2, **environment},
        "settings": {"duration_s": 3.0, "repeats": 3, "warmup_s": 0.2},
        "ceilings": ceilings or {},
    }
    return Recorded(run, tuple(results), {"environment_after": {}, "seconds": 61.5, "interrupted": False})


def widths(count: int, low: float = 0.25, high: float = 1.0) -> list[str]:
    """Labels of evenly spaced widths."""
    return [f"{round(low + (high - low) * step / max(1, count - 1), 4)}x" for step in range(count)]


def family(count: int, batches: Sequence[int] = (1, 8, 32), accuracy: bool = False, **changes: Any) -> list[Result]:
    """A US-MobileNet v1's `count` widths with a staircase in its latency and a cost that does not shrink."""
    results = []
    for batch in batches:
        for label in widths(count):
            width = float(label[:-1])
            steps = np.ceil(8 * width) / 8
            milliseconds = (0.6 + 0.8 * batch) * (0.25 + 10 * (0.5 * width**2 + 0.5 * steps**2))
            known = {"top1": 0.55 + 0.15 * width**0.5 - 0.004 * (label == "0.75x"), "images": 50000, "data": "ImageNet"}
            of = cell(label, round(569e6 * width**1.9), batch=batch, accuracy=known if accuracy else None, **changes)
            results.append(noisy(of, float(milliseconds)))
    return results
