"""The error of a detector's candidates: by definition, shared work, statistics, processes."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch

from slimtrain.base.errors import UserError
from slimtrain.base.packages import is_installed
from slimtrain.config.config import STATISTICS
from slimtrain.data.detection.fake import FakeObjects
from slimtrain.data.detection.targets import Targets
from slimtrain.detection.halves import Halves
from slimtrain.detection.training.testing import evaluate_detector
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.detector import FASTER, MASK, RETINA
from slimtrain.search.detectors import DetectionEvaluator, HeldOutObjects
from slimtrain.search.greedy import CandidateScore
from slimtrain.search.slimming import Slimming
from slimtrain.slimmable.calibrate import calibrate
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.training.distributed import Processes
from tests.support.run_helpers import ALONE, differences
from tests.support.slimtrain_processes import in_processes
from tests.support.trained_detectors import SIZE
from tests.support.universal_detectors import (
    PLAIN,
    batches,
    held_out,
    loss_of,
    measure_of,
    settings_of,
    universal_detector,
)

measures_precision = pytest.mark.skipif(not is_installed("faster_coco_eval"), reason="pip install '.[detection]'")


def some(network: SlimmableNetwork) -> tuple[ChannelPlan, list[ChannelPlan]]:
    """A plan some steps on, and of its candidates the first, one in between, the last two (of heads), and itself."""
    slimming = Slimming(network.spec, groups=2)
    current = slimming.steps(slimming.start)[1]
    steps = slimming.steps(current)
    return current, [steps[-1], steps[0], steps[len(steps) // 2], steps[-2], current]


@pytest.mark.parametrize("kind", [FASTER, MASK, RETINA])
def test_losses_are_those_of_training_with_each_image_s_own_draws(kind: str) -> None:
    network = universal_detector(kind)
    current, plans = some(network)
    scores = measure_of(network)(current, plans)
    for plan, score in zip(plans, scores, strict=True):
        first, second = (loss_of(network, plan, batch) for batch in batches())
        assert score.loss == pytest.approx((4 * first + 2 * second) / 6, rel=1e-5)
        assert score == CandidateScore(score.loss, score.loss, 6)
    assert len({score.loss for score in scores}) == len(scores)


@measures_precision
@pytest.mark.parametrize(("kind", "measured"), [(FASTER, "ap50"), (FASTER, "ap"), (MASK, "ap50")])
def test_errors_are_what_is_missing_of_precision(kind: str, measured: str) -> None:
    """Of masks too, where there are some."""
    network = universal_detector(kind)
    current, plans = some(network)
    scores = measure_of(network, measured=measured)(current, plans)
    blank = {plan: network.blank_statistics(plan) for plan in plans}
    network.replace_calibrated(blank)
    with network.averaging(1.0):
        results = evaluate_detector(network, settings_of(network), plans, batches())
    for score, result in zip(scores, results, strict=True):
        shares = [getattr(precision, measured) for precision in result.precisions.values()]
        assert len(shares) == 1 + (kind == MASK)
        assert score.error == pytest.approx(100 * (1 - sum(shares) / len(shares)))
    assert min(score.error for score in scores) < 100 and len({score.error for score in scores}) > 1


@measures_precision
def test_calibrated_errors_are_those_of_calibrated_plans() -> None:
    network, calibration = universal_detector(), HeldOutObjects(FakeObjects(9, SIZE, 3), PLAIN, 3, stride=16)
    current, plans = some(network)
    scores = measure_of(network, measured="ap50", statistics="calibrated", calibration=calibration)(current, plans)
    assert not network.calibrated
    images = [chunk.images for _, chunk in calibration.read(range(3))]
    calibrate(network, plans, images, Halves(network).first)
    results = evaluate_detector(network, settings_of(network), plans, batches())
    assert [score.error for score in scores] == pytest.approx([100 * (1 - (result.boxes.ap50 or 0)) for result in results])


@measures_precision
@pytest.mark.parametrize("statistics", STATISTICS)
def test_sharing_changes_no_bit_and_leaves_the_network_and_random_numbers_as_they_were(statistics: str) -> None:
    network = universal_detector()
    current, plans = some(network)
    before = copy.deepcopy(network.state_dict())
    shared = measure_of(network, measured="ap50", statistics=statistics, calibration=held_out(8))
    torch.manual_seed(5)
    scores = shared(current, plans)
    drawn = torch.rand(3)
    assert scores == dataclasses.replace(shared, reuse=False, keep_memory=False)(current, plans)
    assert scores == shared(current, plans)  # from chunks that were kept
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), drawn) and differences(network.state_dict(), before) == []


def measured_here(processes: Processes) -> list[list[CandidateScore]]:
    network = universal_detector()
    current, plans = some(network)
    measures = [measure_of(network, processes, measured=measured) for measured in ("loss", "ap50")]
    return [measure(current, asked) for measure in measures for asked in (plans, [current])]


@measures_precision
def test_two_processes_give_the_same_figures() -> None:
    assert in_processes(2, measured_here) == [measured_here(ALONE)] * 2


def test_another_seed_and_another_error_are_another_search() -> None:
    network = universal_detector()
    current, plans = some(network)
    assert measure_of(network)(current, plans) != measure_of(network, seed=4)(current, plans)
    assert measure_of(network).identity()["error"] == "loss" and not measure_of(network).percent
    assert measure_of(network, measured="ap").identity()["error"] == "ap" and measure_of(network, measured="ap").percent


def test_images_are_told_by_their_objects_too() -> None:
    samples, other = FakeObjects(6, SIZE, 3), FakeObjects(6, SIZE, 2)
    digests = [HeldOutObjects(own, PLAIN, 4, stride=16).identity()["images_sha256"] for own in (samples, samples, other)]
    assert digests[0] == digests[1] != digests[2]


class Unreadable(FakeObjects):
    def image(self, index: int) -> torch.Tensor:
        if index != 1:
            raise OSError("damaged")
        return super().image(index)


class Empty(FakeObjects):
    def targets(self, index: int) -> Targets:
        return super().targets(index).only(torch.zeros(3, dtype=torch.bool))


def on(samples: Any, **options: Any) -> DetectionEvaluator:
    network = universal_detector()
    return dataclasses.replace(measure_of(network, **options), chunks=HeldOutObjects(samples, PLAIN, 2, stride=16))


def test_what_cannot_be_read_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    measure = on(Unreadable(6, SIZE, 3))
    (score,) = measure(measure.network.spec.widest, [measure.network.spec.widest])
    assert score.images == 1 and "fake 0: cannot be read, left out of the search" in caplog.text


@measures_precision
def test_without_objects_there_is_no_precision() -> None:
    measure = on(Empty(4, SIZE, 3), measured="ap50")
    with pytest.raises(UserError, match="no held-out image shows an object"):
        measure(measure.network.spec.widest, [measure.network.spec.widest])
