"""Defects of a detector's file are drawn, one each, and change the file alone."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from benchmarks.studies.defects.detector_mutations import DETECTOR_MUTATIONS, GENERAL
from benchmarks.studies.defects.mutations import NotHere
from slimexport.onnx_files.runner import cpu_session
from slimtrain.models.detector import FASTER
from tests.support.detector_files import detector_file


@pytest.mark.parametrize("name", [name for name in DETECTOR_MUTATIONS if name not in GENERAL])
def test_a_defect_of_what_chooses_boxes_changes_what_is_computed(name: str) -> None:
    file = detector_file(FASTER)
    right = cpu_session(file.model).run(None, {"input": file.images})
    changed = 0
    for seed in range(12):
        model = file.copy()
        with contextlib.suppress(NotHere):
            assert DETECTOR_MUTATIONS[name](model, np.random.default_rng(seed))
            assert model.SerializeToString() != file.model.SerializeToString()
            given = cpu_session(model).run(None, {"input": file.images})
            changed += any(a.shape != b.shape or not np.array_equal(a, b) for a, b in zip(given, right, strict=True))
        if changed:
            return
    pytest.fail("nothing changes")


def test_a_draw_gives_the_same_defect_again() -> None:
    for name in DETECTOR_MUTATIONS:
        models = [detector_file(FASTER).copy() for _ in range(2)]
        with contextlib.suppress(NotHere):
            places = [DETECTOR_MUTATIONS[name](model, np.random.default_rng(3)) for model in models]
            assert places[0] == places[1]
            assert models[0].SerializeToString(deterministic=True) == models[1].SerializeToString(deterministic=True)
