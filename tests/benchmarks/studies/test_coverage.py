"""The coverage study: its sums, its rows, and going on from an earlier run's."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.studies import coverage
from benchmarks.studies.any_network import trial
from benchmarks.studies.any_network.names import LISTS


def row(name: str, **changes: Any) -> dict[str, Any]:
    return {"list": "timm", **trial.Row("timm", name, exported=True, groups=3, macs=0.3).plain(), **changes}


def test_sums_count_what_holds() -> None:
    rows = [row("a", proven=True, onnx=True), row("b", macs=0.5), row("c", exported=False, groups=0, cause="none")]
    assert coverage.sums(rows)["timm"] == {
        **{"networks": 3, "exported": 2, "with groups": 2, "proven": 1, "a third of the MACs": 2, "onnx": 1}
    }
    assert "timm" in coverage.summary(rows) and "(none)" in coverage.describe(rows[2])


def test_the_lists_are_what_the_study_says() -> None:
    assert [len(names) for _, names in LISTS.values()] == [80, 110, 100, 57]
    timm, drawn, others = (set(LISTS[key][1]) for key in ("timm", "drawn", "others"))
    assert not timm & drawn and not (timm | drawn) & others
    assert all(len(set(names)) == len(names) for _, names in LISTS.values())


def test_a_run_goes_on_from_an_earlier_one_s_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def trying(library: str, name: str) -> trial.Row:
        tried.append((library, name))
        return trial.Row(library, name, exported=True, proven=True)

    monkeypatch.setattr(trial, "tried", trying)
    monkeypatch.setattr(coverage, "needs", lambda *args: None)
    rows, result = tmp_path / "rows.jsonl", tmp_path / "result.json"
    rows.write_text(json.dumps(row("resnet18")) + "\n")
    words = ["coverage", "--lists", "timm", "--only", "resnet18,resnet50", "--rows", str(rows), "--json", str(result)]
    monkeypatch.setattr(sys, "argv", words)
    coverage.main()
    assert tried == [("timm", "resnet50")] and len(rows.read_text().splitlines()) == 2
    written = json.loads(result.read_text())
    assert written["sums"]["timm"]["networks"] == 2 and written["environment"] and "--lists timm" in written["command"]
