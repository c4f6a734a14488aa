"""What of a single-stage detector's choices hangs on roundings: files that are off by less choose nothing else."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch

from slimexport.detector_proof.exact import Exact
from slimexport.detector_proof.near.anchors import near_anchors
from slimexport.detector_proof.near.regions import NEAR_SHARE
from slimexport.target.arrays import Array
from slimexport.target.near_equals import NearEquals
from slimexport.target.proof.comparing import Pair
from slimexport.target.proof.detections import Agreement, Rules, agreement_of
from slimtrain.detection.fixed.single_stage import of_single_stage
from slimtrain.models.detector import RETINA, SSDLITE
from tests.support.detector_files import SIZE
from tests.support.single_stage_files import file_settings, single_stage_file

TOLERANCES = {RETINA: 2e-3, SSDLITE: 3e-4}  # of SSDLite with random heads more scores are nearly alike
SEEDS = {RETINA: (0, 1), SSDLITE: (4, 6)}  # of networks whose near-equals decide rows, and not their order alone


class Roundings:
    """A small detector whose class logits are off by roundings, drawn."""

    def __init__(self, kind: str, seed: int) -> None:
        file = single_stage_file(kind, seed)
        self.settings, self.tolerance = file.settings, TOLERANCES[kind]
        network = copy.deepcopy(file.network).double()
        self.exact = Exact(network, network.plan(file.width), file.images)
        self.form = of_single_stage(file.settings, SIZE).double()

    def run(self, share: float, seed: int = 0) -> dict[str, Array]:
        """Logits are off by a `share` of the near-equals' tolerance, relative to their scale."""
        draw = torch.Generator().manual_seed(seed)
        given = []
        for name in self.form.input_shapes:
            values = self.exact.first[name]
            noise = 2 * torch.rand(values.shape, generator=draw, dtype=torch.float64) - 1
            most = share * NEAR_SHARE * self.tolerance * float(values.abs().max())
            given.append(values + most * noise if name.startswith("class") else values)
        return {name: values.numpy() for name, values in self.form(*given).items()}

    def agree(self, given: dict[str, Array], expected: dict[str, Array], near: NearEquals) -> Agreement:
        box = self.settings.box
        rules = Rules(box.score, box.nms, box.detections, float(max(SIZE)))
        return agreement_of([Pair(name, given[name], expected[name]) for name in expected], rules, 20 * self.tolerance, near)


@pytest.mark.parametrize("kind", [RETINA, SSDLITE])
def test_what_roundings_decide_is_known(kind: str) -> None:
    ties = wrong = 0
    for seed in SEEDS[kind]:
        file = Roundings(kind, seed)
        expected = file.run(0.0)
        near = near_anchors(file.exact, file.settings, SIZE, expected, file.tolerance)
        same = file.agree(expected, expected, near)
        assert same.right and same.ties == 0 and same.detections > 10
        assert near.open.sum() < 0.6 * same.detections
        for number in range(8):
            given = file.run(0.9, number)
            result = file.agree(given, expected, near)
            assert not result.mismatches and not result.faults, result.reasons
            ties += result.ties
            wrong += file.agree(given, expected, NearEquals(np.zeros_like(near.open), near.others[:0])).mismatches
    assert ties > 0 and wrong > 0, "roundings decided nothing"


@pytest.mark.parametrize("kind", [RETINA, SSDLITE])
def test_without_roundings_all_is_certain(kind: str) -> None:
    file = Roundings(kind, 0)
    expected = file.run(0.0)
    assert near_anchors(file.exact, file.settings, SIZE, expected, 1e-9).open.sum() <= 1


@pytest.mark.parametrize("kind", [RETINA, SSDLITE])
def test_what_is_hardly_among_the_best_hangs_on_roundings(kind: str) -> None:
    """Places far from each other, one more than are looked at; the last two are nearly alike."""
    settings = file_settings(kind)
    settings = replace(settings, box=replace(settings.box, detections=100, candidates=150, top_k=9))
    form = of_single_stage(settings, SIZE).double()
    maps = {name: torch.zeros(1, *shape, dtype=torch.float64) for name, shape in form.input_shapes.items()}
    for name, values in maps.items():
        if name.startswith("class"):
            values.fill_(-12.0)
            if kind == SSDLITE:
                values[:, :: form.columns] = 0.0  # the background
    scores = torch.linspace(5, 3, 10, dtype=torch.float64)
    scores[9] = scores[8] - 1e-4
    places = [(row, column) for row in range(1, 12, 4) for column in range(1, 16, 4)][:10]
    for (row, column), score in zip(places, scores, strict=True):
        maps["class_logits0"][0, 1, row, column] = score  # of RetinaNet's second class, SSDLite's first
    exact = cast(Exact, SimpleNamespace(first=maps))
    expected = {name: values.numpy() for name, values in form(*maps.values()).items()}
    assert expected["count"][0] == 9
    near = near_anchors(exact, settings, SIZE, expected, 2e-4)
    assert near.open[0].tolist() == [number == 8 for number in range(near.open.shape[1])] and len(near.others) == 1
    assert near_anchors(exact, settings, SIZE, expected, 1e-12).open.sum() == 0
