"""When a graph's tensors come and go."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimtrain.graph.graph import Value
from slimtrain.graph.order import Order
from slimtrain.groups.groups import find_groups
from slimtrain.tracing.slimmed import trace


class Toy(nn.Module):
    """Channels of `a` are read twice, those of `b` once; two activations may work in place, the others may not."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        first, second = F.relu(a), F.silu(a)  # both read it
        b = F.relu(self.b(first))
        return self.c(F.hardtanh(b + second).flatten(2).mean(2).relu())  # a mean is not made anew for sure


@pytest.fixture(scope="module")
def order() -> Order:
    graph = trace(Toy(), torch.zeros(2, 3, 4, 4)).graph
    return Order(graph, find_groups(graph).dims, frozenset())


def test_what_is_dropped_is_read_no_more_and_nothing_is_forgotten(order: Order) -> None:
    graph = order.graph
    for index, slots in enumerate(order.drops):
        later = {order.slots[value] for values in order.reads[index + 1 :] for value in values}
        later |= {order.slots[value] for value in graph.outputs}
        assert not later & set(slots)
    dropped = [slot for slots in order.drops for slot in slots]
    assert sorted(dropped) == sorted(set(order.slots.values()) - {order.slots[value] for value in graph.outputs})


def test_stored_tensors_are_loaded_once_before_they_are_read(order: Order) -> None:
    loaded = [value for values in order.loads for value in values]
    assert sorted(value.node for value in loaded) == sorted(p.node for p in order.graph.parameters)
    for values, read in zip(order.loads, order.reads, strict=True):
        assert set(values) <= set(read)


def test_in_place_goes_what_nothing_else_reads(order: Order) -> None:
    kinds = [order.graph.by_name[name].kind for name in sorted(order.in_place)]
    assert sorted(kinds) == ["hardtanh", "relu"]
    for name in order.in_place:
        (value,) = order.graph.by_name[name].inputs
        assert sum(value in values for values in order.reads) == 1


def test_what_is_given_out_stays() -> None:
    class Gives(Toy):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            a = self.a(x)
            return a, F.relu(a)

    graph = trace(Gives(), torch.zeros(2, 3, 4, 4)).graph
    assert not Order(graph, find_groups(graph).dims, frozenset()).in_place


def test_plans_first_differ_where_a_group_first_occurs(order: Order) -> None:
    assert [span.begin for span in order.spans[1:]] == [span.end for span in order.spans[:-1]]
    assert order.spans[-1].end == len(order.graph.nodes)
    groups = [group for span in order.spans for group in span.groups]
    assert sorted(groups) == sorted(find_groups(order.graph).sizes)
    for span in order.spans:
        node = order.graph.nodes[span.begin]
        assert not span.groups or any(value in map(Value, order.graph.by_node) for value in node.inputs)
