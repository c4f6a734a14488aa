"""The command: what it refuses, and that it writes a picture and a report of what was measured."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.studies.zoo import __main__ as zoo
from benchmarks.studies.zoo import run
from tests.support.shown_results import cell, recorded, steady


def ended(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["zoo", *words])
    with pytest.raises(SystemExit) as stopped:
        zoo.main()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batches", "1,x"], "--batches 1,x: expected whole numbers"),
        (["--networks", "s_resnet"], "did you mean 's_resnet50'"),
        (["--backend", "onnx"], "backend 'onnx': runs no ONNX files"),
        (["--duration", "0"], "expected seconds above 0"),
    ],
)
def test_bad_options_end_with_one_message(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(monkeypatch, *words) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("benchmarks.studies.zoo: ") and len(error.splitlines()) == 1


def test_picture_and_report_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = [steady(cell(f"{width}x", int(1e8 * width), network="us_mobilenet_v1"), width) for width in (0.25, 0.5, 1.0)]
    monkeypatch.setattr(run, "zoo_results", lambda *rest: recorded(results))
    monkeypatch.setattr(sys, "argv", ["zoo", "--output-dir", str(tmp_path)])
    zoo.main()
    assert {path.name for path in tmp_path.iterdir()} == {"zoo.png", "report.md", "results.csv"}
    assert "US-MobileNet v1" in capsys.readouterr().out
