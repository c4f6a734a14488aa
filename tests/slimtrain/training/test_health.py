"""A training that diverged stops with what to do, and the last good state stays."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from slimtrain.base.errors import TrainingError, UserError
from slimtrain.training.health import CHECK_EVERY, Health, smallest_part
from slimtrain.training.optimizer import Schedule
from slimtrain.training.run import Run, train
from slimtrain.training.sampling import WidthSampler
from slimtrain.training.step import Stepper
from tests.support.run_helpers import ALONE, US1, config, config_file, failure, run, tree


def diverge(monkeypatch: pytest.MonkeyPatch, at: int, plan: int, value: float) -> None:
    """From step `at` on, the loss of the plan in position `plan` is `value`."""
    real, count = Stepper.compute, iter(range(1000))

    def compute(self: Stepper, *args: Any) -> torch.Tensor:
        losses = real(self, *args)
        if next(count) >= at:
            losses[plan] = value
        return losses

    monkeypatch.setattr(Stepper, "compute", compute)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("position", "width"), [(0, "width 0.25"), (1, "width 0.125")])
def test_a_loss_that_is_not_finite_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float, position: int, width: str
) -> None:
    diverge(monkeypatch, 5, position, value)
    message = failure(config(tmp_path / "run", checkpoint_every=2), TrainingError, "step 5 (epoch 1)", width, f"is {value}")
    assert f"{tmp_path}/run/last.pt holds the last good state: go on with --resume auto, and lower lr" in message
    held = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert held["training"]["step"] == 4
    assert all(torch.isfinite(value).all() for value in held["model"].values())
    assert not (tmp_path / "run" / "us_mobilenet_v1.pt").exists()


def test_the_weights_that_a_diverged_step_would_make_are_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """last.pt is that of a run which ended a step before, byte for byte of its tensors."""
    monkeypatch.setattr(Run, "finish", lambda self: self.folder)
    train(config(tmp_path / "good", epochs=1, checkpoint_every=4), ALONE)
    diverge(monkeypatch, 4, 0, math.nan)
    failure(config(tmp_path / "run", checkpoint_every=4), TrainingError, "step 4")
    good, left = (torch.load(tmp_path / n / "last.pt", weights_only=True)["model"] for n in ("good", "run"))
    assert good.keys() == left.keys()
    # another number of epochs is another learning rate: what must agree is that step 4 was not taken
    assert int(left["features.0.1.bn.0.num_batches_tracked"]) == int(good["features.0.1.bn.0.num_batches_tracked"]) == 4


def test_before_the_first_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    diverge(monkeypatch, 1, 2, math.nan)
    message = failure(config(tmp_path / "run"), TrainingError, "step 1 (epoch 0)", "egin again")
    drawn = float(message.split("the loss at width ")[1].split()[0])
    assert 0.125 <= drawn <= 0.25
    assert sorted(tree(tmp_path / "run")) == ["config.yml", "train.log"]


def test_a_plan_without_a_width_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    diverge(monkeypatch, 0, 2, math.nan)
    failure(config(tmp_path / "run", nonuniform=True), TrainingError, "step 0", "plan nonuniform_0")


def test_a_learning_rate_that_blows_up_is_exit_code_1(tmp_path: Path) -> None:
    file = config_file(tmp_path / "tiny.yml", epochs=30)
    outcome = run(
        "train",
        file,
        "--set",
        "lr=10000",
        "--set",
        "nesterov=false",
        "--set",
        "weight_decay=1",
        "--output-dir",
        tmp_path / "run",
    )
    assert outcome.code == 1 and "expected a finite number. Training stopped." in outcome.err
    assert "Traceback" not in outcome.err and "slimexport" not in outcome.out


def test_it_can_go_on_with_another_learning_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        diverge(patch, 5, 0, math.nan)
        failure(config(tmp_path / "run", checkpoint_every=2), TrainingError)
    assert train(config(tmp_path / "run", checkpoint_every=2, lr=0.01, resume="auto"), ALONE).exists()


# ------------------------------------------------------------------------------------------------------------- by itself


def health(folder: Path, at_once: bool = True) -> Health:
    schedule = Schedule(0.4, "linear", epochs=2, steps=50)
    return Health(WidthSampler(US1, sandwich=2), schedule, folder / "last.pt", at_once=at_once)


def test_on_a_gpu_losses_are_looked_at_together(tmp_path: Path) -> None:
    """Looking makes a GPU wait: bad ones are told within so many steps, with the step that they are of."""
    watch = health(tmp_path, at_once=False)
    for step in range(CHECK_EVERY - 1):
        watch.note(step, torch.tensor([1.0, math.nan if step == 3 else 2.0]))
    with pytest.raises(TrainingError, match=r"step 3 \(epoch 0\): the loss at width 0\.125 is nan"):
        watch.note(CHECK_EVERY - 1, torch.tensor([1.0, 2.0]))


def test_an_epochs_means_are_of_all_its_steps_and_then_begin_anew(tmp_path: Path) -> None:
    watch = health(tmp_path)
    for step in range(50):
        watch.note(step, torch.tensor([step, 1.0]))
    assert watch.epoch_means().tolist() == [24.5, 1.0]
    assert watch.loss_sums.tolist() == [0.0, 0.0]


def test_weights_that_are_not_finite_are_named(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 2)
    health(tmp_path).check_weights(network, 60)
    network.bias.data[1] = math.inf
    with pytest.raises(
        TrainingError, match=r"step 60 \(epoch 1\): bias is no longer finite.*Begin again, and lower lr \(.*0.16\)"
    ):
        health(tmp_path).check_weights(network, 60)


def test_parts_are_shares_of_a_process(tmp_path: Path) -> None:
    assert [smallest_part(*case) for case in ((8, 1, 1), (8, 2, 4), (9, 2, 3), (7, 3, 2))] == [8, 1, 1, 1]
    with pytest.raises(UserError, match="accumulate 5: a batch of 8 images over 2 processes leaves parts without images"):
        smallest_part(8, 2, 5)
