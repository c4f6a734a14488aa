"""Defects of a network's files, tried from end to end: none twice, the same for the same seed, judged on every way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.studies.defects.__main__ import summary
from benchmarks.studies.defects.trying import HARMLESS, MISSED, OUTCOMES, attempts
from benchmarks.studies.defects.victim import AGAIN, AT_EXPORT, CAUGHT, ELSEWHERE, WAYS, Once, Victim
from slimexport.target.arrays import Array


@pytest.fixture(scope="module")
def victim() -> Victim:
    return Victim("random:us_mobilenet_v1", 0.25, 32, digits=False)


class _Counting:
    backend = "test"
    runs = 0

    def __call__(self, images: Array) -> Array:
        self.runs += 1
        return images * 2


def test_no_batch_runs_twice() -> None:
    counting = _Counting()
    once, images = Once(counting), np.arange(6, dtype=np.float32).reshape(3, 2)
    for batch in (images, images[:2], images[1:], images.copy()):
        np.testing.assert_array_equal(once(batch), batch * 2)
    assert counting.runs == 3


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_defects_are_tried_and_each_has_an_outcome_on_every_way(precision: str, victim: Victim, tmp_path: Path) -> None:
    rows = list(attempts(victim, precision, 21, 3, tmp_path))
    assert len(rows) == 21 and len({row["defect"] for row in rows}) > 15
    assert all(row[way] in OUTCOMES for row in rows for way in WAYS)
    for row in rows:
        if row["change"] is not None:
            for way in WAYS:
                assert row[way] != HARMLESS or row["change"] <= victim.tolerance(precision, way)
                assert row[way] != MISSED or row["change"] > victim.tolerance(precision, way)
    whole = [row for row in rows if row["defect"] in ("logits times 1000", "one answer for all", "images coupled")]
    assert {row[way] for row in whole for way in WAYS} == {CAUGHT}
    assert list(attempts(victim, precision, 21, 3, tmp_path)) == rows
    fixed = [row["defect"] for row in attempts(victim, precision, 60, 3, tmp_path)]
    assert fixed.count("logits plus 1000") == 1, "what is not drawn is tried once"


def test_the_summary_has_a_row_for_each_way_and_precision() -> None:
    rows = [
        {"precision": "fp32", AT_EXPORT: CAUGHT, AGAIN: HARMLESS, ELSEWHERE: MISSED},
        {"precision": "fp32", AT_EXPORT: CAUGHT, AGAIN: CAUGHT, ELSEWHERE: CAUGHT},
    ]
    header, *lines = summary(rows)
    assert header[-4:] == list(OUTCOMES)
    assert [line[2:] for line in lines] == [["2", "0", "2", "0", "0"], ["2", "0", "1", "1", "0"], ["2", "0", "1", "0", "1"]]
