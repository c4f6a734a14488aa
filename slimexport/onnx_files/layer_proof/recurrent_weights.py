"""The weights of recurrent layers as ONNX's operators define them: LSTM, GRU and RNN, from opset 14 on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from torch import Tensor

from slimexport.target.arrays import Array
from slimtrain.graph.graph import Node, Value
from slimtrain.graph.recurrence import cell_kind, cells_of, directions_of

# The gates by the letters of ONNX's definitions, in the order in which torch has them and in ONNX's own.
LETTERS = {"lstm": ("ifco", "iofc"), "gru": ("rzh", "zrh"), "rnn_tanh": ("i", "i"), "rnn_relu": ("i", "i")}


def stacked_weights(node: Node, values: Mapping[Value, Tensor]) -> Iterator[tuple[list[Value], Array]]:
    """W, R and B [directions, ...] of every layer of a recurrent node, each with the values of torch's that it holds; a file
    calls it by the first. `values`: what is stored. Nothing for forms that no file has."""
    try:
        cells = cells_of(node)
    except ValueError:
        return
    directions, letters = directions_of(node), LETTERS[cell_kind(node)]
    for first in range(0, len(cells), directions):
        layer = cells[first : first + directions]
        for parts in (
            [(cell.of_input,) for cell in layer],
            [(cell.of_state,) for cell in layer],
            [cell.biases for cell in layer],
        ):
            held = [value for part in parts for value in part]
            if held and all(value in values for value in held):
                yield held, np.stack([np.concatenate([_ordered(values[v], *letters) for v in part]) for part in parts])


def _ordered(tensor: Tensor, given: str, wanted: str) -> Array:
    """Rows of gates that stand in the order `given`, in the order `wanted`."""
    gates = dict(zip(given, np.split(tensor.numpy(), len(given)), strict=True))
    return np.concatenate([gates[letter] for letter in wanted])
