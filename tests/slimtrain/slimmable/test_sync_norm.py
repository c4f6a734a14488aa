"""Statistics over processes against those of one tensor that holds all values."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from slimtrain.models.table import BN_EPS
from slimtrain.slimmable.sync_norm import OneValueError, combine, synchronized_batch_norm
from slimtrain.training.distributed import Processes
from tests.support.slimtrain_processes import in_processes

CHANNELS, MOMENTUM = 5, 0.1
SHARES = (3, 1, 2)  # images of each process


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("counts", [(4,), (4, 4), (1, 9), (7, 1, 1, 30), (2, 3, 5, 7, 11)])
def test_parts_combine_to_the_statistics_of_the_whole(counts: tuple[int, ...]) -> None:
    parts = [drawn(count, CHANNELS, seed=i) * (i + 1) + 10 * i for i, count in enumerate(counts)]
    means = torch.stack([part.mean(0) for part in parts])
    variances = torch.stack([part.var(0, correction=0) for part in parts])
    mean, variance = combine(torch.tensor(counts)[:, None], means, variances)
    expected_variance, expected_mean = torch.var_mean(torch.cat(parts), 0, correction=0)
    torch.testing.assert_close(mean, expected_mean, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(variance, expected_variance, rtol=1e-13, atol=1e-13)


def test_a_large_mean_does_not_cancel_the_variance_away() -> None:
    """In float32 E[x^2] - E[x]^2 of values about 1,000 with deviation 0.1 has no digit left."""
    values = (1000 + 0.1 * drawn(4096, 1)).float()
    parts = values.chunk(4)
    means, variances = torch.stack([p.mean(0) for p in parts]), torch.stack([p.var(0, correction=0) for p in parts])
    _, variance = combine(torch.full((4, 1), 1024.0), means, variances)
    expected = float(values.double().var(correction=0))
    naive = float((values**2).mean() - values.mean() ** 2)
    assert float(variance) == pytest.approx(expected, rel=1e-3)
    assert abs(naive - expected) > 0.1 * expected


def test_combine_has_right_gradients() -> None:
    counts = torch.tensor([[3.0], [1.0], [4.0]], dtype=torch.float64)
    means, variances = drawn(3, CHANNELS).requires_grad_(), drawn(3, CHANNELS, seed=1).square().requires_grad_()
    assert torch.autograd.gradcheck(lambda m, v: combine(counts, m, v), (means, variances))


# ----------------------------------------------------------------------------------------------------------- processes

Tensors = dict[str, Tensor]


def whole() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, the gradient of the outputs, scale and shift."""
    x = 3 * drawn(sum(SHARES), CHANNELS, 3, 2) + torch.arange(CHANNELS, dtype=torch.float64).view(1, -1, 1, 1)
    return x, drawn(*x.shape, seed=1), drawn(CHANNELS, seed=2), drawn(CHANNELS, seed=3)


def share_of(joined: Processes, options: dict[str, bool]) -> Tensors:
    """What one process makes of its share: outputs, gradients, running statistics."""
    first = sum(SHARES[: joined.rank])
    x, outer, weight, bias = whole()
    own = x[first : first + SHARES[joined.rank]].clone().requires_grad_()
    weight.requires_grad_(), bias.requires_grad_()
    values = {
        "mean": torch.full((CHANNELS,), 0.5, dtype=torch.float64),
        "var": torch.full((CHANNELS,), 2.0, dtype=torch.float64),
    }
    running = (values["mean"], values["var"]) if options["running"] else None
    out = synchronized_batch_norm(own, running, weight, bias, MOMENTUM, BN_EPS)
    out.backward(outer[first : first + len(own)])  # type: ignore[no-untyped-call]
    for name, tensor in (("x", own), ("weight", weight), ("bias", bias)):
        assert tensor.grad is not None
        values[name] = tensor.grad
    return {**values, "out": out.detach()}


def assert_exact(value: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(value, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("running", [True, False])
def test_shares_are_normalized_and_differentiated_as_the_whole(running: bool) -> None:
    shares = in_processes(len(SHARES), share_of, {"running": running})
    x, outer, weight, bias = (tensor.requires_grad_() for tensor in whole())
    mean, var = torch.full((CHANNELS,), 0.5, dtype=torch.float64), torch.full((CHANNELS,), 2.0, dtype=torch.float64)
    out = F.batch_norm(x, mean, var, weight, bias, True, MOMENTUM, BN_EPS)
    out.backward(outer)  # type: ignore[no-untyped-call]
    assert x.grad is not None and weight.grad is not None and bias.grad is not None
    assert_exact(torch.cat([share["out"] for share in shares]), out.detach())
    assert_exact(torch.cat([share["x"] for share in shares]), x.grad)
    for key, whole_gradient in (("weight", weight.grad), ("bias", bias.grad)):
        parts = [share[key] for share in shares]
        assert_exact(torch.stack(parts).sum(0), whole_gradient)
        assert float((parts[0] - whole_gradient).abs().max()) > 0.1  # a process holds its part of the sum
    for share in shares:
        if running:
            assert_exact(share["mean"], mean)
            assert_exact(share["var"], var)
        else:
            assert bool((share["mean"] == 0.5).all()) and bool((share["var"] == 2).all())


def single_values(joined: Processes) -> tuple[bool, float, torch.dtype]:
    """One value per channel in some processes: two in all make a variance, one does not."""
    weight, bias = torch.ones(2), torch.zeros(2)
    x = torch.full((1, 2, 1, 1), float(joined.rank), dtype=torch.bfloat16)
    normalized = synchronized_batch_norm(x, None, weight, bias, MOMENTUM, BN_EPS)
    three = synchronized_batch_norm(x.repeat(1 + joined.rank, 1, 1, 1), None, weight, bias, MOMENTUM, BN_EPS)
    assert len(three) == 1 + joined.rank and float(three[0, 0, 0, 0]) * (joined.rank - 0.5) > 0
    try:
        synchronized_batch_norm(x[: 1 - joined.rank], None, weight, bias, MOMENTUM, BN_EPS)
    except OneValueError:
        return True, float(normalized[0, 0, 0, 0]), normalized.dtype
    return False, 0.0, normalized.dtype


def test_one_value_per_channel_in_all_is_refused_in_every_process() -> None:
    results = in_processes(2, single_values)
    assert [refused for refused, _, _ in results] == [True, True]
    assert [value for _, value, _ in results] == pytest.approx([-1, 1], rel=1e-2)  # 0 and 1: mean 1/2, deviation 1/2
    assert {dtype for _, _, dtype in results} == {torch.bfloat16}
