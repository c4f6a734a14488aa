"""The layers of traced networks: every operator in one of them, channels as plans have them, alike where layers are alike."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

from slimtrain.costs.graph_layers import INPUT, GraphLayer, Part, graph_layers, graph_parts
from slimtrain.graph.graph import Value
from slimtrain.graph.policy import Policy
from slimtrain.graph.sizes import Sizing
from slimtrain.groups.costs import MACS, graph_cost
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.channels import ChannelPlan, Dim
from slimtrain.tracing.slimmed import make_slimmable
from tests.support.user_networks import NETWORKS, SHAPE, Classifier, conv, network


def spec_of(module: nn.Module, policy: Policy | None = None) -> GraphSpec:
    spec = make_slimmable(module, torch.zeros(2, *SHAPE), policy=policy, order="none", check=False).spec
    assert isinstance(spec, GraphSpec)
    return spec


@cache
def traced(name: str) -> GraphSpec:
    return spec_of(network(name))


def by_name(spec: GraphSpec) -> dict[str, Part]:
    return {part.layer.name: part for part in graph_parts(spec)}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_operator_that_runs_for_an_image_is_in_one_layer(name: str) -> None:
    """From the definition: whatever reaches back to an input. And nothing is read that is not there yet."""
    spec = traced(name)
    moving = {name for name, _ in spec.graph.inputs}
    for node in spec.graph.nodes:
        if any(value.node in moving for value in node.inputs):
            moving.add(node.name)
    parts = graph_parts(spec)
    own = [[node.name for node in part.nodes if node.name in moving] for part in parts]
    names = [name for names in own for name in names]
    assert sorted(names) == sorted(moving - {name for name, _ in spec.graph.inputs})
    assert len({part.layer.name for part in parts}) == len(parts)
    there = {Value(name) for name, _ in spec.graph.inputs}
    for part in parts:
        assert set(part.reads) <= there
        there |= {Value(node.name, output) for node in part.nodes for output in range(len(node.outputs))}
        assert part.layer.operators == tuple(node.kind for node in part.nodes if node.name in moving)
    assert set(spec.graph.outputs) <= {value for part in parts for value in part.gives}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("width", [0.25, 0.6, 1.0])
def test_layers_have_the_macs_of_the_network(name: str, width: float) -> None:
    spec = traced(name)
    sizing = spec.sizing(spec.plan(width))
    macs = sum(MACS[node.kind](sizing, node) for part in graph_parts(spec) for node in part.nodes if node.kind in MACS)
    assert macs == graph_cost(sizing).macs > 0


@pytest.mark.parametrize("name", NETWORKS)
def test_a_layer_s_sizes_follow_from_its_groups_alone(name: str) -> None:
    """Two plans that agree in the groups of a layer have the same sizes in all that it reads and makes."""
    spec = traced(name)
    narrow = spec.plan(0.25).channels
    for part in graph_parts(spec):
        assert part.inputs | part.outputs <= set(spec.groups.sizes)
        mixed = {**spec.groups.sizes, **{group: narrow[group] for group in part.inputs | part.outputs}}
        ones, others = Sizing(spec.graph, spec.groups, narrow), Sizing(spec.graph, spec.groups, mixed)
        for node in part.nodes:
            values = [*node.inputs, *(Value(node.name, output) for output in range(len(node.outputs)))]
            assert [ones.shape(value) for value in values] == [others.shape(value) for value in values], part.layer.name
            assert ones.call(node) == others.call(node)


def test_a_residual_sum_belongs_to_the_layer_before_it() -> None:
    layers = by_name(traced("residual"))
    first, second = layers["body.1.conv1.0"].layer, layers["body.1.conv2"].layer
    assert (first.kind, first.operators) == ("conv2d 3x3", ("conv2d", "batch_norm", "relu"))
    assert second.operators == ("conv2d", "add", "relu")
    assert (first.inp, first.out) == (Dim.of("body.0.0"), Dim.of("body.1.conv1.0"))
    assert (second.inp, second.out) == (first.out, first.inp)
    assert layers["body.0.0"].layer.inp == 3 and layers["head"].layer.out == 7
    assert first.shape == layers["body.2.conv1.0"].layer.shape != second.shape  # the second block's takes the same


def test_a_gate_is_two_layers_and_the_product_is_in_the_second() -> None:
    layers = by_name(traced("gate"))
    depthwise, squeeze, excite = (layers[name].layer for name in ("body.1.0", "body.2.fc1", "body.2.fc2"))
    assert depthwise.kind == "depthwise conv2d 3x3" and depthwise.single and "adaptive_avg_pool2d" in depthwise.operators
    assert squeeze.kind == "pooled conv2d 1x1" and squeeze.inp == depthwise.out == excite.out and squeeze.out == excite.inp
    assert {"sigmoid", "mul"} <= set(excite.operators)


def test_a_concatenation_is_a_layer_of_all_that_it_joins() -> None:
    layers = [layer for layer in graph_layers(traced("concatenation")) if layer.kind == "cat"]
    assert len(layers) == 2 and all(layer.single for layer in layers)
    assert layers[0].out == Dim((("body.a.0", 1), ("body.stem.0", 1)))
    assert isinstance(layers[1].out, Dim) and len(layers[1].out.groups) == 3


def test_attention_counts_heads_with_their_channels() -> None:
    spec = traced("transformer")
    (heads,) = [group for group, slots in spec.groups.sizes.items() if slots == 6]
    layers = graph_layers(spec)
    (attention,) = [layer for layer in layers if layer.kind == "scaled_dot_product_attention"]
    assert attention.single and attention.out == Dim(((heads, 8),))
    qkv, proj = (layer for layer in layers if layer.name in ("block.qkv", "block.proj"))
    assert qkv.out == Dim(((heads, 24),)) and proj.inp == Dim(((heads, 8),))
    assert "layer_norm" in proj.operators and {"mul", "add"} <= set(proj.operators)
    inner = graph_layers(spec_of(network("transformer"), Policy("inner")))
    assert [layer.name for layer in inner] == [layer.name for layer in layers]
    assert [a.shape == b.shape for a, b in zip(inner, layers, strict=True)].count(False) == 2  # qkv and attention


def test_what_stored_tensors_alone_give_is_no_layer() -> None:
    """Standardized weights and looked-up positions are computed before: they stand with whoever reads them."""
    part = by_name(traced("standardized"))["body"]
    assert part.layer.operators[0] == "conv2d" and "var" in {node.kind for node in part.nodes}
    assert "var" not in part.layer.operators
    kinds = [layer.kind for layer in graph_layers(traced("windows"))]
    assert kinds == ["conv2d 2x2 stride 2", "linear", "matmul", "matmul", "linear", "linear"]


def test_what_is_done_to_images_first_is_a_layer() -> None:
    class Normalized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = Classifier(conv(3, 16), 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x * 2 - 1)

    first, second, *_ = graph_layers(spec_of(Normalized().eval()))
    assert (first.name, first.inp, first.out, first.operators) == (INPUT, 3, 3, ("mul", "sub"))
    assert second.name == "body.body.0"


def test_a_module_that_runs_twice_is_two_layers() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv, self.head = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 1), nn.Linear(16, 7)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.conv(self.conv(self.stem(x)).relu()).mean((2, 3)))

    layers = graph_layers(spec_of(Twice().eval()))
    assert [layer.name for layer in layers] == ["stem", "conv", "conv#2", "head"]


@pytest.mark.parametrize("name", ["gate", "transformer", "windows"])
def test_tracing_again_gives_the_same_layers(name: str) -> None:
    assert graph_layers(spec_of(network(name))) == graph_layers(traced(name))


def test_a_layer_survives_its_content() -> None:
    for layer in graph_layers(traced("transformer")):
        assert GraphLayer.of(layer.content, layer.inp, layer.out) == layer


@pytest.mark.parametrize("name", NETWORKS)
def test_dimensions_are_as_large_as_what_they_count(name: str) -> None:
    """At the widest a layer's channels are those of a dimension that it reads or makes, or the sum of several groups'."""
    spec = traced(name)
    widest = ChannelPlan("w", spec.groups.sizes)
    for part in graph_parts(spec):
        values = [*part.reads, *(Value(node.name, output) for node in part.nodes for output in range(len(node.outputs)))]
        sizes = {size for value in values for size in spec.graph.types[value].shape if isinstance(size, int)}
        for dim in (part.layer.inp, part.layer.out):
            if isinstance(dim, int) or len(dim.groups) == 1:
                assert widest.size(dim) in {*sizes, 1}, part.layer
