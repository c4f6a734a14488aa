"""A detector trained and tested on scenes, as the study does it: at all widths, and at one by itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.studies.detection import __main__ as study


@pytest.mark.parametrize(("more", "widths"), [([], [0.25, 0.5, 0.75, 1.0]), (["--alone", "0.5", "--slim", "backbone"], [0.5])])
def test_every_width_has_its_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], widths: list[float]
) -> None:
    pytest.importorskip("faster_coco_eval", reason="pip install '.[detection]'")
    small = ["--steps", "1", "--width", "8", "--neck", "16", "--scenes", "2", "--json", str(tmp_path / "detection.json")]
    monkeypatch.setattr(sys, "argv", ["detection", *small, *more])
    monkeypatch.setattr(study, "BATCH", 2)
    study.main()
    result = json.loads((tmp_path / "detection.json").read_text())
    assert [row["width"] for row in result["widths"]] == widths
    assert all(0 <= row["ap50"] <= 1 for row in result["widths"])
