"""Searched plans of a tiny detector beside uniform widths of as many MACs, as the study compares them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.studies.detection import searched as study
from tests.support.detector_runs import TINY_DETECTOR

OWN = {**TINY_DETECTOR, "scenes": 8, "test_scenes": 2}
SMALL = (
    *("epochs=1", "batch_size=2", "image_size=64", "sandwich=2", "width_range=[0.5,1.0]", "test_widths=", "device=cpu"),
    *("search_holdout=4", "search_images=2", "search_batch=2", "search_groups=1", "search_targets=[1.9M]"),
    *("search_widths=[0.5,1.0]", "calibration_batches=1"),
    *(f"detector.{key}={str(value).lower()}" for key, value in OWN.items()),
)


def test_a_row_for_every_error_and_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faster_coco_eval", reason="pip install '.[detection]'")
    words = [word for change in SMALL for word in ("--set", change)]
    monkeypatch.setattr(sys, "argv", ["searched", "--errors", "loss,ap", *words, "--json", str(tmp_path / "s.json")])
    monkeypatch.chdir(tmp_path)
    study.main()
    rows = json.loads((tmp_path / "s.json").read_text())["rows"]
    assert [(row["error"], row["plan"]) for row in rows] == [("loss", "macs_1_9M"), ("ap", "macs_1_9M")]
    for row in rows:
        assert row["macs"] <= 1_900_000 and 0.5 <= row["width"] <= 1 and row["images"] == 2
        assert 0 <= row["ap"] <= row["ap50"] <= 1 and 0 <= row["uniform_ap50"] <= 1
