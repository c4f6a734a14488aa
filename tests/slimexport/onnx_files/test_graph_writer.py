"""ONNX files of traced networks: what they are called inside, that they are the same each time, and what is refused how."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from slimexport.dense import dense_network
from slimexport.onnx_files.graph_proof import largest_errors, proven
from slimexport.onnx_files.graph_writer import TooLarge, write_graph
from slimexport.onnx_files.operators.registry import NoOnnxForm
from slimtrain.base.errors import UserError
from slimtrain.checkpoints.untrained import untrained_network
from slimtrain.graph.policy import Policy
from tests.support.graph_cases import Calls, randomized, traced
from tests.support.onnx_writing import plan_onnx

SIZE = (3, 32, 32)


class Block(nn.Module):
    """A residual, a gate, a concatenation, a split, and attention."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.expand = nn.Sequential(nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16), nn.GELU())
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 4, 1), nn.ReLU(), nn.Conv2d(4, 16, 1), nn.Hardsigmoid()
        )
        self.project = nn.Conv2d(16, 8, 1)
        self.norm = nn.LayerNorm(16)
        self.position = nn.Parameter(torch.randn(1, 65, 16) * 0.1)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.qkv = nn.Linear(16, 48)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        y = self.expand(x)
        x = x + self.project(y * self.gate(y))
        x = torch.cat([x, x.flip(1)], 1)
        first, second = nn.functional.max_pool2d(x, 2).chunk(2, 1)
        x = torch.cat([first * second, first + second], 1).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        q, k, v = self.qkv(self.norm(x)).reshape(-1, 65, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        logits: Tensor = self.head(self.drop(x)[:, 0])
        return logits


@pytest.fixture(scope="module")
def block() -> nn.Module:
    torch.manual_seed(0)
    return Block().eval()


@pytest.mark.parametrize("share", [1, 0.5])
def test_it_computes_what_the_graph_does_at_a_plan(block: nn.Module, share: float) -> None:
    result = proven(*traced(block, SIZE, share))
    assert (result.written, result.checked, result.reason) == (True, True, "")
    assert set(result.errors) == {1, 3} and max(result.errors.values()) < 1e-5
    assert result.nodes > 40 and result.size_bytes > 5_000 and result.seconds > 0


def test_the_file_is_as_runtimes_read_it(block: nn.Module) -> None:
    model = write_graph(*traced(block, SIZE, 0.5), name="mine", metadata={"network": "mine"})
    assert ([(o.domain, o.version) for o in model.opset_import], model.ir_version) == ([("", 17)], 8)
    assert model.producer_name == "slimexport" and model.graph.name == "mine"
    assert {entry.key: entry.value for entry in model.metadata_props} == {"network": "mine"}
    for value, name, dims in (
        (model.graph.input[0], "input", ["batch", 3, 32, 32]),
        (model.graph.output[0], "output", ["batch", 10]),
    ):
        assert value.name == name
        assert [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] == dims
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names) and all(names)
    assert {"stem.0", "stem.2", "gate.1", "qkv", "head"} <= set(names)
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    assert weights["stem.0.weight"] == (4, 3, 3, 3) and weights["stem.0.bias"] == (4,)  # the norm's shift
    assert not any("stem.1" in name for name in weights)
    read = {name for node in model.graph.node for name in node.input}
    assert set(weights) <= read


def test_the_same_bytes_each_time_and_no_path_of_the_machine(block: nn.Module) -> None:
    first, second = (write_graph(*traced(block, SIZE, 0.5)).SerializeToString() for _ in range(2))
    assert first == second
    for part in (b"/work", b"/home", b"/usr", b".py", b"site-packages", b"torch"):
        assert part not in first


@pytest.mark.parametrize("name", ["us_mobilenet_v1", "s_shufflenet", "autoslim_mnasnet"])
def test_a_published_network_gives_the_file_that_its_traced_module_gives(name: str) -> None:
    """The table's graph and the traced one: the same operators on the same names, the same weights."""
    network = untrained_network(name)
    plan = network.spec.plans[0]
    model = plan_onnx(network, plan, 64)
    expected = write_graph(*traced(dense_network(network, plan, fold=False), (3, 64, 64)))
    assert [node.op_type for node in model.graph.node] == [node.op_type for node in expected.graph.node]
    for node, other in zip(model.graph.node, expected.graph.node, strict=True):
        if other.op_type in ("Conv", "Gemm", "Relu", "MaxPool"):
            assert node.name == other.name
    weights, expected_weights = (
        {t.name: numpy_helper.to_array(t) for t in m.graph.initializer if t.name.endswith((".weight", ".bias"))}
        for m in (model, expected)
    )
    assert weights.keys() == expected_weights.keys()
    for key, value in weights.items():
        np.testing.assert_array_equal(value, expected_weights[key])


def test_several_outputs_and_inputs_that_go_out() -> None:
    sizing, tensors = traced(Calls(lambda x, w: (x * 2, x, w, (x * 3).sum(1)), (4,)), (4, 5))
    model = write_graph(sizing, tensors)
    assert [value.name for value in model.graph.output] == ["output_0", "output_1", "output_2", "output_3"]
    onnx.checker.check_model(model, full_check=True)
    assert max(largest_errors(model, sizing, tensors).values()) < 1e-6


def test_a_result_that_is_given_out_twice() -> None:
    sizing, tensors = traced(Calls(lambda x: (y := x * 2, y, y + 1)), (4, 5))
    model = write_graph(sizing, tensors)
    assert max(largest_errors(model, sizing, tensors).values()) < 1e-6


def test_grouped_convolutions_and_shuffles_at_a_plan() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 12, 1), nn.ReLU(), nn.Conv2d(12, 12, 3, groups=4), nn.BatchNorm2d(12), nn.ChannelShuffle(2)
    )
    for policy in (Policy(), Policy(conv_groups="inner")):
        sizing, tensors = traced(randomized(network), (3, 8, 8), 0.5, policy)
        assert max(largest_errors(write_graph(sizing, tensors), sizing, tensors).values()) < 1e-5


class Inner(nn.Module):
    def __init__(self, function: object) -> None:
        super().__init__()
        self.inner = Calls(function)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.inner(x)
        return result


@pytest.mark.parametrize(
    ("function", "operator", "words"),
    [
        (lambda x: x.sort(1).values, "sort", "orders values"),
        (lambda x: x.topk(2, 1).values, "topk", "orders values"),
        (lambda x: torch.fft.rfft2(x).real, "fft_rfft2", "Fourier"),
        (lambda x: x.erfinv(), "erfinv", "has no ONNX form here"),
        (lambda x: x[1:], "slice.Tensor", "some images of a batch"),
        (lambda x: x.flip(0), "flip", "turns around the dimension of the images"),
        (lambda x: x.roll(1, 0), "roll", "rolls the dimension of the images"),
        (lambda x: x[0], "select.int", "one position of the dimension of the images"),
        (lambda x: x.half(), "to.dtype", "computes in float16"),
        (lambda x: nn.functional.batch_norm(x, None, None, training=True), "batch_norm", "statistics of the batch"),
        (
            lambda x: nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=0.5),
            "scaled_dot_product_attention",
            "drops",
        ),
        (
            lambda x: nn.functional.max_pool2d(x, 2, return_indices=True)[1],
            "max_pool2d_with_indices",
            "gives positions",
        ),
        (lambda x: x.argmax(), "argmax", "positions over all images"),
        (lambda x: x * x.shape[0], "mul.Tensor", "number of images"),
        (lambda x: x.roll(3), "roll", "all positions in one line"),
        (lambda x: (x * 4).long() & 3, "__and__.Scalar", "no form before opset 18"),
    ],
)
def test_what_has_no_form_is_refused_by_its_place(function: object, operator: str, words: str) -> None:
    sizing, tensors = traced(Inner(function), (4, 6, 6))
    with pytest.raises(NoOnnxForm) as refused:
        write_graph(sizing, tensors)
    message = str(refused.value)
    assert message.startswith("inner (") and ".py:" in message and operator in message and words in message
    assert isinstance(refused.value, UserError) and refused.value.exit_code == 2
    result = proven(sizing, tensors)
    assert (result.written, result.checked, result.reason) == (False, False, message)


class Projected(nn.Module):
    """A recurrent layer whose state is projected (arXiv 1402.1128)."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.LSTM(6, 8, batch_first=True, proj_size=3)

    def forward(self, x: Tensor) -> Tensor:
        read: Tensor = self.rows(x.flatten(1, 2))[0]
        return read


def test_a_recurrent_layer_that_onnx_does_not_have_is_refused_by_its_name() -> None:
    for module, words in (
        (Projected(), r"rows \(.*lstm\.input projects its state"),
        (Calls(lambda x, w, v, b: torch.gru_cell(x[:, 0, 0], x[:, 0, 0], w, v, b), (18, 6), (18, 6), (18,)), "one bias alone"),
        (Calls(lambda x: nn.functional.pairwise_distance(x, x * 2, 0)), r"pairwise_distance counts how many differ"),
    ):
        with pytest.raises(NoOnnxForm, match=words):
            write_graph(*traced(randomized(module), (4, 6, 6)))


def test_weights_beyond_one_file_are_refused(block: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slimexport.onnx_files.graph_writer.LARGEST_BYTES", 1000)
    with pytest.raises(TooLarge, match="narrower widths"):
        write_graph(*traced(block, SIZE))
