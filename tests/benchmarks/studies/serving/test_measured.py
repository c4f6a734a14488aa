"""The figures' study in small: one network, every trace, every policy."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from benchmarks.cells.records import json_line
from benchmarks.studies.serving import measured
from benchmarks.studies.serving.questions import SETTINGS
from tests.support.load_fakes import start_quickly


def test_every_trace_is_run_on_every_policy(two_widths: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundredth of the capacity for a moment: figures of a loaded machine mean nothing, their form does."""
    start_quickly(monkeypatch, tmp_path)
    monkeypatch.setattr(measured, "capacity_of", lambda times: 80.0)
    arguments = argparse.Namespace(seed=0, seconds=0.4, repeats=1, slo_ms=30_000.0)
    given = json.loads(json_line(measured.network(two_widths, arguments, images=2)))
    assert [entry["setting"] for entry in given["traces"]] == [setting.title for setting in SETTINGS]
    for entry in given["traces"]:
        assert [row["policy"] for row in entry["policies"]] == ["fixed:0.5", "fixed:0.25", "slackfit", "drain"]
        assert all(row["attainment"] == 1.0 and row["mean_batch"] >= 2 for row in entry["policies"])
        assert 0.3 < entry["trace"]["asked_rate"] / 40 < 2.5, "80 images a second in requests of two"
    assert given["answers"]["drain"]["attains"] and given["answers"]["drain"]["gain"] is None
    assert set(given["latencies_ms"]) == {"0.25", "0.5"} and given["capacity"] == 80.0
