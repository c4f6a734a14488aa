"""The script that measures the tool itself: what it runs and counts, not how fast this machine is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks.cells.inputs import assumed_cache
from benchmarks.studies import networks, trust


def test_work_of_known_duration_is_waited_for_by_the_measuring_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 0.25
        return now[0]

    monkeypatch.setattr("benchmarks.studies.trust.time.perf_counter", clock)
    assert trust.Known(1.0).run(0).wall == 1.25  # a second, and the reading that ends it
    assert trust.Known(0.0).run(0).wall == 0.25


def test_a_known_duration_is_measured() -> None:
    figures = trust.measure_known(0.0, seconds=0.05)
    assert figures["iterations"] > 10 and figures["median_ms"] < 1
    assert figures["beyond_us_per_iteration"] > 0


def test_the_tool_and_the_loop_take_turns_on_the_same_files(two_widths: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "TURNS", 2)
    with assumed_cache(1 << 16):
        rows = trust.agreement(two_widths, (2,), 1, 0.01)
    assert [row["file"] for row in rows] == ["us_mobilenet_v1_x0_25.onnx", "us_mobilenet_v1_x0_5.onnx"]
    for row in rows:
        assert row["batch"] == 2
        assert row["ratio"] == row["tool_median_ms"] / row["loop_median_ms"]
        assert min(row["iterations"]) >= 20  # at least 10 in each turn


@pytest.mark.parametrize(("off", "code"), [(0.04, 0), (0.06, 1)])
def test_the_verdict(off: float, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"known_ms": 1.0, "median_ms": 1.001, "iterations": 10, "beyond_us_per_iteration": 2.0}
    row = {"file": "a.onnx", "batch": 1, "tool_median_ms": 1.0, "loop_median_ms": 1.0, "ratio": 1 - off, "iterations": [1, 1]}
    monkeypatch.setattr(trust, "measure_known", lambda duration_s: {**known, "known_ms": 1.0})
    monkeypatch.setattr(trust, "agreement", lambda *arguments: [row])
    monkeypatch.setattr(trust, "open_bundle", lambda folder: None)
    monkeypatch.setattr(sys, "argv", ["trust", "bundle", "--json", str(tmp_path / "trust.json")])
    with pytest.raises(SystemExit) as stopped:
        trust.main()
    assert stopped.value.code == code
    assert json.loads((tmp_path / "trust.json").read_text())["worst"] == pytest.approx(off)


@pytest.mark.parametrize(("script", "words"), [(trust, ["nowhere"]), (networks, ["--networks", "mobilenet"])])
def test_a_mistake_is_one_message(
    script: ModuleType, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["script", *words])
    with pytest.raises(SystemExit) as stopped:
        script.main()
    assert stopped.value.code == 2
    assert words[-1] in capsys.readouterr().err
