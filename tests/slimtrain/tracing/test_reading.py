"""Graphs read off exported modules: functional, complete, for any batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimtrain.graph.graph import CONSTANT, PARAMETER, STATISTIC, Batch, Value
from slimtrain.slimmable.program import Program
from slimtrain.tracing.exported import BATCHES
from slimtrain.tracing.slimmed import trace
from tests.support.user_networks import images, network, outputs


class Written(nn.Module):
    """A forward pass given as a function of the image and a weight."""

    def __init__(self, forward: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 1, 1, generator=torch.Generator().manual_seed(0)))
        self.written = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.written(x, self.weight)


def in_place_chain(x: Tensor, w: Tensor) -> Tensor:
    y = F.conv2d(x, w)
    y.relu_()
    y.mul_(2).add_(1)
    return y + y


def written_through_a_view(x: Tensor, w: Tensor) -> Tensor:
    y = F.conv2d(x, w)
    y[:, 0].fill_(3.0)
    return y.sum((2, 3))


def view_read_after_writing(x: Tensor, w: Tensor) -> Tensor:
    y = F.conv2d(x, w)
    flat = y.flatten(1)
    y.mul_(2)
    return flat[:, :5]


def constant_written_to(x: Tensor, w: Tensor) -> Tensor:
    mask = torch.zeros(16, 16)
    mask[4:] = 1
    mask[:, :2] += 5
    return F.conv2d(x, w) * mask


def sized_by_the_batch(x: Tensor, w: Tensor) -> Tensor:
    y = F.conv2d(x, w)
    y = y.view(x.shape[0] * 4, 16, 16) + torch.ones(x.shape[0] * 4, 1, 1)
    return y.reshape(len(x), 2, -1).mean(1)


def cast(x: Tensor, w: Tensor) -> Tensor:
    return F.conv2d(x.float(), w.to(torch.float32)).type_as(x)


@pytest.mark.parametrize(
    "forward", [in_place_chain, written_through_a_view, view_read_after_writing, constant_written_to, sized_by_the_batch, cast]
)
def test_whatever_is_written_where_the_graph_computes_the_same(forward: Callable[[Tensor, Tensor], Tensor]) -> None:
    module = Written(forward)
    traced = trace(module, images(2))
    assert not any(node.kind.endswith("_") for node in traced.graph.nodes)
    for batch in (1, 3):
        result = Program.full(traced.graph).run([images(batch)], traced.tensors)
        assert torch.equal(result[0], module(images(batch)))


def test_sizes_that_count_images_say_so() -> None:
    graph = trace(network("windows"), images(2)).graph
    (name, type_), *_ = graph.inputs
    assert type_.shape == (Batch(), 3, 16, 16) and name == "x"
    assert all(n.outputs[0].shape[0] == Batch(4) for n in graph.nodes if n.kind == "softmax")
    assert str(BATCHES[0]) not in str([node.arguments for node in graph.nodes])


def test_stored_tensors_are_of_three_kinds() -> None:
    graph = trace(network("windows"), images(2)).graph
    kinds = {parameter.name: parameter.kind for parameter in graph.parameters}
    assert kinds["table"] == PARAMETER and kinds["index"] == CONSTANT
    graph = trace(network("plain"), images(2)).graph
    assert {p.kind for p in graph.parameters if "running" in p.name} == {STATISTIC}
    assert not any("num_batches" in p.name for p in graph.parameters)  # what nothing reads is no part of it


def test_a_node_tells_its_module_and_line() -> None:
    graph = trace(network("residual"), images(2)).graph
    node = next(node for node in graph.nodes if node.kind == "add")
    assert node.module == "body.1" and node.line.startswith("user_networks.py:")
    assert node.place == f"body.1 ({node.line})"


def test_one_parameter_under_two_names_is_one() -> None:
    module = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))
    module[2].weight = module[0].weight
    graph = trace(module, torch.zeros(2, 16)).graph
    assert sum(p.name.endswith("weight") for p in graph.parameters) == 1
    assert sum(Value(p.node) in node.inputs for p in graph.parameters for node in graph.nodes if "weight" in p.name) == 2


def test_several_outputs_keep_their_order() -> None:
    module = network("upsampled")
    traced = trace(module, images(2))
    expected = outputs(module(images(2)))
    result = Program.full(traced.graph).run([images(2)], traced.tensors)
    assert [t.shape for t in result] == [t.shape for t in expected]
