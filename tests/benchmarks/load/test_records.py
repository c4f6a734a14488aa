"""A run's lines, whole whatever ends it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.load.book import Book
from benchmarks.load.figures import WidthFacts, figures
from benchmarks.load.records import LoadRecords
from slimtrain.base.errors import UserError


def test_rounds_are_there_when_they_are_done(tmp_path: Path) -> None:
    book = Book(np.array([0.0, 1.0]))
    book.answered(0, 2.0, "1", 1, 0.5, 1.5)
    samples = book.samples()
    path = tmp_path / "results.jsonl"
    with LoadRecords(path) as records:
        records.run("python -m benchmarks load", {"cpu": "x"}, {"slo_ms": 50.0})
        records.round("drain", 0, samples)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [line["kind"] for line in lines] == ["run", "round"] and lines[0]["environment"] == {"cpu": "x"}
        assert (lines[1]["policy"], lines[1]["round"], lines[1]["samples"]["latency_ms"]) == ("drain", 0, [2.0, None])
        records.policy(figures("drain", [samples], samples, 50.0, 2.0, [WidthFacts("1", 1.0, None)]))
        records.end({"cpu": "x"}, 3.0)
    last = [json.loads(line) for line in path.read_text().splitlines()][2:]
    assert [line["kind"] for line in last] == ["policy", "end"]
    assert (last[0]["attainment"], last[0]["mean_accuracy"], last[0]["lost"]) == (0.5, None, 1)
    with pytest.raises(UserError), LoadRecords(path):
        pass
