"""Defects of a detector's file, tried from end to end: none twice, each with an outcome at export and on a target."""

from __future__ import annotations

import pytest
import torch

from benchmarks.studies.defects.detector_mutations import NEIGHBOUR
from benchmarks.studies.defects.detector_victim import DetectorVictim
from benchmarks.studies.defects.detectors import attempts, summary
from benchmarks.studies.defects.trying import MISSED, OUTCOMES
from benchmarks.studies.defects.victim import AGAIN, AT_EXPORT, CAUGHT
from slimtrain.checkpoints.own_layout import save
from tests.support.exported_detectors import small_slimmable_detector
from tests.support.trained_detectors import SIZE


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> DetectorVictim:
    """Of a detector whose switches have norms of their own."""
    folder = tmp_path_factory.mktemp("victim")
    network, draw = small_slimmable_detector(), torch.Generator().manual_seed(2)
    for name, buffer in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand(buffer.shape, generator=draw) + (0.5 if name.endswith("var") else -0.5))
    save(network, folder / "detector.pt", image_size=SIZE, mean=(0.5,) * 3, std=(0.25,) * 3)
    return DetectorVictim(str(folder / "detector.pt"), 0.5, folder)


def test_defects_are_tried_and_each_has_an_outcome_on_every_way(victim: DetectorVictim) -> None:
    rows = list(attempts(victim, 4, 3))
    assert len(rows) == 4 and len({row["defect"] for row in rows}) == 4 and rows[1]["defect"] == NEIGHBOUR
    for row in rows:
        assert row[AT_EXPORT] in OUTCOMES and row[AGAIN] in OUTCOMES
        assert (row["differs"] is None) == (row[AT_EXPORT] == row[AGAIN] == CAUGHT)
        assert row[AT_EXPORT] != MISSED
    header, *lines = summary(rows)
    assert header[-4:] == list(OUTCOMES) and [line[1] for line in lines] == ["4", "4"]


def test_what_verify_only_makes_of_them_is_tried_alone(victim: DetectorVictim) -> None:
    both, alone = (list(attempts(victim, 3, 3, at_export)) for at_export in (True, False))
    for row, other in zip(both, alone, strict=True):
        assert AT_EXPORT not in other
        assert [row[key] for key in ("defect", "where", AGAIN)] == [other[key] for key in ("defect", "where", AGAIN)]
    _, line = summary(alone)
    assert line[:2] == ["`--verify-only`", "3"]


def test_the_right_file_is_harmless_and_another_switch_s_norm_is_not(victim: DetectorVictim) -> None:
    right = victim.try_one(victim.model.SerializeToString(deterministic=True))
    assert right.fresh is not None and not right.fresh.reasons and right.fresh.detections > 0
    content, where = next(victim.neighbours())
    assert where and victim.try_one(content).export == CAUGHT
