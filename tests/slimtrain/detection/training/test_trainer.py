"""A step of a detector in parts and on processes: the gradients of the whole batch, clipped, whoever computes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from slimtrain.checkpoints.own_layout import save
from slimtrain.config.config import Config
from slimtrain.data.detection.batches import DetectionBatch
from slimtrain.detection.halves import Halves
from slimtrain.detection.training.inputs import data_of
from slimtrain.detection.training.run import DetectorRun, detector_start
from slimtrain.detection.training.step import DetectionStepper
from slimtrain.training.distributed import Processes
from slimtrain.training.step import split_losses
from tests.support.detector_runs import detector_config
from tests.support.slimtrain_processes import alone, in_processes

# Every anchor and region counts in each image: as many in all, so that means of parts are the mean of the whole.
EVERYTHING = {"rpn_sampled": 100_000, "rpn_positive": 1.0, "box_sampled": 24, "box_positive": 1.0, "train_proposals": 100}
Outcome = dict[str, Any]


def one_step(joined: Processes, changes: dict[str, Any], step: int = 0) -> Outcome:
    """Losses, gradients and weights after a step."""
    run = begun(joined, detector_config(Path("nowhere"), **changes))
    batch = next(run.images.training(step))
    losses = run.trainer.compute(batch)
    gradients = {name: p.grad.clone() for name, p in run.trainer.network.named_parameters() if p.grad is not None}
    run.trainer.apply(0.1)
    return {"losses": losses, "gradients": gradients, "after": run.trainer.network.state_dict(), "images": len(batch.targets)}


def begun(joined: Processes, config: Config) -> DetectorRun:
    data = data_of(config)
    return DetectorRun(config, joined, data, detector_start(config, data))


def distance(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference relative to the largest gradient of all."""
    assert actual.keys() == expected.keys()
    scale = max(float(value.abs().max()) for value in expected.values())
    return max(float((actual[name] - value).abs().max()) for name, value in expected.items()) / scale


@pytest.mark.parametrize("kind", ["s_faster_rcnn", "s_mask_rcnn"])
def test_two_processes_give_the_gradients_of_one_that_computes_in_two_parts(kind: str) -> None:
    """What is drawn of an image does not depend on where it is computed, and each part normalizes by its own images."""
    expected = one_step(alone(), {"network": kind, "accumulate": 2})
    outcomes = in_processes(2, one_step, {"network": kind})
    assert [outcome["images"] for outcome in outcomes] == [2, 2] and expected["images"] == 4
    for outcome in outcomes:
        torch.testing.assert_close(outcome["losses"], expected["losses"], rtol=1e-5, atol=1e-6)
        assert distance(outcome["gradients"], expected["gradients"]) < 1e-5
    first, second = (outcome["after"] for outcome in outcomes)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_with_norms_synchronized_two_processes_give_the_gradients_of_one() -> None:
    changes: dict[str, Any] = {"sync_norm": True, "detector": EVERYTHING}
    expected = one_step(alone(), changes)
    outcomes = in_processes(2, one_step, changes)
    for outcome in outcomes:
        sums, right = outcome["losses"][:2], expected["losses"][:2]
        torch.testing.assert_close(sums, right, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(outcome["losses"], expected["losses"], rtol=0, atol=1e-4 * float(right.max()))
        assert distance(outcome["gradients"], expected["gradients"]) < 1e-3


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("s_mask_rcnn", ("classes", "boxes", "objectness", "proposals", "masks")),
        ("s_retinanet", ("classes", "boxes")),
    ],
)
def test_each_loss_of_a_plan_is_told_beside_their_sum(kind: str, names: tuple[str, ...]) -> None:
    """Of what is computed in two parts the mean; the reference is what the losses themselves gave."""
    anchors: dict[str, Any] = {"anchor_sizes": []} if kind == "s_retinanet" else {}
    run = begun(alone(), detector_config(Path("nowhere"), network=kind, accumulate=2, detector=anchors))
    computed: list[dict[str, float]] = []
    stepper = run.trainer.stepper
    assert isinstance(stepper, DetectionStepper)
    real = stepper.losses

    def spied(halves: Halves, batch: DetectionBatch, seeds: Sequence[int] = ()) -> dict[str, Tensor]:
        losses = real(halves, batch, seeds)
        computed.append({name: float(loss.detach()) for name, loss in losses.items()})
        return losses

    stepper.losses = spied
    sums, single = split_losses(run.trainer.compute(next(run.images.training())), len(run.trainer.parts))
    assert run.trainer.parts == names and single.shape == (2, len(names)) and len(computed) == 4
    for plan in range(2):  # every part of the batch runs both plans
        of_parts = computed[plan], computed[plan + 2]
        expected = [sum(part[name] for part in of_parts) / 2 for name in names]
        assert single[plan].tolist() == pytest.approx(expected, rel=1e-5)
        assert float(sums[plan]) == pytest.approx(sum(expected), rel=1e-5)


def test_a_step_draws_by_its_number_and_the_seed() -> None:
    first, again, later, other = (
        one_step(alone(), {"seed": seed, "detector": {"scenes": 4}}, step) for seed, step in ((0, 0), (0, 0), (0, 1), (1, 0))
    )
    assert all(torch.equal(value, again["gradients"][name]) for name, value in first["gradients"].items())
    assert not torch.equal(first["losses"], later["losses"]) and not torch.equal(first["losses"], other["losses"])


def test_gradients_above_the_limit_are_scaled_down_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    norms = []
    for limit in (0.0, 0.01):
        run = begun(alone(), detector_config(Path("nowhere"), detector={"clip": limit}))
        run.trainer.compute(next(run.images.training()))
        with monkeypatch.context() as patch:
            patch.setattr(run.trainer.optimizer, "step", lambda: None)
            run.trainer.apply(0.1)
        squares = [float(p.grad.square().sum()) for p in run.trainer.network.parameters() if p.grad is not None]
        norms.append(sum(squares) ** 0.5)
    assert norms[0] > 0.1 and norms[1] == pytest.approx(0.01, rel=1e-3)


def test_warm_up_begins_at_a_third_and_reaches_the_rate_after_its_steps() -> None:
    config = detector_config(Path("nowhere"), schedule="multistep", milestones=[1], detector={"warmup_steps": 3})
    schedule = begun(alone(), config).schedule
    expected = [0.02 * share for share in (1 / 3, 1 / 3 + 2 / 9, 1 / 3 + 4 / 9, 0.1, 0.1, 0.1)]
    assert [schedule(step) for step in range(6)] == pytest.approx(expected)


def test_what_is_frozen_keeps_every_bit_also_under_weight_decay(tmp_path: Path) -> None:
    path = tmp_path / "trained.pt"
    trained = begun(alone(), detector_config(Path("nowhere")))
    trained.train_step(next(trained.images.training()))
    save(trained.trainer.network, path, image_size=64, mean=(0.5,) * 3, std=(0.25,) * 3)
    changes: dict[str, Any] = {"weight_decay": 0.1, "detector": {"norms": "frozen", "frozen_stages": 1}}
    changes["pretrained"] = str(path)
    run = begun(alone(), detector_config(Path("nowhere"), **changes))
    before = {name: value.clone() for name, value in run.trainer.network.state_dict().items()}
    run.train_step(next(run.images.training()))
    after = run.trainer.network.state_dict()
    frozen = [name for name in before if ".bn" in name or "conv1.weight" in name.split("body.")[-1][:12]]
    assert frozen and all(torch.equal(before[name], after[name]) for name in frozen)
    assert any(not torch.equal(value, after[name]) for name, value in before.items())
