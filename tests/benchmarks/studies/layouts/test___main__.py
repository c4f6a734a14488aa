"""Layouts of convolutions, on a CPU: that both are measured, at channels that stay and at new ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.studies.layouts import __main__ as layouts


def test_every_layer_is_measured_both_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(layouts, "LAYERS", ((40, 4, True), (48, 3, False)))
    words = ["layouts", "--device", "cpu", "--batch-size", "2", "--repeats", "2", "--json", str(tmp_path / "layouts.json")]
    monkeypatch.setattr(sys, "argv", words)
    layouts.main()
    result = json.loads((tmp_path / "layouts.json").read_text())
    assert [(row["number"], row["channels"]) for row in result["rows"]] == [
        ("float32", 40),
        ("float32", 48),
        ("bfloat16", 40),
        ("bfloat16", 48),
    ]
    for row in result["rows"]:
        assert all(ms > 0 for layout in layouts.LAYOUTS for ms in row[layout].values())
    assert len(capsys.readouterr().out.splitlines()) == 4
