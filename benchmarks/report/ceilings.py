"""Which ceilings stand. One that a network exceeds is none: something slowed its measurement down, and neither it nor shares
and floors made of it are told as what the device can do at best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.cells.cell import Result, ceiling_key
from benchmarks.cells.statistics import Summary, summary

Ceilings = Mapping[str, Mapping[str, Any]]  # by backend and precision
ROUNDING = 1 + 1e-9
MACS, LAUNCH = "macs_per_s", "seconds_per_operator"


def standing_ceilings(results: Sequence[Result], ceilings: Ceilings) -> tuple[dict[str, dict[str, Any]], dict[str, list[str]]]:
    """The ceilings without those that a result exceeds, and by the same keys a sentence for each that was.

    Bytes per second stay: networks that exceed them are served by a cache, which `analysis` tells width by width.
    """
    stand = {key: dict(ceiling) for key, ceiling in ceilings.items()}
    said: dict[str, list[str]] = {key: [] for key in ceilings}
    for key, ceiling in ceilings.items():
        measured = [
            (result, figures)
            for result in results
            if ceiling_key(result.cell) == key and (figures := summary(result)) is not None
        ]
        for name, exceeded in ((MACS, _compute), (LAUNCH, _launch)):
            if not (value := ceiling.get(name)):
                continue
            shares = [(exceeded(result, figures, value), result.cell) for result, figures in measured]
            share, cell = max(shares, key=lambda pair: pair[0], default=(0.0, None))
            if cell is not None and share > ROUNDING:
                stand[key][name] = None
                said[key].append(SENTENCES[name].format(key=key, cell=f"{cell.label} at batch {cell.batch}", share=share))
    return stand, said


SENTENCES = {
    MACS: "{key}: {cell} is {share:.2f} times as fast as the matrix product that was to be the ceiling: that was measured too "
    "low (others were busy?), so no ceiling is told",
    LAUNCH: "{key}: {cell} runs its layers {share:.2f} times as fast as operators that do nothing start: that was measured "
    "too low (others were busy?), so no floor of launches is told",
}


def _compute(result: Result, figures: Summary, macs_per_s: float) -> float:
    """Its MACs per second over the matrix product's."""
    return 1e3 * result.cell.macs * result.cell.batch / figures.median_ms / macs_per_s


def _launch(result: Result, figures: Summary, seconds_per_operator: float) -> float:
    """The time that starting its layers should take at the least, over what it takes."""
    return 1e3 * seconds_per_operator * (result.cell.layers or 0) / figures.median_ms
