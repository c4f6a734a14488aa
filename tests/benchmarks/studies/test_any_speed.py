"""The study of speed: what its tables say, and which parts it runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.studies import any_speed
from benchmarks.studies.any_network import exporters, making, published


def runs(**seconds: float) -> dict[str, list[dict[str, float]]]:
    names = {"torch_export": "torch.export"}
    return {
        names.get(side, side): [{"wall_s": 2 * s, "processor_s": s}, {"wall_s": s, "processor_s": 9.0}]
        for side, s in seconds.items()
    }


def made(name: str, threads: int, rounds: int) -> dict[str, Any]:
    sides = runs(torch_export=1.0, make_slimmable=1.5, unchecked=1.25)
    return {"network": name, "threads": threads, "runs": sides, "ratio": 1.5, "ratio_unchecked": 1.25, "ratio_wall": 1.5}


def test_the_parts_asked_for_are_run_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = {"seconds": 0.5, "bytes": 2_000_000}
    row = {"width": 0.5, "ours": file, "torch": {**file, "seconds": 5.0}, "times_faster": 10.0}
    monkeypatch.setattr(any_speed, "needs", lambda *modules: None)
    monkeypatch.setattr(making, "making", made)
    monkeypatch.setattr(exporters, "written", lambda name, rounds: {"network": name, **row})
    words = ["any_speed", "--only", "making,exporters", "--networks", "resnet18", "--json", str(tmp_path / "result.json")]
    monkeypatch.setattr(sys, "argv", words)
    any_speed.main()
    result = json.loads((tmp_path / "result.json").read_text())
    assert {row["network"] for row in result["making"] + result["exporters"]} == {"resnet18"}
    assert "widths" not in result and "--only making,exporters --networks resnet18" in result["command"]
    printed = capsys.readouterr().out
    assert "1.50 s" in printed and "10.0" in printed and "2.00" in printed


def test_pairs_are_shown_with_their_seconds_and_ratio() -> None:
    row = {
        "network": "us_resnet50",
        "widths": [0.5, 1.0],
        "seconds_per_width": {"published": 0.2, "traced": 0.3},
        "ratio": 1.5,
    }
    assert "0.2000" in any_speed.summary("widths", [row]) and "1.500" in any_speed.summary("widths", [row])


def test_an_unknown_part_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(any_speed, "needs", lambda *modules: None)
    monkeypatch.setattr(sys, "argv", ["any_speed", "--only", "naming"])
    with pytest.raises(SystemExit) as stop:
        any_speed.main()
    assert stop.value.code == 2 and "making, widths, exporters, steps" in capsys.readouterr().err


def test_every_published_network_of_the_study_is_one() -> None:
    from slimtrain.models.published import published_spec

    for name in (*any_speed.PUBLISHED, any_speed.STEP):
        assert published_spec(name).name == name
    assert len(exporters.NETWORKS) == 10 and len(making.NETWORKS) == 8 and published.NARROWEST == 0.25
