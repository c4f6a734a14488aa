"""Defects of a network's files, tried from end to end: none twice, the same for the same seed, judged on every way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.studies.defects.__main__ import chosen, packed, summary, unpacked, with_earlier
from benchmarks.studies.defects.trying import HARMLESS, MISSED, OUTCOMES, attempts
from benchmarks.studies.defects.victim import AGAIN, AT_EXPORT, CAUGHT, ELSEWHERE, WAYS, Once, Victim
from slimexport.target.arrays import Array
from slimexport.target.runners import OpenRunner
from slimtrain.base.errors import UserError


@pytest.fixture(scope="module")
def victim() -> Victim:
    return Victim("random:us_mobilenet_v1", 0.25, 32, digits=False)


class _Counting:
    backend, input, content, stands_in = "test", "input", b"a file", True
    runs = 0

    def __call__(self, images: Array) -> Array:
        self.runs += 1
        return images * 2

    def opened(self, content: bytes) -> OpenRunner:
        raise AssertionError


def test_no_batch_runs_twice() -> None:
    counting = _Counting()
    once, images = Once(counting), np.arange(6, dtype=np.float32).reshape(3, 2)
    for batch in (images, images[:2], images[1:], images.copy()):
        np.testing.assert_array_equal(once(batch), batch * 2)
    assert counting.runs == 3 and (once.content, once.input, once.stands_in) == (b"a file", "input", True)


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
    alone = list(attempts(victim, precision, 4, 3, tmp_path, at_export=False))
    assert [{**row, "change": None} for row in alone] == [
        {key: None if key == "change" else value for key, value in row.items() if key != AT_EXPORT} for row in rows[:4]
    ]
    assert [line[0] for line in summary(alone)] == ["proof", WAYS[AGAIN], WAYS[ELSEWHERE]]
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


def test_only_precisions_of_files_are_tried_and_in_the_tables_order() -> None:
    assert chosen("int8,fp32") == ["fp32", "int8"]
    with pytest.raises(UserError, match="precision 'tf32': not a file's"):
        chosen("fp16,tf32")


def result_of(command: str, *rows: tuple[str, str, str]) -> dict[str, Any]:
    entries = [{"network": network, "precision": precision, "outcome": outcome} for network, precision, outcome in rows]
    return {"command": command, "tolerances": [dict(row) for row in entries], "rows": entries}


def test_what_the_same_command_measured_of_other_precisions_stays(tmp_path: Path) -> None:
    path, first, second = tmp_path / "r.json", ("a", "fp32", "old"), ("b", "fp32", "old")
    before = result_of("same", first, ("a", "fp16", "old"), second, ("b", "fp16", "old"))
    path.write_text(json.dumps({**before, "rows": packed(before["rows"])}))
    assert unpacked(packed(before["rows"])) == before["rows"] and unpacked(packed([])) == []
    now = result_of("same", ("a", "fp16", "new"), ("b", "fp16", "new"))
    expected = result_of("same", first, ("a", "fp16", "new"), second, ("b", "fp16", "new"))
    assert with_earlier(path, "same", now) == expected
    other = result_of("another", ("a", "fp16", "new"))
    assert with_earlier(path, "another", other) == other
    assert with_earlier(tmp_path / "none.json", "same", now) == now
    assert with_earlier(None, "same", now) == now
