"""Recurrent layers as ATen's operators take them: whole sequences (`lstm.input`), and single steps of them (`lstm_cell`).

One node of a sequence holds all layers and directions of a user's `nn.LSTM`, `nn.GRU` or `nn.RNN`. Its `params` are, for every
layer one direction after the other, the weights of the input [gates * H, I] and of the state [gates * H, H], and the biases of
both [gates * H] where there are some; the gates stand one below the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from slimtrain.graph.graph import Argument, Node, Value, values_of

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
STEPS = {f"{kind}_cell": kind for kind in GATES}  # operators of one step, and of what
RECURRENT = (*GATES, *STEPS)
ZEROS = ("zeros", "new_zeros")  # what makes the state that torch begins with where none is given


@dataclass(frozen=True)
class Cell:
    """One direction of one layer. `biases`: of the input and of the state, or none."""

    layer: int
    direction: int
    of_input: Value
    of_state: Value
    biases: tuple[Value, ...]


def cell_kind(node: Node) -> str:
    """What its cells are: a key of GATES."""
    return STEPS.get(node.kind, node.kind)


def check_recurrent(node: Node) -> None:
    """ValueError for a recurrent node without what is asked of it here: a graph may be a stranger's."""
    counted = type(node.arguments.get("num_layers")) is int
    said = all(type(node.arguments.get(name)) is bool for name in ("has_biases", "bidirectional", "batch_first"))
    if node.kind in GATES and node.op.endswith(".input") and not (counted and said):
        raise ValueError(f"{node.name}: {node.op} does not say its layers, directions and biases")


def cells_of(node: Node) -> list[Cell]:
    """The cells of a recurrent node, in their order. ValueError for forms that are not known here: of packed sequences, of
    states that are projected, of one bias alone."""
    arguments = node.arguments
    if node.kind in STEPS:
        (of_input, of_state), biases = recurrent_weights(node), _values(arguments.get(name) for name in ("b_ih", "b_hh"))
        if len(biases) == 1:
            raise ValueError(f"{node.op} with one bias is not known here")
        return [Cell(0, 0, of_input, of_state, tuple(biases))]
    directions, layers, params = directions_of(node), arguments.get("num_layers"), _values([arguments.get("params")])
    per_cell = 2 + 2 * bool(arguments.get("has_biases"))
    if not node.op.endswith(".input") or not isinstance(layers, int) or len(params) != per_cell * directions * layers:
        raise ValueError(f"{node.op} with {len(params)} parameters is not known here")
    cells = []
    for number in range(layers * directions):
        of_input, of_state, *biases = params[number * per_cell : (number + 1) * per_cell]
        cells.append(Cell(*divmod(number, directions), of_input, of_state, tuple(biases)))
    return cells


def _values(arguments: Iterator[Argument] | list[Argument]) -> list[Value]:
    return [value for argument in arguments for value in values_of(argument)]


def recurrent_weights(node: Node) -> list[Value]:
    """The matrices of a recurrent node, in whatever form; nothing of others."""
    if node.kind in STEPS:
        return _values(node.arguments.get(name) for name in ("w_ih", "w_hh"))
    if node.kind not in GATES:
        return []
    layers, params = node.arguments.get("num_layers"), _values([node.arguments.get("params")])
    per_cell = max(1, len(params) // max(1, directions_of(node) * (layers if isinstance(layers, int) else 1)))
    biased = bool(node.arguments.get("has_biases"))
    return [value for number, value in enumerate(params) if not biased or number % per_cell not in (2, 3)]


def directions_of(node: Node) -> int:
    return 2 if node.arguments.get("bidirectional") else 1


def time_dim(node: Node) -> int:
    """The dimension of its input, [T, N, I] or [N, T, I], along which a sequence runs."""
    return 1 if node.arguments.get("batch_first") else 0
