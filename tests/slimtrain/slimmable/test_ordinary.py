"""Networks are made, calibrated and opened alike, whatever a program has told torch before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slimexport.dense import materialize
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.checkpoints.own_layout import save
from slimtrain.slimmable.calibrate import calibrate
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.slimmable.ordinary import ordinary_torch
from slimtrain.tracing.slimmed import make_slimmable
from tests.support.export_helpers import small_spec
from tests.support.user_networks import images, network


@contextmanager
def doubles() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


STATES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "float64": doubles,
    "meta": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference": torch.inference_mode,
    "no gradients": torch.no_grad,
}


def seen() -> tuple[object, ...]:
    ones = torch.ones(2, 2, requires_grad=True)
    product = ones @ ones
    return ones.dtype, ones.device.type, product.dtype, product.requires_grad, torch.is_inference_mode_enabled()


@pytest.mark.parametrize("state", STATES)
def test_torch_is_as_it_begins_within_the_block_and_as_it_was_after_it(state: str) -> None:
    usual = seen()
    with STATES[state]():
        before = seen()
        with suppress(KeyError), ordinary_torch():
            assert seen() == usual
            raise KeyError
        assert seen() == before != usual
    assert seen() == usual


def narrow(module: nn.Module, folder: Path, x: Tensor) -> tuple[Tensor, Tensor]:
    """The logits at half width of a network that was made, calibrated, saved, opened, made dense; the sums of its means."""
    result = make_slimmable(module, x, name="mine")
    calibrate(result, [result.plan(0.5)], [x])
    save(result, folder / "mine.pt")
    opened = open_checkpoint(folder / "mine.pt")
    dense = materialize(opened, 0.5)
    assert {p.dtype for p in dense.parameters()} == {torch.float32}
    total = torch.stack([mean.sum() for mean, _ in opened.network.statistics(opened.spec.plan(0.5)).values()])
    with ordinary_torch(), torch.no_grad():
        return dense(x), total


@pytest.mark.parametrize("state", STATES)
def test_a_network_is_the_same(state: str, tmp_path: Path) -> None:
    x, module = images(8), network("residual")
    expected = narrow(module, tmp_path, x)
    with STATES[state]():
        result = narrow(module, tmp_path, x)
    assert all(torch.equal(a, b) for a, b in zip(result, expected, strict=True))


def test_a_published_network_has_one_number_type() -> None:
    with doubles():
        published = SlimmableNetwork(small_spec())
    assert {p.dtype for p in published.parameters()} == {torch.float32}


def test_a_module_of_float64_has_norms_of_float64() -> None:
    module = network("plain").double()
    result = make_slimmable(module, images(2, dtype=torch.float64))
    calibrate(result, [result.plan(0.5)], [images(4, dtype=torch.float64)])
    with result.at(result.plan(0.5)):
        assert result(images(2, dtype=torch.float64)).dtype == torch.float64


def test_gradients_pass_statistics_that_were_taken_in_inference_mode() -> None:
    result = make_slimmable(network("plain"), images(2))
    with torch.inference_mode():
        x = images(8)
        calibrate(result, [result.plan(0.5)], [x])
    with result.at(result.plan(0.5)):
        result(images(2)).sum().backward()
    assert any(p.grad is not None for p in result.parameters())
