"""Parts of traced networks as models: valid, runnable, and with what their layers compute, no more."""

from __future__ import annotations

import math
from collections.abc import Hashable
from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from benchmarks.layers.grid import GridEntry, entries
from benchmarks.layers.layer_models import PartModels
from benchmarks.onnx_models.part import maps_of, network_model
from slimtrain.base.image_size import sides
from slimtrain.graph.graph import Value
from slimtrain.groups.costs import graph_cost
from slimtrain.groups.spec import GraphSpec
from slimtrain.tracing.slimmed import make_slimmable
from tests.support.user_networks import NETWORKS, SHAPE, network

COPIES = 2


@cache
def traced(name: str) -> GraphSpec:
    spec = make_slimmable(network(name), torch.zeros(2, *SHAPE), order="none", check=False).spec
    assert isinstance(spec, GraphSpec)
    return spec


def entries_of(name: str) -> list[GridEntry]:
    return entries(traced(name), 16, 3)[2]


def macs_of(content: bytes) -> int:
    """Multiply-accumulates of one image, by the file's own shapes; what only probes other operators' results is left out."""
    model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(content), data_prop=True)
    shapes = {entry.name: numpy_helper.to_array(entry).shape for entry in model.graph.initializer}
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        shapes[value.name] = tuple(dim.dim_value or 1 for dim in dims)  # one image
    total = 0
    for node in model.graph.node:
        if node.op_type == "Conv":
            source, weight, out = (shapes[name] for name in (*node.input[:2], node.output[0]))
            probing = weight[1:] == (1, 1, 1) and weight[0] == source[1] and out[2:] == (1, 1)
            total += 0 if probing else math.prod(out) * math.prod(weight[1:])
        elif node.op_type == "ConvTranspose":
            total += math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])
        elif node.op_type in ("Gemm", "MatMul"):
            total += math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
        elif node.op_type in ("LSTM", "GRU", "RNN"):  # [T, N, I], weights of the input and of the state
            total += shapes[node.input[0]][0] * sum(math.prod(shapes[name]) for name in node.input[1:3])
    return total


@pytest.mark.parametrize("name", NETWORKS)
def test_a_pair_of_models_differs_by_copies_of_the_layer(name: str) -> None:
    for entry in entries_of(name):
        for point in {entry.points[0], entry.points[-1]}:
            size, channels = entry.models.image(*point)
            pair = [entry.models.with_layer(*point, COPIES), entry.models.without_layer(*point, COPIES)]
            if name != "windows":  # whose windows stand in the batch: shape inference does not count them
                assert macs_of(pair[0]) - macs_of(pair[1]) == COPIES * entry.models.macs(*point), (entry.layer, point)
            for content in pair:
                onnx.checker.check_model(content, full_check=True)
                session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
                for batch in (1, 3):
                    images = np.random.default_rng(0).standard_normal((batch, channels, *sides(size)), np.float32)
                    (output,) = session.run(None, {"input": images})
                    assert output.shape[0] == batch and output.ndim == 2 and np.isfinite(output).all()


def test_copies_of_a_layer_without_weights_read_different_tensors() -> None:
    """Of equal ones onnxruntime would compute one."""
    for entry in entries_of("transformer"):
        if entry.layer.kind == "scaled_dot_product_attention":
            model = onnx.load_model_from_string(entry.models.with_layer(*entry.points[-1], COPIES))
            (first, second) = (node for node in model.graph.node if node.op_type == "Softmax")
            assert first.input[0] != second.input[0]
            assert len([node for node in model.graph.node if node.op_type == "Conv"]) == 3 * COPIES
            break
    else:
        pytest.fail("no attention")


def test_points_of_one_base_have_the_same_model_without_the_layer() -> None:
    for name in ("gate", "residual", "transformer"):
        shared = 0
        for entry in entries_of(name):
            models = entry.models
            assert isinstance(models, PartModels)
            by_base: dict[Hashable, bytes] = {}
            for point in entry.points:
                content = models.without_layer(*point, 1)
                assert by_base.setdefault(models.base(*point), content) == content
            shared += len(by_base) < len(entry.points)
        assert shared


@pytest.mark.parametrize("name", ["gate", "concatenation", "transformer", "standardized"])
def test_whole_networks_have_their_macs(name: str) -> None:
    spec = traced(name)
    for width in (0.25, 1.0):
        plan = spec.plan(width)
        content = network_model(spec, plan)
        assert macs_of(content) == graph_cost(spec.sizing(plan)).macs
        assert content == network_model(spec, plan)
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        (output,) = session.run(None, {"input": np.ones((2, *SHAPE), np.float32)})
        assert output.shape == (2, 7) and np.isfinite(output).all()


def test_maps_are_what_convolutions_leave_as_it_is() -> None:
    graph = traced("gate").graph
    maps = maps_of(graph)
    kinds = {node.kind: Value(node.name) in maps for node in graph.nodes}
    assert (
        kinds["conv2d"] and kinds["batch_norm"] and kinds["adaptive_avg_pool2d"] and not kinds["mul"] and not kinds["linear"]
    )
    graph = traced("windows").graph
    assert {node.kind for node in graph.nodes if Value(node.name) in maps_of(graph)} == {"conv2d"}
