"""The recorded layers against the dense network that runs, name by name; their sums are what the cost counter tells."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from slimtrain.base.errors import UserError
from slimtrain.base.image_size import ImageSize, as_image_size, sides
from slimtrain.costs.cost import CostCounter
from slimtrain.costs.layer_shapes import CONV, DEPTHWISE, LINEAR, LayerShape, layer_shapes
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.published import published_spec
from slimtrain.models.spec import NetworkSpec
from tests.support.module_layers import DenseLayers
from tests.support.slimtrain_states import PUBLISHED


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("image_size", [33, 160])
def test_sums_over_layers_are_the_network_s_costs_at_every_switch(name: str, image_size: ImageSize) -> None:
    spec = published_spec(name, classes=10)
    layers, count = layer_shapes(spec, image_size), CostCounter(spec, image_size)
    for plan in spec.plans:
        cost = count(plan)
        sums = (sum(layer.macs(plan) for layer in layers), sum(layer.activations(plan) for layer in layers), len(layers))
        assert sums == (cost.macs, cost.activations, cost.layers)
        biases = sum(plan.size(layer.out) for layer in layers)
        assert sum(layer.weights(plan) for layer in layers) + biases == cost.params


@pytest.mark.parametrize("name", ["us_mobilenet_v1", "us_mobilenet_v2", "autoslim_mnasnet", "autoslim_resnet50"])
def test_sums_at_plans_that_no_width_describes(name: str) -> None:
    spec, draw = published_spec(name), random.Random(3)
    layers, count = layer_shapes(spec, 96), CostCounter(spec, 96)
    for _ in range(5):
        plan = ChannelPlan("mine", {group: draw.randint(1, most) for group, most in spec.widest.channels.items()})
        assert sum(layer.macs(plan) for layer in layers) == count(plan).macs


def ran(spec: NetworkSpec, plan: ChannelPlan, image_size: ImageSize) -> list[tuple[object, ...]]:
    """Name, kernel, stride, side, inputs, outputs, groups, weights, written elements and MACs of each weighted layer of a
    dense network, as it runs."""
    seen: list[tuple[object, ...]] = []
    with torch.device("meta"):
        dense = spec.build(DenseLayers(plan)).eval()
    pooled: list[object] = []

    def hook(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.AdaptiveAvgPool2d):
            pooled.append(as_image_size(tuple(inputs[0].shape[2:])))
        elif isinstance(module, nn.Conv2d | nn.Linear):
            weights, positions = module.weight.numel(), output[0, 0].numel()
            figures = (weights, output.numel(), weights * positions)
            if isinstance(module, nn.Linear):
                seen.append((name, 1, 1, pooled[-1], module.in_features, module.out_features, 1, *figures))
            else:
                size = as_image_size(tuple(inputs[0].shape[2:]))
                sizes = (size, module.in_channels, module.out_channels, module.groups)
                seen.append((name, module.kernel_size[0], module.stride[0], *sizes, *figures))

    for name, module in dense.named_modules():
        module.register_forward_hook(lambda module, inputs, output, name=name: hook(name, module, inputs, output))
    dense(torch.empty(1, spec.in_channels, *sides(image_size), device="meta"))
    return seen


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize(("image_size", "in_channels"), [(97, 3), ((97, 130), 1), ((140, 97), 4)])
def test_layers_are_those_that_run_in_their_order_under_their_names(
    name: str, image_size: ImageSize, in_channels: int
) -> None:
    spec = replace(published_spec(name, classes=7), in_channels=in_channels)
    plan = spec.plans[len(spec.plans) // 2]
    recorded = [
        (
            *(layer.name, layer.kernel, layer.stride, layer.size, plan.size(layer.inp), plan.size(layer.out)),
            plan.size(layer.out) if layer.kind == DEPTHWISE else 1,
            *(layer.weights(plan), layer.activations(plan), layer.macs(plan)),
        )
        for layer in layer_shapes(spec, image_size)
    ]
    assert recorded == ran(spec, plan, image_size)


def activations(layers: tuple[LayerShape, ...]) -> dict[str, str]:
    return {layer.name: layer.activation for layer in layers}


def test_activations_are_those_directly_behind() -> None:
    v1 = activations(layer_shapes(published_spec("us_mobilenet_v1"), 64))
    assert v1.pop("classifier.0") == "" and set(v1.values()) == {"relu6"}
    v2 = activations(layer_shapes(published_spec("us_mobilenet_v2"), 64))
    assert (v2["features.2.body.0"], v2["features.2.body.3"], v2["features.2.body.6"]) == ("relu6", "relu6", "")
    resnet = activations(layer_shapes(published_spec("s_resnet50"), 64))
    assert (resnet["features.1.body.3"], resnet["features.1.body.6"], resnet["features.1.shortcut.0"]) == ("relu", "", "")
    shuffle = activations(layer_shapes(published_spec("s_shufflenet"), 64))
    assert (shuffle["features.0.a_1.0"], shuffle["features.0.b.1"], shuffle["features.0.c_2.0"]) == ("relu", "", "")


def test_a_stem_reads_the_image_and_the_classifier_the_pooled_map() -> None:
    spec = published_spec("us_mobilenet_v1", classes=10)
    first, *_, last = layer_shapes(spec, 224)
    assert (first.kind, first.inp, first.size, first.positions) == (CONV, 3, 224, 112 * 112)
    assert (last.kind, last.out, last.size, last.positions) == (LINEAR, 10, 7, 1)
    small = layer_shapes(NetworkSpec("mobilenet_v1", "us", (0.25, 1.0), 10, width_range=(0.25, 1.0), stem_stride=1), 32)
    assert (small[0].stride, small[0].positions, small[-1].size) == (1, 32 * 32, 2)


def test_an_image_too_small_for_the_network_is_refused() -> None:
    with pytest.raises(UserError, match="image size 16"):
        layer_shapes(published_spec("us_mobilenet_v1"), 16)
