"""An exported file comes back as the dense network it was written from: the same layers, the same logits."""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import fx, nn

from benchmarks.runners.torch.onnx_to_torch import UnsupportedFile, dense_from_onnx
from slimexport.onnx_files.fold import fold_norms
from slimexport.onnx_files.quantize import quantize, quantized_inputs
from slimexport.onnx_files.typed import to_typed
from slimtrain.models.published import PUBLISHED, published_spec
from tests.support.bench_torch_helpers import gap, probes, tiny_network, torch_logits, write_tiny
from tests.support.module_layers import DenseLayers
from tests.support.onnx_writing import module_onnx

IMAGE_SIZE = 64
Layers = list[tuple[str, str, dict[str, Any]]]


def lively(name: str) -> fx.GraphModule:
    """The dense network of a published network's smallest plan, as `materialize` makes it, with ten classes: random weights,
    and the statistics that noise has, folded. Its logits depend on the image."""
    spec = published_spec(name, 10)
    plan = min(spec.plans, key=lambda plan: sum(plan.channels.values()))
    torch.manual_seed(1)
    network = spec.build(DenseLayers(plan))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.constant_(module.bias, 1.0)  # most activations pass: rounding errors then do not grow with depth
    with torch.no_grad():
        network.train()(torch.from_numpy(probes(4, IMAGE_SIZE)))
    return fold_norms(fx.symbolic_trace(network.eval()))


def layers(network: fx.GraphModule) -> Layers:
    """What runs, in order: the layers' names, types and hyper-parameters, and functions with their arguments."""
    listed: Layers = []
    for node in network.graph.nodes:
        if node.op == "call_module":
            module = network.get_submodule(node.target)
            values = {key: value for key, value in vars(module).items() if not key.startswith("_")}
            for key in ("kernel_size", "stride", "padding", "output_size"):
                if isinstance(values.get(key), int):
                    values[key] = (values[key],) * 2
            listed.append((node.target, type(module).__name__, values))
        elif node.op == "call_function" and node.target is not operator.getitem:  # a view: when it is made does not matter
            listed.append(("", node.target.__name__, {"readers": len(node.users)}))
    return listed


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_come_back(name: str, tmp_path: Path) -> None:
    dense, path, images = lively(name), tmp_path / "network.onnx", probes(2, IMAGE_SIZE)
    onnx.save(module_onnx(dense, IMAGE_SIZE), path)
    read = dense_from_onnx(path)
    assert layers(read) == layers(dense)
    assert not any(module.training for module in read.modules())
    assert not any(parameter.requires_grad for parameter in read.parameters())
    logits = torch_logits(read, images)
    assert np.array_equal(logits, torch_logits(dense, images))  # same weights, same order: the very same numbers
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"input": images})[0]
    assert gap(logits, expected) < 1e-5
    assert gap(logits[:1], logits[1:]) > 0.01  # the images are told apart, so a mistake would show


@pytest.mark.parametrize(("precision", "kind", "tolerance"), [("fp16", torch.float16, 2e-3), ("bf16", torch.bfloat16, 2e-2)])
def test_typed_files_keep_their_type(tmp_path: Path, precision: str, kind: torch.dtype, tolerance: float) -> None:
    network = write_tiny(tmp_path, precision=precision)
    read = dense_from_onnx(tmp_path / "tiny.onnx")
    assert {parameter.dtype for parameter in read.parameters()} == {kind}
    logits = torch_logits(read, probes())
    assert logits.dtype == np.float32
    assert 0 < gap(logits, torch_logits(network, probes())) < tolerance
    by_hand = tiny_network().to(kind)
    with torch.inference_mode():
        expected = by_hand(torch.from_numpy(probes()).to(kind)).float().numpy()
    assert np.array_equal(logits, expected)


def test_a_norm_that_nothing_folds(tmp_path: Path) -> None:
    norm = nn.BatchNorm2d(3, eps=1e-3)
    norm.running_mean, norm.running_var = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.5, 3.0, 1.0])
    network = nn.Sequential(norm, nn.ReLU(inplace=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(1)).eval()
    onnx.save(module_onnx(network, 8), tmp_path / "norm.onnx")
    images = probes(2, 8)
    logits = torch_logits(dense_from_onnx(tmp_path / "norm.onnx"), images)
    assert gap(logits, torch_logits(network, images)) < 1e-6


def test_activations_overwrite_only_what_nobody_else_reads(tmp_path: Path) -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu = nn.Conv2d(3, 4, 1), nn.ReLU()
            self.first, self.pool, self.flatten = nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            features = self.conv(x)
            left, right = torch.chunk(features, 2, 1)
            return self.flatten(self.pool(torch.cat([self.relu(features), self.first(left), right], 1)))

    network = Shared().eval()
    onnx.save(module_onnx(network, 8), tmp_path / "shared.onnx")
    read = dense_from_onnx(tmp_path / "shared.onnx")
    assert [module.inplace for module in read.modules() if isinstance(module, nn.ReLU)] == [False, False]
    images = probes(2, 8)
    assert np.array_equal(torch_logits(read, images), torch_logits(network, images))
    alone = dense_from_onnx(_saved(tmp_path, nn.Conv2d(3, 4, 1), nn.ReLU())).get_submodule("1")
    assert isinstance(alone, nn.ReLU) and alone.inplace


def _saved(folder: Path, *modules: nn.Module) -> Path:
    path = folder / "saved.onnx"
    onnx.save(module_onnx(nn.Sequential(*modules, nn.AdaptiveAvgPool2d(1), nn.Flatten(1)), 8), path)
    return path


def graph_of(*nodes: onnx.NodeProto, **tensors: Any) -> onnx.ModelProto:
    """A model of `nodes`, from `input` to `output`."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("input", "output")]
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()]
    return helper.make_model(helper.make_graph(list(nodes), "g", values[:1], values[1:], stored))


def node(kind: str, *more: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, ["input", *more], ["output"], name="it", **attributes)


WEIGHT = np.ones((4, 3, 3, 3), np.float32)
REFUSED: dict[str, tuple[onnx.ModelProto, str]] = {
    "unknown": (graph_of(node("Sigmoid")), "operator Sigmoid has no torch form here. Known are Add, AveragePool"),
    "bounds": (graph_of(node("Clip", "low", "high"), low=np.float32(-1), high=np.float32(1)), r"Clip it with bounds \[-1"),
    "uneven": (
        graph_of(node("Conv", "w", kernel_shape=[3, 3], pads=[0, 0, 1, 1]), w=WEIGHT),
        r"Conv it with .*pads \[0, 0, 1",
    ),
    "dilated": (graph_of(node("Conv", "w", kernel_shape=[3, 3], dilations=[2, 2]), w=WEIGHT), "Conv it with"),
    "ceil": (graph_of(node("MaxPool", kernel_shape=[3, 3], ceil_mode=1)), "MaxPool it with"),
    "not transposed": (graph_of(node("Gemm", "w"), w=np.ones((3, 4), np.float32)), "Gemm it with attributes"),
    "axis of concat": (graph_of(node("Concat", "input", axis=2)), "Concat it with axis 2"),
    "axis of flatten": (graph_of(node("Flatten", axis=2)), "Flatten it with axis 2"),
    "parts": (
        graph_of(helper.make_node("Split", ["input", "s"], ["output", "b"], name="it", axis=1), s=[1, 2]),
        r"parts of \[1, 2\]",
    ),
    "reshape": (graph_of(node("Reshape", "s"), s=np.array([0, -1])), "Reshape it with anything but a channel shuffle"),
    "cast": (graph_of(node("Cast", to=TensorProto.INT64)), "Cast it with type 7"),
    "no weight": (graph_of(node("Conv", "input", kernel_shape=[3, 3])), "operand 'input', which is no weight"),
    "order": (graph_of(helper.make_node("Relu", ["later"], ["output"])), "nothing computes 'later'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_known_is_refused_by_name(case: str, tmp_path: Path) -> None:
    model, message = REFUSED[case]
    path = tmp_path / "odd.onnx"
    onnx.save(model, path)
    with pytest.raises(UnsupportedFile, match=rf"odd\.onnx: .*{message}") as info:
        dense_from_onnx(path)
    assert isinstance(info.value, ValueError) and info.value.exit_code == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda shuffle: shuffle[1].attribute[0].ints.__setitem__(slice(None), [0, 2, 1, 4, 3]),
        lambda shuffle: shuffle[2].input.__setitem__(0, shuffle[0].output[0]),
    ],
    ids=["axes", "chain"],
)
def test_only_a_channel_shuffle_is_taken_for_one(tmp_path: Path, change: Callable[[Any], object]) -> None:
    path = _saved(tmp_path, nn.Conv2d(3, 6, 1), nn.ChannelShuffle(3))
    read = dense_from_onnx(path)
    assert [type(module) for module in read.modules()][2] is nn.ChannelShuffle and read.get_submodule("1").groups == 3
    model = onnx.load(path)
    change([node_ for node_ in model.graph.node if node_.op_type in ("Reshape", "Transpose")])
    onnx.save(model, path)
    with pytest.raises(UnsupportedFile, match=r"Reshape .* with these shapes"):
        dense_from_onnx(path)


def test_int8_files_are_refused_with_the_reason(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(1)).eval()
    model = module_onnx(network, 16, {"precision": "fp32"})
    onnx.save(quantize(model, dict.fromkeys(quantized_inputs(model), 0.1), half=False), tmp_path / "q.onnx")
    with pytest.raises(
        UnsupportedFile, match=r"q\.onnx: is an int8 file \(DequantizeLinear\); torch runs fp32, fp16 and bf16"
    ):
        dense_from_onnx(tmp_path / "q.onnx")


def test_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "cut.onnx").write_bytes(b"\x08\x08\xff\xff\xff")
    with pytest.raises(UnsupportedFile, match=r"cut\.onnx: onnx cannot read it"):
        dense_from_onnx(tmp_path / "cut.onnx")


def test_the_casts_of_a_typed_file_are_at_both_ends(tmp_path: Path) -> None:
    model = to_typed(module_onnx(tiny_network(), 32), "fp16")[0]
    onnx.save(model, tmp_path / "t.onnx")
    nodes = list(dense_from_onnx(tmp_path / "t.onnx").graph.nodes)
    kinds = [(place, node_.args[1]) for place, node_ in enumerate(nodes) if node_.op == "call_method"]
    assert kinds == [(1, torch.float16), (len(nodes) - 2, torch.float32)]
