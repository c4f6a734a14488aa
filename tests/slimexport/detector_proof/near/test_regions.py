"""What of a detector's choices hangs on roundings: files that are off by less choose nothing else."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from slimexport.detector_proof.exact import Exact
from slimexport.detector_proof.near.regions import NEAR_SHARE, near_equals
from slimexport.target.arrays import Array
from slimexport.target.near_equals import NearEquals
from slimexport.target.proof.comparing import Pair
from slimexport.target.proof.detections import Agreement, Rules, agreement_of
from slimtrain.detection.fixed.detections import Detections
from slimtrain.detection.fixed.proposals import Proposals
from slimtrain.models.detector import FASTER, KEYPOINT
from tests.support.detector_files import SIZE, detector_file

TOLERANCE = 2e-3
SIDE = float(max(SIZE))


class Roundings:
    """A small detector whose maps and heads are off by roundings, drawn."""

    def __init__(self, seed: int) -> None:
        file = detector_file(FASTER, seed)
        self.settings = file.settings
        network = copy.deepcopy(file.network).double()
        self.exact = Exact(network, network.plan(file.width), file.images)
        self.proposals = Proposals(file.settings, SIZE).double()
        self.detections = Detections(file.settings, SIZE, self.proposals.kept).double()

    def run(self, share: float, seed: int = 0) -> dict[str, Array]:
        """Maps are off by a `share` of the near-equals' tolerance, relative to their scale."""
        draw = torch.Generator().manual_seed(seed)

        def off(values: Tensor, most: float) -> Tensor:
            noise = 2 * torch.rand(values.shape, generator=draw, dtype=torch.float64) - 1
            return values + share * NEAR_SHARE * TOLERANCE * most * noise

        maps = self.exact.first
        scaled = {name: off(values, float(values.abs().max())) for name, values in maps.items() if name.startswith("obj")}
        given = [scaled.get(name, maps[name]) for name in self.proposals.input_shapes]
        proposed = self.proposals(*given)
        outputs = self.exact.second(proposed["rows"].numpy())
        logits, codes = outputs["class_logits"], outputs["box_deltas"]
        detected = self.detections(proposed["rois"], proposed["valid"], off(logits, 1.0), off(codes, 1.0))
        return {name: values.numpy() for name, values in detected.items() if name != "rows"}

    def agree(self, given: Mapping[str, Array], expected: Mapping[str, Array], near: NearEquals | None) -> Agreement:
        box = self.settings.box
        rules = Rules(box.score, box.nms, box.detections, SIDE)
        return agreement_of([Pair(name, given[name], expected[name]) for name in expected], rules, TOLERANCE, near)


def test_what_roundings_decide_is_known() -> None:
    ties = wrong = 0
    for seed in range(3):
        file = Roundings(seed)
        expected = file.run(0.0)
        near = near_equals(file.exact, file.settings, SIZE, expected, TOLERANCE)
        same = file.agree(expected, expected, near)
        assert same.right and same.ties == 0 and same.detections > 20
        assert near.open.sum() < 0.5 * same.detections
        for number in range(20):
            given = file.run(0.9, number)
            result = file.agree(given, expected, near)
            assert not result.mismatches and not result.faults, result.reasons
            ties += result.ties
            wrong += file.agree(given, expected, NearEquals(np.zeros_like(near.open), near.others[:0])).mismatches
    assert ties > 0 and wrong > 0, "roundings decided nothing"


def test_boxes_of_another_scale_are_not_among_them() -> None:
    file = Roundings(0)
    expected = file.run(0.0)
    near = near_equals(file.exact, file.settings, SIZE, expected, TOLERANCE)
    for factor in (1.02, 0.98):
        given = {**expected, "boxes": expected["boxes"] * factor}
        assert not file.agree(given, expected, near).right


def test_keypoints_stand_where_they_are_as_good_as_highest() -> None:
    file = detector_file(KEYPOINT)
    network = copy.deepcopy(file.network).double()
    exact = Exact(network, network.plan(file.width), file.images[:1])
    boxes = np.array([[[8.0, 8.0, 40.5, 30.25], [0, 0, 0, 0]]])
    maps = exact.points_of(np.concatenate([[0.0], boxes[0, 0]])[None])[0]
    rows, columns = 23, 33
    enlarged = torch.nn.functional.interpolate(maps[None], size=(rows, columns), mode="bicubic")[0].numpy()
    points = np.zeros((1, 2, 3, 3))
    for number, own in enumerate(enlarged):
        row, column = divmod(int(own.argmax()), columns)
        points[0, 0, number] = 8 + (column + 0.5) * 32.5 / columns, 8 + (row + 0.5) * 22.25 / rows, 1
    expected = {
        "boxes": boxes,
        "scores": np.array([[0.5, 0]]),
        "labels": np.array([[1, 0]]),
        "count": np.array([1]),
        "keypoints": points,
        "keypoint_scores": np.concatenate([enlarged.max((1, 2))[None, None], np.zeros((1, 1, 3))], 1),
    }
    tight, wide = (near_equals(exact, file.settings, SIZE, expected, tolerance) for tolerance in (1e-9, 0.3))
    assert tight.low is not None and wide.low is not None and tight.high is not None and wide.high is not None
    np.testing.assert_allclose(tight.low[0, 0], points[0, 0, :, :2], atol=1e-9)
    np.testing.assert_allclose(tight.high[0, 0], points[0, 0, :, :2], atol=1e-9)
    assert (wide.low <= tight.low).all() and (wide.high >= tight.high).all() and (wide.high > tight.high).any()
