"""A detector trained and tested on scenes, as the study does it: at all widths, and each by itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.studies.detection import __main__ as study

SMALL = ("epochs=1", "batch_size=2", "switches=[0.5,1.0]", "detector.scenes=2", "detector.test_scenes=2", "detector.width=8")


def test_every_width_has_its_precision_together_and_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faster_coco_eval", reason="pip install '.[detection]'")
    words = [word for change in SMALL for word in ("--set", change)]
    monkeypatch.setattr(sys, "argv", ["detection", "--alone", *words, "--json", str(tmp_path / "detection.json")])
    monkeypatch.chdir(tmp_path)
    study.main()
    rows = json.loads((tmp_path / "detection.json").read_text())["rows"]
    assert [(row["way"], row["width"]) for row in rows] == [(way, w) for way in ("together", "alone") for w in (0.5, 1.0)]
    assert all(0 <= row["ap50"] <= 1 for row in rows)


def test_a_width_by_itself_is_as_wide_as_the_switch() -> None:
    assert study.scaled(0.5) == ["detector.width=16", "detector.neck=48", "detector.hidden=96"]
