"""Defects are drawn, one each, and change the file; what a network lacks cannot be damaged."""

from __future__ import annotations

import contextlib

import numpy as np
import onnx
import pytest
from torch import nn

from benchmarks.studies.defects.mutations import MUTATIONS, NotHere, mutated
from slimexport.onnx_files.runner import run_batches
from slimtrain.data.noise import noise_images
from tests.support.graph_cases import randomized
from tests.support.onnx_writing import module_onnx

IMAGES = noise_images(4, 9, 3)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU6())
        self.second = nn.Conv2d(6, 6, 3, 1, 1)
        self.last = nn.Linear(6, 5)

    def forward(self, x):  # type: ignore[no-untyped-def]
        x = self.first(x)
        return self.last((x + self.second(x)).mean((2, 3)))


@pytest.mark.parametrize("name", [name for name in MUTATIONS if not name.startswith("scale")])
def test_a_defect_changes_what_a_file_computes(name: str) -> None:
    model = module_onnx(randomized(Block()), 9)
    before = model.SerializeToString()
    defects, first = [], 0
    for seed in range(20):
        with contextlib.suppress(NotHere):  # a place was drawn that cannot have it
            defects.append(mutated(model, name, np.random.default_rng(seed)))
            first = first if len(defects) > 1 else seed
    assert defects
    assert model.SerializeToString() == before, "the file itself is not touched"
    right = run_batches(model, [IMAGES])[0]
    worst = 0.0
    for defect, where in defects:
        assert where
        if name == "stride":  # sums of other sizes do not load, or give other sizes
            worst = 1.0
            continue
        onnx.checker.check_model(defect)
        worst = max(worst, float(np.abs(run_batches(defect, [IMAGES])[0] - right).max()))
    assert worst > 1e-3
    again = mutated(model, name, np.random.default_rng(first))
    assert again[0] == defects[0][0] and again[1] == defects[0][1]


def test_what_is_not_there_cannot_be_damaged() -> None:
    model = module_onnx(randomized(nn.Sequential(nn.Flatten(), nn.Linear(12, 5, bias=False))), 2)
    for name in ("scale halved", "bias dropped", "bound lowered", "residual dropped", "kernel rolled", "pads", "stride"):
        with pytest.raises(NotHere):
            mutated(model, name, np.random.default_rng(0))
