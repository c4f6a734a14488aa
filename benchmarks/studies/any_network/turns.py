"""Sides of a comparison, measured in turn within one process."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from typing import Any


def in_turn(sides: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Side -> wall and processor seconds of every round, all sides in each. One round before them warms up."""
    for run in sides.values():
        run()
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, run in sides.items():
            gc.collect()
            wall, processor = time.perf_counter(), time.process_time()
            run()
            processor, wall = time.process_time() - processor, time.perf_counter() - wall
            runs[side].append({"wall_s": round(wall, 4), "processor_s": round(processor, 4)})
    return runs
