"""Files in turn: medians of ratios within a turn, where sessions live, and what a runtime cannot read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.studies.quantizing import turns
from benchmarks.studies.quantizing.turns import MOST, UNTIMED, Run, all_times, timed

IMAGE = np.zeros((1, 3, 4, 4), np.float32)


class Machine:
    """Runs whose speed is known, on a machine that becomes slower from turn to turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, drift: list[float]) -> None:
        self.opened: list[str] = []
        self.drift, self.count = drift, 0
        monkeypatch.setattr(turns, "_turn", lambda run, image: float(run(image)[0]))

    def opener(self, name: str, milliseconds: float, of: int) -> Any:
        def run(_: Any) -> Any:
            turn, self.count = self.count // of, self.count + 1
            return np.array([milliseconds * self.drift[turn]])

        def opened() -> Run:
            self.opened.append(name)
            return run

        return opened


@pytest.mark.parametrize("alone", [False, True])
def test_a_drift_that_meets_all_leaves_ratios_alone(alone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, [1, 5, 9])
    times = timed({"a": machine.opener("a", 2, 2), "b": machine.opener("b", 3, 2)}, IMAGE, alone, turns=3)
    assert (times["a"].ratio, times["a"].ms) == (1.0, 10)
    assert (times["b"].ratio, times["b"].ms, times["b"].quarters) == (1.5, 15, (1.5, 1.5))
    assert sorted(machine.opened) == (["a"] * 3 + ["b"] * 3 if alone else ["a", "b"])


def test_a_turn_is_short_and_has_untimed_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    clock: Iterator[float] = iter([0.0, 0.001, 0.001, 0.002, 0.002, 0.102])  # a millisecond each, then 5
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    runs: list[Any] = []

    def run(image: Any) -> Any:
        runs.append(image)
        return image

    assert turns._turn(run, IMAGE) == pytest.approx(5)
    assert len(runs) == UNTIMED + MOST


def test_what_a_runtime_cannot_read_has_no_times_there(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, [1])

    def onnxruntime(path: Path, threads: int) -> Run:
        return lambda image: np.array([4.0 / threads])

    def other(path: Path, threads: int) -> Run:
        if path.name == "strange.onnx":
            raise RuntimeError("unheard of")
        return lambda image: np.array([1.0])

    monkeypatch.setattr(turns, "RUNTIMES", {"onnxruntime": onnxruntime, "other": other})
    monkeypatch.setattr(turns, "onnxruntime_run", onnxruntime)
    files = {"fp32": Path("a.onnx"), "int8": Path("strange.onnx")}
    times = all_times(files, IMAGE, ["onnxruntime", "other"], [1, 2], turns=2)
    assert not machine.opened and times["int8"].keys() == {"onnxruntime"}
    assert {count: one.ms for count, one in times["fp32"]["onnxruntime"].items()} == {"1": 4, "2": 2}
    assert {count: one.ratio for count, one in times["fp32"]["other"].items()} == {"1": 0.25, "2": 0.5}
