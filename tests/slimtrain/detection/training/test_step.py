"""Gradients of all plans of a detector: those of the module itself at the widest, and their sum."""

from __future__ import annotations

import pytest
import torch

from slimtrain.detection.losses.single_stage import SingleStageLosses
from slimtrain.detection.losses.two_stage import Sampling, TwoStageLosses
from slimtrain.detection.making import slimmable_detector
from slimtrain.detection.training.step import accumulate_gradients, clip, loss_names, losses_of
from slimtrain.models.detector import FASTER, MASK, RETINA, SSDLITE
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.trained_detectors import SAMPLING, SIZE, drawn_batch, quick_detector, quick_settings


def gradients(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", [FASTER, MASK, RETINA, SSDLITE])
@pytest.mark.parametrize("counts", [[2, 3], [2, 0]])
def test_at_the_widest_they_are_the_module_s(kind: str, counts: list[int]) -> None:
    """Norms normalize by the running statistics in both, as batches of two tell too little."""
    module = quick_detector(kind).eval()
    network = slimmable_detector(module, (0.5, 1.0), image_size=SIZE, order="none").eval()
    settings, batch = quick_settings(kind), drawn_batch(counts, masks=kind == MASK)
    torch.manual_seed(3)
    (values,) = accumulate_gradients(network, [network.plan(1.0)], batch, losses_of(settings, SAMPLING))

    torch.manual_seed(3)
    sizes = [(SIZE, SIZE)] * len(counts)
    if settings.single_stage:
        losses = SingleStageLosses(settings)(module(batch.images), (SIZE, SIZE), batch.targets)
    else:
        both = TwoStageLosses(settings, SAMPLING)
        none = torch.zeros(0, 5)
        dense = module(batch.images, none, none) if kind == MASK else module(batch.images, none)
        losses, regions = both.first(dense, (SIZE, SIZE), sizes, batch.targets)
        rois = (regions.rois, regions.mask_rois) if kind == MASK else (regions.rois,)
        losses |= both.second(module(batch.images, *rois), regions, batch.targets)
    assert set(values) == set(loss_names(settings))
    assert values == pytest.approx({name: float(loss.detach()) for name, loss in losses.items()}, rel=1e-4, abs=1e-6)
    torch.autograd.backward(sum(losses.values(), torch.zeros(())))
    right, own = gradients(module), gradients(network)
    convolutions = [name for name, parameter in module.named_parameters() if parameter.ndim > 1]
    assert len(convolutions) > 10
    for name in convolutions:
        torch.testing.assert_close(own[name], right[name], rtol=1e-3, atol=1e-5)


def test_plans_add_up() -> None:
    network = slimmable_detector(quick_detector(), (0.5, 0.75, 1.0), image_size=SIZE, order="none").train()
    losses, batch = (
        losses_of(quick_settings(), Sampling(rpn_sampled=10_000, top_k=40, kept=20, box_sampled=10_000)),
        drawn_batch([2, 3]),
    )
    plans = [network.plan(width) for width in (1.0, 0.75, 0.5)]
    alone: list[dict[str, torch.Tensor]] = []
    for plan in plans:
        network.zero_grad()
        accumulate_gradients(network, [plan], batch, losses)
        alone.append(gradients(network))
    network.zero_grad()
    values = accumulate_gradients(network, plans, batch, losses)
    assert len(values) == 3 and all(set(of_plan) == {"objectness", "proposals", "classes", "boxes"} for of_plan in values)
    for name, gradient in gradients(network).items():
        expected = sum((of_plan[name] for of_plan in alone if name in of_plan), torch.zeros(()))
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5)


def test_what_is_too_large_is_scaled_down() -> None:
    weight = torch.nn.Parameter(torch.zeros(4))
    weight.grad = torch.tensor([30.0, 40.0, 0.0, 0.0])
    assert clip([weight], 35.0) == pytest.approx(50.0)
    assert float(weight.grad.norm()) == pytest.approx(35.0, rel=1e-3)
    assert clip([weight], 35.0) == pytest.approx(35.0, rel=1e-3)


def test_a_few_steps_learn_one_batch() -> None:
    """The losses of every switch fall."""
    network = slimmable_detector(quick_detector(seed=2), (0.5, 1.0), image_size=SIZE, order="none").train()
    totals = _trained(network, steps=24)
    assert all(sum(of_plan[-4:]) / 4 < 0.7 * of_plan[0] for of_plan in zip(*totals, strict=True)), totals


def test_half_precision_comes_near() -> None:
    """bfloat16 has three digits."""
    begun = []
    for amp in ("none", "bf16"):
        network = slimmable_detector(quick_detector(seed=2), (0.5, 1.0), image_size=SIZE, order="none").train()
        begun.append(_trained(network, steps=1, amp=amp)[0])
    assert begun[1] == pytest.approx(begun[0], rel=0.05) and begun[1] != begun[0]


def _trained(network: SlimmableNetwork, steps: int, amp: str = "none") -> list[list[float]]:
    """The sum of every plan's losses, step by step."""
    torch.manual_seed(1)
    losses, batch = losses_of(quick_settings(), SAMPLING), drawn_batch([2, 3])
    plans = [network.plan(1.0), network.plan(0.5)]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9)
    totals = []
    for _ in range(steps):
        optimizer.zero_grad()
        values = accumulate_gradients(network, plans, batch, losses, amp)
        clip(network.parameters())
        optimizer.step()
        totals.append([sum(of_plan.values()) for of_plan in values])
    return totals
