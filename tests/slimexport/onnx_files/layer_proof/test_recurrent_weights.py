"""Every number of a recurrent layer is where ONNX's definition has it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from slimexport.onnx_files.graph_writer import write_graph
from slimexport.onnx_files.layer_proof.exact_weights import wrong_weight
from tests.support.graph_cases import randomized, traced
from tests.support.stored_tensors import changed


class Two(nn.Module):
    """Two layers in both directions, and a cell."""

    def __init__(self, layer: Callable[..., nn.RNNBase], cell: nn.RNNCellBase) -> None:
        super().__init__()
        self.layer, self.cell = layer(7, 4, 2, batch_first=True, bidirectional=True), cell

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = self.cell(self.layer(x)[0][:, -1])
        return state[0] if isinstance(state, tuple) else state


@pytest.mark.parametrize(
    ("layer", "cell", "gates"), [(nn.LSTM, nn.LSTMCell(8, 4), 4), (nn.GRU, nn.GRUCell(8, 4), 3), (nn.RNN, nn.RNNCell(8, 4), 1)]
)
@pytest.mark.parametrize("share", [1, 0.5])
def test_a_flipped_bit_or_exchanged_gates_are_seen(
    layer: Callable[..., nn.RNNBase], cell: nn.RNNCellBase, gates: int, share: float
) -> None:
    sizing, tensors = traced(randomized(Two(layer, cell)), (5, 7), share)
    model = write_graph(sizing, tensors)
    assert wrong_weight(model, sizing, tensors) == ""
    names = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer if not tensor.name.startswith("constant.")}
    assert len(names) == 9 and sum(dims[0] == 2 for dims in names.values()) == 6
    for name, dims in names.items():
        for place in (0, -1):

            def little(flat: np.ndarray, place: int = place) -> None:
                flat[place] += np.float32(1e-5) * (np.abs(flat[place]) + 1)

            assert wrong_weight(changed(model, name, little), sizing, tensors), name

        def turned(flat: np.ndarray, dims: list[int] = dims) -> None:
            rows = flat.reshape(dims[0], gates * (2 if len(dims) == 2 else 1), -1)  # biases are of the input, then the state
            rows[:] = np.roll(rows, 1, axis=1)

        if gates > 1 or len(dims) == 2:
            assert wrong_weight(changed(model, name, turned), sizing, tensors), name


def test_directions_are_told_apart() -> None:
    sizing, tensors = traced(randomized(Two(nn.GRU, nn.GRUCell(8, 4))), (5, 7))
    model: onnx.ModelProto = write_graph(sizing, tensors)

    def exchanged(flat: np.ndarray) -> None:
        both = flat.reshape(2, -1)
        both[:] = both[::-1].copy()

    assert wrong_weight(changed(model, "layer.weight_hh_l1", exchanged), sizing, tensors)
