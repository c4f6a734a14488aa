"""All gradients stay in one tensor, whatever the weights' memory layout, and cross to other processes at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.training.distributed import Processes
from slimtrain.training.sampling import WidthSampler
from slimtrain.training.step import Gradients, Stepper, accumulate_gradients
from tests.support.slimtrain_processes import CountingAllReduce, alone
from tests.support.slimtrain_states import images, network_of, random_state

US = NetworkSpec("mobilenet_v2", "us", (0.2, 0.4), 10, width_range=(0.2, 0.4), stem_stride=1)
S = NetworkSpec("mobilenet_v1", "s", (0.25, 0.5), 10, stem_stride=1)
LABELS = torch.tensor([1, 2, 3, 4])
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def network_in(spec: NetworkSpec, layout: str) -> SlimmableNetwork:
    network = network_of(spec, random_state(spec)).train()
    network.to(memory_format=LAYOUTS[layout])
    return network


def positions(tensor: Tensor) -> set[int]:
    """The places of storage that a tensor's elements lie at."""
    places = torch.tensor(tensor.storage_offset())
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        places = places.unsqueeze(-1) + torch.arange(size) * stride
    return set(places.flatten().tolist())


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_gradients_tile_one_tensor_in_the_strides_of_their_weights(layout: str) -> None:
    network = network_in(US, layout)
    gradients = Gradients(network, 3, alone(), synchronized=False)
    seen: set[int] = set()
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert parameter.grad.untyped_storage().data_ptr() == gradients.flat.untyped_storage().data_ptr()
        assert parameter.grad.stride() == parameter.stride()
        own = positions(parameter.grad)
        assert len(own) == parameter.numel() and not own & seen
        seen |= own
    assert len(gradients.losses) == 3
    seen |= positions(gradients.losses)
    assert seen == set(range(gradients.flat.numel()))
    if layout == "channels_last":
        assert any(p.dim() == 4 and not p.is_contiguous() for p in network.parameters())


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("spec", [S, US], ids=["s", "us"])
def test_backward_passes_and_steps_leave_gradients_where_they_are(spec: NetworkSpec, layout: str) -> None:
    network, sampler = network_in(spec, layout), WidthSampler(spec)
    gradients = Gradients(network, sampler.count, alone(), synchronized=False)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    steps = Stepper(network, optimizer, gradients, smoothing=0, distill=True, amp="none", parts=2)
    before = [(p.grad.data_ptr(), p.grad.stride()) for p in network.parameters() if p.grad is not None]
    for step in range(3):
        steps.compute(sampler(step), images(4, 32).contiguous(memory_format=LAYOUTS[layout]), LABELS, 4)
        steps.apply(0.01)
    assert [(p.grad.data_ptr(), p.grad.stride()) for p in network.parameters() if p.grad is not None] == before
    assert len(before) == len(list(network.parameters()))
    gradients.clear()
    assert all(int(p.grad.count_nonzero()) == 0 for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_what_lies_in_the_tensor_is_what_autograd_finds_alone(layout: str) -> None:
    owned, plain = network_in(S, layout), network_in(S, "contiguous")
    gradients = Gradients(owned, 2, alone(), synchronized=False)
    for network in (owned, plain):
        accumulate_gradients(network, list(S.plans), images(4, 32), LABELS, 4)
    offset = 0
    for (name, parameter), (_, other) in zip(owned.named_parameters(), plain.named_parameters(), strict=True):
        assert parameter.grad is not None and other.grad is not None
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-9, atol=1e-12, msg=name)
        part = gradients.flat[offset : offset + parameter.numel()]
        assert sorted(part.tolist()) == sorted(parameter.grad.flatten().tolist()), name
        offset += parameter.numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_have_the_type_of_the_weights(dtype: torch.dtype) -> None:
    network = network_in(S, "contiguous").to(dtype)
    gradients = Gradients(network, 2, alone(), synchronized=False)
    assert gradients.flat.dtype == dtype


def test_one_process_sums_nothing_and_averages_nothing() -> None:
    network = network_in(S, "contiguous")
    gradients = Gradients(network, 2, alone(), synchronized=False)
    gradients.flat.fill_(3.0)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with CountingAllReduce() as counted:
        gradients.reduce()
    assert counted.sizes == []
    assert bool((gradients.flat == 3).all())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("synchronized", [False, True])
def test_one_sum_carries_gradients_losses_and_statistics(synchronized: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for two other processes: each holds the same numbers plus 2 and plus 4."""
    network = network_in(US, "channels_last")
    gradients = Gradients(network, 4, Processes(0, 3, torch.device("cpu")), synchronized)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    lengths = []

    def summed(tensor: Tensor) -> None:
        lengths.append(tensor.numel())
        weights = sum(p.numel() for p in network.parameters())
        statistics = slice(weights + 4, None)
        tensor[: weights + 4] = 3 * tensor[: weights + 4] + 6
        tensor[statistics] = 3 * tensor[statistics] + (2 + 4) / 3  # each process's share is a third

    monkeypatch.setattr(torch.distributed, "all_reduce", summed)
    gradients.flat.fill_(1.0)
    gradients.reduce()
    floating = {key for key, value in before.items() if key.endswith(("running_mean", "running_var"))}
    averaged = 0 if synchronized else sum(before[key].numel() for key in floating)
    assert lengths == [sum(p.numel() for p in network.parameters()) + 4 + averaged]
    assert all(bool((p.grad == 9).all()) for p in network.parameters() if p.grad is not None)
    assert gradients.losses.tolist() == [9.0] * 4
    for key, value in network.state_dict().items():
        moved = 2.0 if key in floating and not synchronized else 0.0
        torch.testing.assert_close(value, before[key] + int(moved), rtol=1e-12, atol=1e-12, msg=key)
