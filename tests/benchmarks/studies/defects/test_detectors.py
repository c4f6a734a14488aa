"""Defects of a detector's file, tried from end to end: none twice, each with an outcome at export and on a target."""

from __future__ import annotations

import pytest

from benchmarks.studies.defects.detector_mutations import NEIGHBOUR
from benchmarks.studies.defects.detector_victim import DetectorVictim
from benchmarks.studies.defects.detectors import attempts, summary
from benchmarks.studies.defects.trying import MISSED, OUTCOMES
from benchmarks.studies.defects.victim import AGAIN, AT_EXPORT, CAUGHT
from tests.support.exported_detectors import detector_checkpoint


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> DetectorVictim:
    folder = tmp_path_factory.mktemp("victim")
    return DetectorVictim(str(detector_checkpoint(folder)), 0.5, folder)


def test_defects_are_tried_and_each_has_an_outcome_on_every_way(victim: DetectorVictim) -> None:
    rows = list(attempts(victim, 6, 3))
    assert len(rows) == 6 and len({row["defect"] for row in rows}) == 6 and rows[1]["defect"] == NEIGHBOUR
    for row in rows:
        assert row[AT_EXPORT] in OUTCOMES and row[AGAIN] in OUTCOMES
        assert (row["differs"] is None) == (row[AT_EXPORT] == row[AGAIN] == CAUGHT)
        assert row[AT_EXPORT] != MISSED
    header, *lines = summary(rows)
    assert header[-4:] == list(OUTCOMES) and [line[1] for line in lines] == ["6", "6"]


def test_the_right_file_is_harmless_and_another_switch_s_norm_is_not(victim: DetectorVictim) -> None:
    right = victim.try_one(victim.model.SerializeToString(deterministic=True))
    assert right.fresh is not None and not right.fresh.reasons and right.fresh.detections > 0
    content, where = next(victim.neighbours())
    assert where and victim.try_one(content).export == CAUGHT
