"""A user's network on two processes against one: the same step, the same statistics, and its constants as they were."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from slimtrain.base.errors import UserError
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.training.distributed import Processes
from slimtrain.training.evaluate import calibrate_on
from slimtrain.training.optimizer import sgd
from slimtrain.training.sampling import WidthSampler
from slimtrain.training.step import Gradients, Stepper
from tests.support.slimtrain_processes import alone, in_processes
from tests.support.traced_search import SIZE, slimmable
from tests.support.user_networks import CLASSES, conv
from tests.support.user_networks import network as user_network

TOTAL = 7  # shares of 3 and 4 images


class Mixed(nn.Module):
    """Batch norms of maps and of vectors, a table of numbers and one of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.norm = conv(3, 16, stride=2), nn.Linear(16, 24), nn.BatchNorm1d(24)
        self.head = nn.Linear(24, CLASSES)
        self.scale: Tensor
        self.order: Tensor
        self.register_buffer("scale", torch.rand(24, generator=torch.Generator().manual_seed(3)))
        self.register_buffer("order", torch.arange(CLASSES).flip(0))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.inner(self.stem(x).mean((2, 3)))) * self.scale
        return self.head(torch.relu(x))[:, self.order]


@cache
def mixed() -> nn.Module:
    torch.manual_seed(5)
    return Mixed()


def network_of(name: str) -> SlimmableNetwork:
    return slimmable(mixed() if name == "mixed" else user_network(name)).double()


def batch(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    x = torch.randn(TOTAL, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return x, torch.arange(TOTAL) % CLASSES


def own_share(joined: Processes) -> slice:
    return slice(joined.rank * TOTAL // joined.world, (joined.rank + 1) * TOTAL // joined.world)


def one_step(joined: Processes, name: str, synchronized: bool, number: torch.dtype = torch.float64) -> dict[str, Any]:
    """What a step of the sandwich rule leaves, with widths of every group's own."""
    network = network_of(name).to(number)
    network.synchronize(synchronized and joined.world > 1)
    sampler = WidthSampler(network.spec, sandwich=3, nonuniform=True)
    gradients = Gradients(network, sampler.count, joined, synchronized)
    optimizer = sgd(network, 0.1, 0.9, True, 1e-4)
    steps = Stepper(network, optimizer, gradients, smoothing=0.1, distill=True, amp="none")
    (x, labels), own = batch(number), own_share(joined)
    losses = steps.compute(sampler(0), x[own], labels[own], TOTAL).clone()
    grads = {key: p.grad.clone() for key, p in network.named_parameters() if p.grad is not None}
    steps.apply(0.05)
    return {
        "losses": losses,
        "gradients": grads,
        "after": dict(network.state_dict()),
        "buffers": dict(network.named_buffers()),
    }


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float = 1e-10) -> None:
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=tolerance, atol=tolerance, msg=key)


@pytest.mark.parametrize("name", ["mixed", "split"])
def test_with_norms_synchronized_a_step_is_that_of_one_process(name: str) -> None:
    expected = one_step(alone(), name, True)
    outcomes = in_processes(2, one_step, name, True)
    for outcome in outcomes:
        for part in ("gradients", "after"):
            same(outcome[part], expected[part])
        torch.testing.assert_close(outcome["losses"], expected["losses"], rtol=1e-10, atol=0)
    assert float(expected["gradients"]["head.weight"].abs().max()) > 0


def test_without_synchronization_statistics_are_averaged_and_constants_stay() -> None:
    """A third of a number three times need not be the number: constants are not summed."""
    outcomes = in_processes(3, one_step, "mixed", False, torch.float32)
    before = dict(network_of("mixed").float().named_buffers())
    third = before["scale"] / 3
    assert not torch.equal(third + third + third, before["scale"])
    for outcome in outcomes:
        assert all(torch.equal(value, outcomes[0]["after"][key]) for key, value in outcome["after"].items())
        for key in ("scale", "order"):
            assert torch.equal(outcome["buffers"][key], before[key])
    changed = [key for key, value in before.items() if not torch.equal(value, outcomes[0]["buffers"][key])]
    assert any(key.endswith("running_var") for key in changed)


def calibrated(joined: Processes) -> list[dict[str, tuple[Tensor, Tensor]]]:
    network = network_of("mixed")
    plans = [network.plan(width) for width in (0.4, 1.0)]
    (x, _), own = batch(), own_share(joined)
    calibrate_on(network, plans, [x[own], x.flip(0)[own] * 2], joined)
    return [network.statistics(plan) for plan in plans]


def test_calibration_does_not_depend_on_the_number_of_processes() -> None:
    expected = calibrated(alone())
    for outcome in in_processes(2, calibrated):
        for ours, theirs in zip(outcome, expected, strict=True):
            for path, pair in theirs.items():
                for a, b in zip(ours[path], pair, strict=True):
                    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def in_ddp(joined: Processes) -> dict[str, Tensor]:
    """Gradients of a narrow plan by torch's own wrapper, in a loop as users write it."""
    network = network_of("transformer").train()  # no norm that sees other processes' images
    wrapped = DistributedDataParallel(network, find_unused_parameters=True) if joined.world > 1 else network
    (x, _), own = batch(), own_share(joined)
    with network.at(network.plan(0.5)):
        wrapped.eval()(x[own]).square().sum().backward()
    return {key: p.grad * joined.world for key, p in network.named_parameters() if p.grad is not None}


def test_torchs_own_wrapper_sums_the_gradients_of_a_plan() -> None:
    expected = in_ddp(alone())
    for outcome in in_processes(2, in_ddp):
        same(outcome, expected, 1e-9)


def test_data_parallel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would run the first device's weights on all. Here are no GPUs: only what torch copies tensors with is replaced."""
    module = sys.modules["torch.nn.parallel.replicate"]
    monkeypatch.setattr(module, "_get_device_index", lambda device, *rest: 0)
    monkeypatch.setattr(
        module, "_broadcast_coalesced_reshape", lambda tensors, devices, *rest, **options: [list(tensors)] * len(devices)
    )
    assert len(torch.nn.parallel.replicate(mixed(), [torch.device("cpu")] * 2)) == 2
    with pytest.raises(UserError, match=r"DataParallel copies the weights.*DistributedDataParallel"):
        torch.nn.parallel.replicate(network_of("mixed"), [torch.device("cpu")] * 2)
