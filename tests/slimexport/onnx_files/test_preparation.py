"""What is computed before a graph is written: constants, and batch norms within the layers before them, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from slimexport.onnx_files.graph_proof import largest_errors
from slimexport.onnx_files.graph_writer import write_graph
from tests.support.graph_cases import Calls, randomized, traced


def written(module: nn.Module, shape: tuple[int, ...]) -> tuple[list[str], dict[str, np.ndarray]]:
    """The operators and weights of a module's file, which computes what it does."""
    sizing, tensors = traced(module.eval(), shape)
    model = write_graph(
        sizing, {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    )
    assert max(largest_errors(model, sizing, tensors).values()) < 3e-6
    return [node.op_type for node in model.graph.node], {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


FOLDED = {
    "convolution": (nn.Sequential(nn.Conv2d(6, 8, 3, groups=2), nn.BatchNorm2d(8)), (6, 5, 5), ["Conv"]),
    "without a bias": (nn.Sequential(nn.Conv2d(6, 8, 3, bias=False), nn.BatchNorm2d(8, 1e-2)), (6, 5, 5), ["Conv"]),
    "without a scale": (nn.Sequential(nn.Conv1d(6, 8, 3), nn.BatchNorm1d(8, affine=False)), (6, 5), ["Conv"]),
    "transposed": (nn.Sequential(nn.ConvTranspose2d(6, 4, 3, groups=2), nn.BatchNorm2d(4)), (6, 5, 5), ["ConvTranspose"]),
    "linear": (nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8)), (6,), ["Gemm"]),
}


@pytest.mark.parametrize("name", FOLDED)
def test_a_norm_becomes_part_of_the_layer_before_it(name: str) -> None:
    network, shape, operators = FOLDED[name]
    kinds, weights = written(randomized(network), shape)
    assert kinds == operators and set(weights) == {"0.weight", "0.bias"}


def test_it_is_folded_in_float64() -> None:
    """The weights are the float64 ones, rounded once."""
    convolution, norm = nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8)
    network = randomized(nn.Sequential(convolution, norm)).double()
    assert norm.running_var is not None and norm.running_mean is not None and convolution.bias is not None
    with torch.no_grad():
        factor = norm.weight / (norm.running_var + norm.eps).sqrt()
        weight = (convolution.weight * factor[:, None, None, None]).float()
        bias = ((convolution.bias - norm.running_mean) * factor + norm.bias).float()
    _, weights = written(network.float(), (6, 5, 5))
    np.testing.assert_array_equal(weights["0.weight"], weight.numpy())
    np.testing.assert_array_equal(weights["0.bias"], bias.numpy())


def test_a_norm_after_a_flattened_linear_layer_is_folded() -> None:
    """As in LeViT: [N, L, C] as [N L, C] and back."""
    linear, norm = nn.Linear(6, 8, bias=False), randomized(nn.BatchNorm1d(8))

    class Flattened(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = linear, norm

        def forward(self, x: Tensor) -> Tensor:
            x = self.linear(x)
            y: Tensor = self.norm(x.flatten(0, 1)).reshape_as(x)
            return y

    kinds, _ = written(Flattened(), (5, 6))
    assert "BatchNormalization" not in kinds and kinds.count("MatMul") == kinds.count("Add") == 1


class Shared(nn.Module):
    """A convolution whose result somebody else reads too, and a convolution that runs twice, with two norms."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first, self.second = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.again = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y = y + self.first(y)
        z: Tensor = self.first(self.again(y)) + self.second(self.again(y * 2))
        return z


def test_a_norm_stays_where_others_read_its_layer_and_shared_weights_are_folded_by_themselves() -> None:
    kinds, weights = written(randomized(Shared()), (4, 3, 3))
    assert kinds.count("BatchNormalization") == 1 and kinds.count("Conv") == 3
    assert {"again.weight", "again.weight_1", "again.bias", "again.bias_1"} <= set(weights)


def test_a_norm_over_another_dimension_than_the_linear_layers_outputs_stays() -> None:
    kinds, _ = written(randomized(nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(5))), (5, 6))
    assert kinds == ["MatMul", "Add", "BatchNormalization"]


class Standardized(nn.Module):
    """Weights that are standardized in each pass, a bias table that is looked up, a table of positions that is resized."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 6, 3, 3))
        self.table = nn.Parameter(torch.randn(9, 8))
        self.register_buffer("numbers", torch.arange(25).reshape(5, 5) % 9)
        self.positions = nn.Parameter(torch.randn(1, 8, 2, 2))
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / weight.std((1, 2, 3), keepdim=True)
        assert isinstance(self.numbers, Tensor)
        table = self.table[self.numbers.view(-1)].view(5, 5, 8).permute(2, 0, 1)
        positions = F.interpolate(self.positions, (5, 5), mode="bicubic")
        x = self.norm(F.conv2d(x, weight, padding=1)) + table + positions
        return x


def test_what_depends_on_parameters_alone_is_stored() -> None:
    torch.manual_seed(0)
    kinds, weights = written(randomized(Standardized()), (6, 5, 5))
    assert kinds == ["Conv", "Add", "Add"]
    assert sorted(weight.shape for weight in weights.values()) == [(1, 8, 5, 5), (8,), (8, 5, 5), (8, 6, 3, 3)]


def test_what_is_broadcast_anyway_is_not_expanded() -> None:
    kinds, _ = written(Calls(lambda x, w: w.expand(x.shape[0], -1, 5) * x + x.mean(1, True).expand_as(x), (1, 4, 1)), (4, 5))
    assert kinds == ["Mul", "ReduceMean", "Add"]
    kinds, _ = written(Calls(lambda x: torch.cat([x.mean(1, True).expand_as(x), x], 1)), (4, 5))
    assert kinds == ["ReduceMean", "Expand", "Concat"]
    kinds, _ = written(Calls(lambda x, w: w.expand(x.shape[0], -1, -1) + w.mean(), (1, 4, 5)), (4, 5))
    assert "Expand" in kinds  # no other operand counts the images


def test_what_dropout_and_copies_would_do_is_left_out() -> None:
    network = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(4, 4, 1), nn.Identity(), nn.Dropout2d(0.5), nn.ReLU(), nn.Flatten())
    kinds, _ = written(network, (4, 3, 3))
    assert kinds == ["Conv", "Relu", "Flatten"]
