"""Graphs as lists and numbers, and back; what is no graph is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from slimtrain.graph.graph import Graph
from slimtrain.graph.plain import from_plain, to_plain
from slimtrain.tracing.slimmed import trace
from tests.support.user_networks import NETWORKS, images, network


@pytest.fixture(scope="module")
def windows() -> Graph:
    return trace(network("windows"), images(2)).graph


@pytest.mark.parametrize("name", NETWORKS)
def test_a_graph_comes_back(name: str) -> None:
    graph = trace(network(name), images(2)).graph
    again = from_plain(json.loads(json.dumps(to_plain(graph))), graph.constants)
    assert again == graph


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
    return change


DAMAGE = {
    "no nodes": edit(lambda c: c.pop("nodes")),
    "read before it is there": edit(lambda c: c["nodes"].reverse()),
    "a name twice": edit(lambda c: c["nodes"].append(copy.deepcopy(c["nodes"][-1]))),
    "an unknown argument": edit(lambda c: c["nodes"][0][2].update(x={"file": "/etc/passwd"})),
    "an object": edit(lambda c: c["nodes"][0][2].update(x=object())),
    "a negative size": edit(lambda c: c["nodes"][0][3][0][0].append(-4)),
    "an output that is not there": edit(lambda c: c["outputs"].append(["nothing", 0])),
    "an unknown kind": edit(lambda c: c["parameters"][0].__setitem__(3, "magic")),
    "no text": edit(lambda c: c["nodes"][0].__setitem__(1, 5)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_no_graph_is_refused(damage: str, windows: Graph) -> None:
    content = json.loads(json.dumps(to_plain(windows)))
    DAMAGE[damage](content)
    with pytest.raises((ValueError, KeyError, TypeError)):
        from_plain(content, windows.constants)


def test_a_constant_of_another_shape_is_refused(windows: Graph) -> None:
    name = next(iter(windows.constants))
    with pytest.raises(ValueError, match=name):
        from_plain(to_plain(windows), {**windows.constants, name: np.zeros((1, 2, 3))})
