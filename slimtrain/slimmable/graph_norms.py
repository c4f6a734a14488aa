"""The batch norms of a graph: which of its nodes are some, and what they store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from slimtrain.graph.extents import Dims, Slimmed
from slimtrain.graph.graph import PARAMETER, STATISTIC, Graph, Node, Parameter, Value
from slimtrain.graph.pieces import FIXED, Piece, Pieces

STORED = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class GraphNorm:
    """A batch norm with statistics of its own. `path`: the user's name of it; `stored`: what it stores, by the names of
    `STORED`, as parameters of the graph (weight and bias only where it has them). `momentum`: None averages all batches
    alike."""

    path: str
    dim: Slimmed
    stored: Mapping[str, Parameter]
    eps: float
    momentum: float | None


def graph_norms(graph: Graph, dims: Dims) -> dict[str, GraphNorm]:
    """Node -> norm, for every batch norm that normalizes by running statistics. Norms that share their statistics (one module
    called twice) are one norm under several nodes; norms that share a scale or a shift alone share that."""
    readers: dict[str, set[str]] = {}
    for node in graph.nodes:
        for value in node.inputs:
            readers.setdefault(value.node, set()).add(node.kind)
    for value in graph.outputs:
        readers.setdefault(value.node, set()).add("output")
    norms: dict[str, GraphNorm] = {}
    for node in graph.nodes:
        stored = _stored(graph, node)
        if stored is None or any(readers[parameter.node] != {node.kind} for parameter in stored.values()):
            continue
        mean = stored["running_mean"]
        (extent,) = dims[Value(mean.node)]
        dim = extent if isinstance(extent, Slimmed) else Pieces((Piece(FIXED, 0, _size(mean)),))
        eps, momentum = node.arguments["eps"], node.arguments["momentum"]
        assert isinstance(eps, float | int) and (momentum is None or isinstance(momentum, float | int))
        norms[node.name] = GraphNorm(_path(mean.name), dim, stored, float(eps), momentum)
    return norms


def _path(mean: str) -> str:
    """The module that a norm's statistics are in; of statistics under another name, or in the user's own module, a name of
    ours."""
    place, _, name = mean.rpartition(".")
    return place if place and name == "running_mean" else f"{mean}_norm"


def _stored(graph: Graph, node: Node) -> dict[str, Parameter] | None:
    """What a batch norm reads of its own; None where it is none, or computes what a norm stores."""
    if node.kind != "batch_norm" or node.arguments.get("training"):
        return None
    stored = {}
    for name in STORED:
        value = node.arguments.get(name)
        parameter = graph.by_node.get(value.node) if isinstance(value, Value) else None
        if parameter is not None:
            stored[name] = parameter
        elif value is not None or name in ("running_mean", "running_var"):
            return None
    kinds = {parameter.kind for name, parameter in stored.items() if name.startswith("running")}
    affine = {parameter.kind for name, parameter in stored.items() if not name.startswith("running")}
    return stored if kinds == {STATISTIC} and affine <= {PARAMETER} else None


def _size(parameter: Parameter) -> int:
    (size,) = parameter.type.shape
    assert isinstance(size, int)
    return size
