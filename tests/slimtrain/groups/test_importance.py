"""The order of channels: important ones first, and nothing that a network computes changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slimtrain.graph.pieces import Piece, Pieces
from slimtrain.groups.groups import find_groups
from slimtrain.groups.importance import permutation, slot_orders
from slimtrain.slimmable.program import Program
from slimtrain.tracing.slimmed import ordered, trace
from tests.support.user_networks import NETWORKS, images, network


def test_a_channel_is_as_important_as_what_reads_it() -> None:
    """By the definition: the sum of absolute weights that read channel i, in a network of two convolutions."""
    traced = trace(network("plain"), images(2))
    arrays = {name: tensor.double().numpy() for name, tensor in traced.tensors.items()}
    groups = find_groups(traced.graph)
    orders = slot_orders(traced.graph, groups, arrays, "l1")
    scores = np.abs(arrays["body.1.0.weight"]).sum((0, 2, 3))
    assert orders["body.0.0"].tolist() == np.argsort(-scores).tolist()
    squares = (arrays["head.weight"] ** 2).sum(0)
    assert slot_orders(traced.graph, groups, arrays, "l2")["body.1.0"].tolist() == np.argsort(-squares).tolist()
    assert slot_orders(traced.graph, groups, arrays, "none") == {}


def test_heads_move_as_wholes() -> None:
    extent = Pieces((Piece("g", 0, 3, 2), Piece("", 0, 1), Piece("g", 0, 3, 1)))
    assert permutation(extent, {"g": np.array([2, 0, 1])}).tolist() == [4, 5, 0, 1, 2, 3, 6, 9, 7, 8]  # type: ignore[union-attr]
    assert permutation(extent, {"other": np.array([1, 0])}) is None


@pytest.mark.parametrize("name", NETWORKS)
def test_an_ordered_network_is_the_same_network(name: str) -> None:
    traced = trace(network(name), images(2))
    tensors = {key: t.double() if t.is_floating_point() else t for key, t in traced.tensors.items()}
    x, groups = images(2, dtype=torch.float64), find_groups(traced.graph)
    sorted_ = ordered(traced.graph, groups, tensors, "l1")
    assert any(not torch.equal(sorted_[key], tensors[key]) for key in tensors)
    program = Program.full(traced.graph, torch.float64)
    for result, expected in zip(program.run([x], sorted_), program.run([x], tensors), strict=True):
        assert float((result - expected).abs().max() / expected.abs().max()) < 1e-12
