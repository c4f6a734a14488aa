"""A user's network in training: half precision, averaged weights, what is dropped."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slimtrain.config.config import Config
from slimtrain.data.loader import Batch
from slimtrain.training.distributed import Processes
from slimtrain.training.step import autocast
from slimtrain.training.trainer import Trainer
from tests.support.run_helpers import ALONE
from tests.support.traced_search import slimmable
from tests.support.user_networks import CLASSES, images, network, outputs


def trainer_of(module: nn.Module, processes: Processes = ALONE, **changes: Any) -> Trainer:
    start = slimmable(module)
    values: dict[str, Any] = {"network": "us_any", "model": "a.b:c", "image_size": 16, "nonuniform": True, "sandwich": 3}
    return Trainer(start.spec, Config(**{**values, **changes}), processes, start=start)


def batch(step: int, count: int = 6) -> Batch:
    return Batch(step, 0, images(count, step), torch.arange(count) % CLASSES, count, ())


def moved(trainer: Trainer, steps: range) -> dict[str, Tensor]:
    for step in steps:
        trainer.compute(batch(step))
        trainer.apply(0.05)
    return {key: value.clone() for key, value in trainer.network.state_dict().items()}


@pytest.mark.parametrize("name", ["residual", "split", "windows", "standardized", "prelu"])
@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_half_precision_gives_what_it_gives_of_the_module(name: str, amp: str) -> None:
    module = network(name).train()
    ours, x = slimmable(module).train(), images(4)
    with autocast(torch.device("cpu"), amp):
        expected, actual = outputs(module(x)), outputs(ours(x))
    for theirs, mine, exact in zip(expected, actual, outputs(ours(x)), strict=True):
        assert mine.dtype == theirs.dtype and torch.equal(mine, theirs)
        assert not torch.equal(mine.float(), exact)
        torch.testing.assert_close(mine.float(), exact, rtol=0, atol=0.05 * float(exact.detach().abs().max()))


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_steps_in_half_precision_are_near_those_in_float32(amp: str) -> None:
    exact, half = (moved(trainer_of(network("split"), amp=kind), range(2)) for kind in ("none", amp))
    weight = "head.weight"
    assert not torch.equal(half[weight], exact[weight])
    torch.testing.assert_close(half[weight], exact[weight], rtol=0.05, atol=0.01)


@pytest.mark.parametrize("decay", [0.9, 0.9999])
def test_averages_are_of_weights_and_leave_tables_of_indices_alone(decay: float) -> None:
    """An average of whole numbers is cut off: 3 became 2."""
    trainer = trainer_of(network("windows"), ema=decay)
    states = [moved(trainer, range(step, step + 1)) for step in range(3)]
    expected = states[0]["table"]
    for state in states[1:]:
        expected = decay * expected + (1 - decay) * state["table"]
    average = trainer.tested
    torch.testing.assert_close(average.state_dict()["table"], expected)
    tables = {key: value for key, value in trainer.network.named_buffers() if not value.is_floating_point()}
    assert any(len(value.flatten()) > 100 for value in tables.values())
    assert all(torch.equal(dict(average.named_buffers())[key], value) for key, value in tables.items())


def test_what_is_dropped_depends_on_the_seed_the_step_and_the_process() -> None:
    """So a resumed step drops what it would have dropped, and processes drop different things."""
    fixed: dict[str, Any] = {"sandwich": 2}  # no width is drawn
    whole = moved(trainer_of(network("transformer"), **fixed), range(3))
    trainer = trainer_of(network("transformer"), **fixed)
    moved(trainer, range(1))
    torch.manual_seed(99)  # another process, later
    again = moved(trainer, range(1, 3))
    assert all(torch.equal(value, again[key]) for key, value in whole.items())
    for other in (
        trainer_of(network("transformer"), seed=1, **fixed),
        trainer_of(network("transformer"), Processes(1, 1, torch.device("cpu")), **fixed),
    ):
        assert not torch.equal(moved(other, range(3))["head.weight"], whole["head.weight"])
