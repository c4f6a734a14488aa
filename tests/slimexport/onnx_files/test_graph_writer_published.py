"""Files of published networks: opset and IR version, names, metadata, dynamic batch, one file, the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import fx, nn

from slimexport.dense import materialize
from slimtrain.data.noise import noise_images
from tests.support.export_helpers import check_onnx, opened, run_onnx
from tests.support.onnx_writing import plan_onnx

METADATA = {"network": "a", "width": "0.5", "mean": "0.1,0.2,0.3", "precision": "fp32"}
KINDS: tuple[tuple[str, float], ...] = (
    ("s_mobilenet_v1", 0.25),
    ("us_mobilenet_v2", 0.35),
    ("autoslim_mnasnet", 1),
    ("s_shufflenet", 0.5),
    ("autoslim_resnet50", 4),
)


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind[0])
def exported(request: pytest.FixtureRequest, checkpoint_path: Callable[[str], Path]) -> tuple[fx.GraphModule, onnx.ModelProto]:
    """A dense network and its ONNX model at 64 pixels."""
    name, width = request.param
    checkpoint = opened(checkpoint_path(name))
    plan = checkpoint.spec.plan(width)
    return materialize(checkpoint, width), plan_onnx(checkpoint.network, plan, 64, METADATA, "some_name")


Exported = tuple[fx.GraphModule, onnx.ModelProto]


def test_opset_ir_version_and_producer_are_pinned(exported: Exported) -> None:
    model = exported[1]
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    assert model.ir_version == 8
    assert model.producer_name == "slimexport"
    assert model.graph.name == "some_name"
    assert not model.functions and not model.graph.value_info


def test_one_input_and_one_output_with_a_dynamic_batch(exported: Exported) -> None:
    graph = exported[1].graph
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {"input": ["batch", 3, 64, 64], "output": ["batch", 1000]}
    kinds = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    assert kinds == {onnx.TensorProto.FLOAT}


def test_the_checker_and_strict_shape_inference_agree_with_the_declared_output(exported: Exported) -> None:
    model = exported[1]
    check_onnx(model.SerializeToString())
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    bare.graph.output[0].type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(bare, strict_mode=True, data_prop=True)
    dims = [axis.dim_value for axis in inferred.graph.output[0].type.tensor_type.shape.dim]
    assert dims[1:] == [1000]


def test_metadata_is_what_was_given(exported: Exported) -> None:
    assert {entry.key: entry.value for entry in exported[1].metadata_props} == METADATA


def test_weights_carry_the_module_trees_names_and_values(exported: Exported) -> None:
    network, model = exported
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert len(stored) == len(model.graph.initializer)
    state = network.state_dict()
    assert state.keys() <= stored.keys()
    for key, tensor in state.items():
        np.testing.assert_array_equal(stored[key], tensor.numpy())
        assert stored[key].dtype == np.float32
    others = {key: array for key, array in stored.items() if key not in state}
    assert all(array.size <= 5 for array in others.values()), "only small constants beside the weights"
    assert not any(tensor.data_location or tensor.external_data for tensor in model.graph.initializer)


def test_nodes_carry_the_module_trees_names(exported: Exported) -> None:
    network, model = exported
    paths = {path: type(module) for path, module in network.named_modules()}
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    for operator, wanted in {"Conv": nn.Conv2d, "Gemm": nn.Linear}.items():
        expected = {path for path, kind in paths.items() if kind is wanted}
        assert {node.name for node in model.graph.node if node.op_type == operator} == expected
    for node in model.graph.node:
        path = node.name
        while path and path not in paths:  # `features.3.add`, `features.1.a_0.concat` live in the block they are called in
            path = path.rpartition(".")[0]
        assert path or "." not in node.name, node.name
    values = [value for node in model.graph.node for value in node.output]
    assert len(set(values)) == len(values)


def test_every_value_is_used_and_nothing_superfluous_is_written(exported: Exported) -> None:
    graph = exported[1].graph
    used = {value for node in graph.node for value in node.input} | {"output"}
    written = {value for node in graph.node for value in node.output if "split" not in node.name}
    assert written <= used
    assert {tensor.name for tensor in graph.initializer} <= used
    assert {node.op_type for node in graph.node} <= {
        *("Conv", "Clip", "Relu", "Add", "Concat", "Split", "Reshape", "Transpose"),
        *("MaxPool", "AveragePool", "GlobalAveragePool", "Flatten", "Gemm"),
    }


def test_no_path_of_this_machine_is_inside(exported: Exported) -> None:
    bare = onnx.ModelProto()
    bare.CopyFrom(exported[1])
    for tensor in bare.graph.initializer:
        tensor.ClearField("raw_data")
    text = bare.SerializeToString()
    assert b".py" not in text and b"/" not in text
    assert not any(node.doc_string or node.metadata_props for node in bare.graph.node)


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_any_batch_runs_and_each_image_counts_for_itself(exported: Exported, batch: int) -> None:
    network, model = exported
    images = noise_images(7, 64, 2)
    with torch.inference_mode():
        expected = network(torch.from_numpy(images)).numpy()[:batch]
    logits = run_onnx(model.SerializeToString(), images[:batch])
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_writing_twice_gives_the_same_bytes_and_does_not_change_the_network(checkpoint_path: Callable[[str], Path]) -> None:
    network = opened(checkpoint_path("us_mobilenet_v2")).network
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    first, again = (plan_onnx(network, network.spec.plan(0.35), 64, METADATA) for _ in range(2))
    assert first.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)
    assert all(torch.equal(before[key], tensor) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize("size", [32, 33, 50, 97])
@pytest.mark.parametrize(
    "name", ["s_mobilenet_v1", "us_mobilenet_v2", "autoslim_mnasnet", "s_shufflenet", "autoslim_resnet50"]
)
def test_image_sizes_that_do_not_divide_by_32_run_too(checkpoint_path: Callable[[str], Path], name: str, size: int) -> None:
    checkpoint = opened(checkpoint_path(name))
    plan = min(checkpoint.spec.plans, key=lambda plan: sum(plan.channels.values()))
    network = materialize(checkpoint, plan.width)
    images = noise_images(1, size, 3)
    with torch.inference_mode():
        expected = network(torch.from_numpy(images)).numpy()
    content = plan_onnx(checkpoint.network, plan, size).SerializeToString()
    check_onnx(content)
    logits = run_onnx(content, images)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=5e-5 * np.abs(expected).max())
