"""The proof of a graph's file: a wrong file is not passed, and one that torch itself is far from is measured by that."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from slimexport.onnx_files import graph_proof
from slimexport.onnx_files.graph_proof import proven, relative_error
from slimexport.onnx_files.graph_writer import write_graph
from tests.support.graph_cases import Calls, traced


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()


def test_a_file_with_another_weight_is_not_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*arguments: object) -> onnx.ModelProto:
        model = write_graph(*arguments)  # type: ignore[arg-type]
        weight = next(tensor for tensor in model.graph.initializer if tensor.name == "3.bias")
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) + np.float32(0.01), weight.name))
        return model

    monkeypatch.setattr(graph_proof, "write_graph", damaged)
    result = proven(*traced(network(), (3, 8, 8)))
    assert (result.written, result.checked) == (True, False)
    assert "differs by" in result.reason and min(result.errors.values()) > 1e-3


def test_a_file_that_does_not_load_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*arguments: object) -> onnx.ModelProto:
        model = write_graph(*arguments)  # type: ignore[arg-type]
        model.graph.node[0].op_type = "Convolve"
        return model

    monkeypatch.setattr(graph_proof, "write_graph", damaged)
    result = proven(*traced(network(), (3, 8, 8)))
    assert (result.written, result.checked) == (False, False) and "Convolve" in result.reason


def test_a_network_that_float32_is_too_coarse_for_is_measured_by_torchs_own_error() -> None:
    """The difference of two large sums: float32 leaves three digits of it."""
    sizing, tensors = traced(Calls(lambda x: (x * 1 + 30000) - 30000), (4, 5))
    result = proven(sizing, tensors)
    assert result.checked and result.tolerance > 1e-4, result


def test_shapes_and_what_is_not_finite() -> None:
    one = torch.ones(2, 3)
    assert relative_error(one.numpy(), one) == 0
    assert relative_error(one.numpy()[:1], one) == float("inf")
    assert np.isnan(relative_error(one.numpy() * np.nan, one))
    assert relative_error(one.numpy() * 1.5, one) == 0.5
