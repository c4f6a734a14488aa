"""Universally slimmable detectors: a step at drawn widths, and statistics for any width afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import slimtrain
from slimtrain.detection.building import build
from slimtrain.detection.halves import Halves
from slimtrain.detection.training.step import accumulate_gradients, losses_of
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.detector import FASTER, RETINA
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.training.optimizer import sgd
from tests.support.small_configs import small_config
from tests.support.trained_detectors import drawn_batch

DRAWN = 0.5  # a width that nothing was stored for


def batches() -> list[Tensor]:
    draw = torch.Generator().manual_seed(2)
    return [torch.randn(3, 3, 64, 64, generator=draw) for _ in range(2)]


@pytest.fixture(scope="module", params=[FASTER, RETINA])
def trained(request: pytest.FixtureRequest) -> SlimmableNetwork:
    network = build(small_config(request.param), 3, (0.25, 1.0), "us", 64, (0.0,) * 3, (1.0,) * 3)
    spec = network.spec
    assert isinstance(spec, GraphSpec) and spec.detector is not None and spec.range == (0.25, 1.0)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    optimizer = sgd(network, 0.01, 0.9, False, 0.0)
    plans = [network.plan(width) for width in (1.0, DRAWN, 0.25)]
    torch.manual_seed(0)
    values = accumulate_gradients(network, plans, drawn_batch([2, 3]), losses_of(spec.detector))
    assert len(values) == 3 and all(sum(losses.values()) > 0 for losses in values)
    optimizer.step()
    assert sum(not torch.equal(parameter, before[name]) for name, parameter in network.named_parameters()) > 50
    slimtrain.calibrate(network, [network.plan(DRAWN), network.plan(1.0)], batches(), Halves(network).first)
    return network.eval()


def test_calibrated_statistics_are_the_batches_own(trained: SlimmableNetwork) -> None:
    """Of the first norm: the average of the batches' means and unbiased variances."""
    plan = trained.plan(DRAWN)
    count = plan.size(trained.norms["backbone.body.bn1"].dim)
    assert 0 < count < 16
    weight = trained.body.stored("backbone.body.conv1.weight")[:count]
    maps = [torch.nn.functional.conv2d(images, weight, stride=2, padding=3) for images in batches()]
    mean, variance = trained.statistics(plan)["backbone.body.bn1"]
    means, variances = (torch.stack([getattr(x, kind)((0, 2, 3)) for x in maps]).mean(0) for kind in ("mean", "var"))
    assert torch.allclose(mean, means, atol=1e-5) and torch.allclose(variance, variances, rtol=1e-4)


def test_a_drawn_width_is_an_ordinary_network_of_that_size(trained: SlimmableNetwork) -> None:
    images = batches()[0]
    regions = torch.tensor([[0.0, 4, 4, 40, 40], [2.0, 10, 0, 60, 30]])
    given = (images, regions)[: len(trained.body.order.graph.inputs)]
    with torch.no_grad(), trained.at(trained.plan(DRAWN)):
        own: Any = trained(*given)
        dense: Any = trained.dense(DRAWN)(*given)
    for name, expected in own.items():
        assert torch.allclose(dense[name], expected, atol=1e-4 * float(expected.abs().max()))
    with pytest.raises(slimtrain.UserError, match="has no batch-norm statistics"):
        trained.dense(0.4)
