"""The study of what slimming all of a detector buys, on one of few channels."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.studies.detection import slim
from benchmarks.studies.detection.slim import table

ROWS = [
    {"slim": "backbone", "width": 0.5, "macs": 8e9, "params": 3e6, "ms": 8.0, "parts": {"backbone": 3.0, "FPN": 5.0}},
    {"slim": "backbone", "width": 1.0, "macs": 12e9, "params": 4e6, "ms": 20.0, "parts": {"backbone": 12.0, "FPN": 8.0}},
    {"slim": "all", "width": 0.5, "macs": 3e9, "params": 1e6, "ms": 5.0, "parts": {"backbone": 3.0, "FPN": 2.0}},
]


def test_both_ways_are_measured_at_every_width_and_the_whole_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slim, "PUBLISHED", (64, 96))
    monkeypatch.setattr(slim, "PROPOSALS", 20)
    monkeypatch.setattr(slim, "WIDTHS", (0.5, 1.0))
    words = ["--small", "--image-size", "64x64", "--rounds", "1", "--json", str(tmp_path / "slim.json")]
    monkeypatch.setattr(sys, "argv", ["slim", *words])
    slim.main()
    result = json.loads((tmp_path / "slim.json").read_text())
    rows = result["rows"]
    assert [(row["slim"], row["width"]) for row in rows] == [("backbone", 0.5), ("backbone", 1.0), ("all", 0.5)]
    narrow, whole, least = rows
    assert least["macs"] < narrow["macs"] < whole["macs"] and least["params"] < narrow["params"] < whole["params"]
    assert all(row["macs"] > row["macs_of_file"] > 0 and row["ms"] > 0 for row in rows), "of 64x96 pixels, and of 64x64"
    assert all(list(row["parts"]) == ["backbone", "FPN", "RPN", "proposals", "RoIs", "detections"] for row in rows)
    assert result["nms"] == "onnx" and result["environment"]


def test_the_table_tells_promise_and_speed_of_each() -> None:
    _, header, first, second, third = table(ROWS, "320x544").splitlines()
    assert header.split()[:7] == ["slimmed", "width", "GMACs", "promised", "params", "ms", "speed-up"]
    assert first.split() == ["backbone", "0.5", "8.0", "1.50x", "3.0M", "8.0", "2.50x", "3.0", "5.0"]
    assert second.split()[:4] == ["nothing", "1", "12.0", "1.00x"]
    assert third.split()[3] == "4.00x" and third.split()[6] == "4.00x"
