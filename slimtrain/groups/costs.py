"""What a plan costs: multiply-accumulates and parameters, node by node."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from slimtrain.graph.folding import folded_norms
from slimtrain.graph.graph import PARAMETER, Batch, Node, Value, values_of
from slimtrain.graph.recurrence import RECURRENT, recurrent_weights
from slimtrain.graph.sizes import Sizing

Shape = tuple[int, ...]


@dataclass(frozen=True)
class NodeCost:
    """Multiply-accumulates of one node for one image."""

    node: Node
    macs: int


def node_costs(sizing: Sizing) -> list[NodeCost]:
    """Every node that multiplies, in the order in which they run: convolutions, linear layers, products, attention."""
    return [NodeCost(node, MACS[node.kind](sizing, node)) for node in sizing.graph.nodes if node.kind in MACS]


class GraphCost(NamedTuple):
    """A plan's cost for one image, as `slimtrain.costs.cost.Cost` has it."""

    macs: int
    pools: int
    params: int
    activations: int
    layers: int


def graph_cost(sizing: Sizing) -> GraphCost:
    """`params`: what is trained, once batch norms are folded into layers: of a norm's scale and shift the layer's bias stays.
    Norms that stand alone keep both."""
    weighted = node_costs(sizing)
    macs, activations = sum(cost.macs for cost in weighted), sum(_output(sizing, cost.node) for cost in weighted)
    pools = sum(math.prod(_argument(sizing, node, "self", "input")) for node in sizing.graph.nodes if node.kind in AVERAGES)
    trained = sum(math.prod(_shape(sizing, Value(p.node))) for p in sizing.graph.parameters if p.kind == PARAMETER)
    return GraphCost(macs, pools, trained - _less_once_folded(sizing), activations, len(weighted))


def _less_once_folded(sizing: Sizing) -> int:
    """How many trained numbers fewer there are once batch norms are folded: their scales and shifts go, and the biases that
    layers have; each gives a bias."""
    graph, folded = sizing.graph, folded_norms(sizing.graph)
    norms = [node for node in graph.nodes if node.name in folded]
    gone = {value.node for node in norms for name in ("weight", "bias") for value in values_of(node.arguments.get(name))}
    gone -= {value.node for node in graph.nodes if node.name not in folded for value in node.inputs}
    gone |= {value.node for layer in folded.values() for value in values_of(layer.arguments.get("bias"))}
    trained = [Value(p.node) for p in graph.parameters if p.kind == PARAMETER and p.node in gone]
    means = {value for node in norms for value in values_of(node.arguments["running_mean"])}
    return sum(math.prod(_shape(sizing, value)) for value in trained) - sum(math.prod(_shape(sizing, mean)) for mean in means)


def graph_maps(sizing: Sizing) -> tuple[int, int]:
    """Elements of one image's maps that wait for the backward pass, and of the largest map that a weighted layer makes. What
    only looks at another's memory waits for nothing."""
    maps = [node for node in sizing.graph.nodes if node.kind not in VIEWS and node.outputs[0].floating]
    largest = max((_output(sizing, node) for node in maps if node.kind in MACS), default=0)
    return sum(_output(sizing, node) for node in maps), largest


def _shape(sizing: Sizing, value: Value) -> Shape:
    """The shape for one image."""
    return tuple(size.at(1) if isinstance(size, Batch) else size for size in sizing.shape(value))


def _output(sizing: Sizing, node: Node) -> int:
    return math.prod(_shape(sizing, Value(node.name)))


def _argument(sizing: Sizing, node: Node, *names: str) -> Shape:
    value = next(node.arguments[name] for name in names if name in node.arguments)
    assert isinstance(value, Value)
    return _shape(sizing, value)


def _convolution(sizing: Sizing, node: Node) -> int:
    """A weight is read at every place of the output; a transposed one at every place of the input."""
    weight = _argument(sizing, node, "weight")
    if node.arguments.get("transposed") or "transpose" in node.kind:
        return math.prod(_argument(sizing, node, "input")) * math.prod(weight[1:])
    return _output(sizing, node) * math.prod(weight[1:])


def _linear(sizing: Sizing, node: Node) -> int:
    return _output(sizing, node) * _argument(sizing, node, "input")[-1]


def _product(sizing: Sizing, node: Node) -> int:
    return _output(sizing, node) * _argument(sizing, node, "self", "mat1", "batch1")[-1]


def _added_product(sizing: Sizing, node: Node) -> int:
    return _output(sizing, node) * _argument(sizing, node, "mat1", "batch1")[-1]


def _attention(sizing: Sizing, node: Node) -> int:
    """Queries with keys, and scores with values."""
    query, key, value = (_argument(sizing, node, name) for name in ("query", "key", "value"))
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _einsum(sizing: Sizing, node: Node) -> int:
    """Every combination of its letters, once for each product: ellipses count as what they stand for."""
    operands = [_shape(sizing, value) for value in node.inputs]
    terms = str(node.arguments["equation"]).replace(" ", "").partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, operands, strict=True):
        letters: Iterable[str] = term
        if "..." in term:
            count = len(shape) - len(term) + 3
            head, tail = term.split("...")
            letters = [*head, *(f"...{index - count}" for index in range(count)), *tail]
        sizes |= dict(zip(letters, shape, strict=True))
    return math.prod(sizes.values()) * max(len(operands) - 1, 1)


def _bilinear(sizing: Sizing, node: Node) -> int:
    return _output(sizing, node) * math.prod(_argument(sizing, node, "weight")[1:])


def _recurrent(sizing: Sizing, node: Node) -> int:
    """Every weight of every layer and direction, at each step."""
    steps = math.prod(_argument(sizing, node, "input")[:-1])
    return steps * sum(math.prod(_shape(sizing, value)) for value in recurrent_weights(node))


MACS: dict[str, Callable[[Sizing, Node], int]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _convolution),
    **dict.fromkeys(("matmul", "mm", "bmm"), _product),
    **dict.fromkeys(("addmm", "baddbmm"), _added_product),
    "linear": _linear,
    "scaled_dot_product_attention": _attention,
    "einsum": _einsum,
    "bilinear": _bilinear,
    **dict.fromkeys(RECURRENT, _recurrent),
}
AVERAGES = ("avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
VIEWS = frozenset(
    {
        *("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "expand", "expand_as", "permute"),
        *("transpose", "slice", "narrow", "select", "split", "split_with_sizes", "chunk", "unbind", "t", "detach", "alias"),
        *("contiguous", "dropout", "broadcast_to", "movedim", "swapaxes"),
    }
)
