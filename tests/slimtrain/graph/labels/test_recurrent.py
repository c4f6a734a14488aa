"""Which positions of recurrent layers go together, and what keeps them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slimtrain.graph.graph import Value
from slimtrain.graph.labels.recurrent import STATE
from slimtrain.graph.recurrence import cells_of, recurrent_weights
from slimtrain.groups.groups import Groups, find_groups
from slimtrain.slimmable.program import check_operators
from slimtrain.tracing.reading import Traced
from slimtrain.tracing.slimmed import trace

IMAGES = torch.zeros(2, 5, 8)  # [N, T, I]


class Reads(nn.Module):
    """A linear layer, a recurrent one of 12, and what reads it."""

    def __init__(self, layer: nn.RNNBase, outputs: int = 12, begun: str = "") -> None:
        super().__init__()
        self.first, self.layer, self.head, self.begun = nn.Linear(8, 6), layer, nn.Linear(outputs, 4), begun
        if begun == "learned":
            self.state = nn.Parameter(torch.randn(1, 1, 12))

    def forward(self, x: Tensor) -> Tensor:
        state = None
        if self.begun == "learned":
            state = self.state.expand(-1, len(x), -1).contiguous()
        elif self.begun == "given":
            state = x.flatten(1)[:, :12][None].contiguous()
        elif self.begun == "zeros, read elsewhere":
            state = x.new_zeros(1, len(x), 12)
            return self.head(self.layer(self.first(x), state)[0]) + state.mean()
        return self.head(self.layer(self.first(x), state)[0])


def found_in(module: nn.Module) -> tuple[Traced, Groups]:
    traced = trace(module.eval(), IMAGES)
    return traced, find_groups(traced.graph)


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_a_position_of_the_state_has_a_row_in_every_gate_of_every_direction_and_layer(
    kind: Callable[..., nn.RNNBase], gates: int
) -> None:
    _, groups = found_in(Reads(kind(6, 12, 2, batch_first=True, bidirectional=True), 24))
    assert groups.sizes == {"first": 6, "layer": 12}
    (state,) = (group for group in groups.groups if group.name == "layer")
    places = {(name, dim): positions for name, dim, positions in state.dims}
    ends = [f"l{layer}{end}" for layer in (0, 1) for end in ("", "_reverse")]
    assert places == {
        **{(f"layer.{name}_{end}", 0): gates for end in ends for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")},
        **{(f"layer.weight_hh_{end}", 1): 1 for end in ends},
        **{(f"layer.weight_ih_l1{end}", 1): 2 for end in ("", "_reverse")},  # both directions of the layer before
        ("head.weight", 1): 2,
    }


def test_a_state_that_is_learned_goes_along_and_one_that_images_give_stays() -> None:
    _, learned = found_in(Reads(nn.GRU(6, 12, batch_first=True), begun="learned"))
    (state,) = (group for group in learned.groups if group.name == "layer")
    assert ("state", 2, 1) in state.dims
    _, given = found_in(Reads(nn.GRU(6, 12, batch_first=True), begun="given"))
    assert given.sizes == {"first": 6}
    assert {row.reason for row in given.pinned if row.parameter == "layer.weight_hh_l0"} == {STATE}


def test_zeros_to_begin_with_are_as_wide_as_the_state() -> None:
    traced, groups = found_in(Reads(nn.GRU(6, 12, batch_first=True), begun="zeros, read elsewhere"))
    (zeros,) = (Value(node.name) for node in traced.graph.nodes if "zeros" in node.kind)
    (layer,) = (node for node in traced.graph.nodes if node.kind == "gru")
    assert groups.dims[zeros][2] == groups.dims[cells_of(layer)[0].of_state][1] != 12


def test_a_projected_state_is_kept_whole_and_its_weights_are_counted() -> None:
    traced, groups = found_in(Reads(nn.LSTM(6, 12, batch_first=True, proj_size=5), 5))
    assert groups.sizes == {}
    assert "layer.weight_hh_l0" in {row.parameter for row in groups.pinned if row.op == "lstm.input"}
    (layer,) = (node for node in traced.graph.nodes if node.kind == "lstm")
    with pytest.raises(ValueError, match=r"lstm\.input with 5 parameters"):
        cells_of(layer)
    names = {Value(parameter.node): parameter.name for parameter in traced.graph.parameters}
    ends = ("ih", "hh", "hr")
    assert [names[value] for value in recurrent_weights(layer)] == [f"layer.weight_{end}_l0" for end in ends]


def test_one_bias_alone_is_kept_whole() -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = nn.ParameterList(nn.Parameter(torch.randn(shape)) for shape in ((36, 8), (36, 12), (36,)))

        def forward(self, x: Tensor) -> Tensor:
            return torch.gru_cell(x[:, 0], x.new_zeros(len(x), 12), *self.weights)

    traced, groups = found_in(One())
    (step,) = (node for node in traced.graph.nodes if node.kind == "gru_cell")
    assert groups.sizes == {}
    with pytest.raises(ValueError, match="gru_cell with one bias"):
        cells_of(step)


@pytest.mark.parametrize(
    "changes", [{"num_layers": True}, {"num_layers": "2"}, {"bidirectional": 1}, {"has_biases": None}, {"batch_first": "no"}]
)
def test_a_graph_that_does_not_say_its_layers_is_refused(changes: dict[str, Any]) -> None:
    traced, _ = found_in(Reads(nn.GRU(6, 12, batch_first=True)))
    nodes = tuple(replace(n, arguments={**n.arguments, **(changes if n.kind == "gru" else {})}) for n in traced.graph.nodes)
    check_operators(traced.graph)
    with pytest.raises(ValueError, match=r"gru\.input does not say"):
        check_operators(replace(traced.graph, nodes=nodes))
