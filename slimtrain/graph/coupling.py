"""Whether a graph computes images with each other, so that one alone does not show all that it does."""

from __future__ import annotations

from collections.abc import Sequence

from slimtrain.graph.graph import Batch, Graph, Node
from slimtrain.graph.recurrence import GATES, time_dim

WHOLE = 2**63 - 1  # the end of a slice that ends where its dimension does
REARRANGING = ("permute", "unsqueeze", "squeeze", "view", "reshape", "_unsafe_view", "unflatten", "flatten")  # dimensions only
SEQUENCES = 3  # dimensions of several: [T, N, I]
OVER_THE_LAST = ("layer_norm", "rms_norm")
OVER_ALL_BUT_THE_FIRST = ("group_norm", "conv", "max_pool", "avg_pool", "adaptive", "upsample")  # beginnings of names


def couples_images(graph: Graph) -> bool:
    """Whether a node may compute something of several images: it goes along the dimension that counts them, or that dimension
    comes or goes. It is said of a node rather too often: that costs no more than a second image."""
    return any(_couples(graph, node) for node in graph.nodes)


def _couples(graph: Graph, node: Node) -> bool:
    counted = [_counting(graph.types[value].shape) for value in node.inputs]
    if node.kind in REARRANGING or not any(map(any, counted)):
        return False
    before = max(map(sum, counted))
    if any(sum(_counting(type_.shape)) != before for type_ in node.outputs):
        return True
    first = next(dims for dims in counted if any(dims))
    return any(first[dim] for dim in _along(node, len(first))) or _attends(node, counted) or _recurs(node, first)


def _counting(shape: Sequence[object]) -> list[bool]:
    """Which dimensions count images."""
    return [isinstance(size, Batch) for size in shape]


def _along(node: Node, rank: int) -> list[int]:
    """The dimensions of its input along which a node computes."""
    if node.kind == "batch_norm":
        return [*range(rank)] if node.arguments.get("training") else []
    if node.kind in OVER_THE_LAST:
        normalized = node.arguments["normalized_shape"]
        assert isinstance(normalized, tuple)
        return [*range(rank - len(normalized), rank)]
    if node.kind.startswith(OVER_ALL_BUT_THE_FIRST):
        return [*range(1, rank)]
    if node.kind == "index" or (node.kind == "roll" and not node.arguments.get("dims")):
        return [*range(rank)]
    if node.kind == "slice" and not node.arguments.get("start") and node.arguments.get("end") in (None, WHOLE):
        return []
    dims = node.arguments.get("dim", node.arguments.get("dims"))
    return [dim for dim in (dims if isinstance(dims, tuple) else (dims,)) if isinstance(dim, int) and -rank <= dim < rank]


def _attends(node: Node, counted: Sequence[Sequence[bool]]) -> bool:
    """Whether the tokens of an attention, or their numbers, are images."""
    return node.kind == "scaled_dot_product_attention" and any(any(dims[-2:]) for dims in counted)


def _recurs(node: Node, counted: Sequence[bool]) -> bool:
    """Whether the steps of a recurrent layer are images: the dimension along which it runs, or the rows of one sequence."""
    return node.kind in GATES and counted[time_dim(node) if len(counted) == SEQUENCES else 0]
