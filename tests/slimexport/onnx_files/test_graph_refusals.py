"""What the ONNX writer does not know it refuses by name, and never writes something else instead."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from slimexport.onnx_files.graph import UnsupportedModule, to_onnx
from tests.support.export_helpers import Wired, check_onnx, conv, run_onnx

SIZE = 17


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (nn.GELU(), "GELU"),
        (nn.Dropout(), "Dropout"),
        (nn.Identity(), "Identity"),
        (nn.Hardswish(), "Hardswish"),
        (nn.Softmax(1), "Softmax"),
        (nn.Upsample(scale_factor=2), "Upsample"),
        (nn.ConvTranspose2d(4, 4, 3), "ConvTranspose2d"),
        (nn.GroupNorm(2, 4), "GroupNorm"),
        (nn.LazyConv2d(4, 3), "LazyConv2d"),
        (conv(4, 4, dilation=2), "Conv2d.*dilation"),
        (conv(4, 4, padding="same"), "Conv2d.*padding"),
        (conv(4, 4, padding=1, padding_mode="reflect"), "Conv2d.*reflect"),
        (conv(4, 4, padding=1, padding_mode="circular"), "Conv2d.*circular"),
        (nn.MaxPool2d(3, 2, ceil_mode=True), "MaxPool2d.*ceil_mode"),
        (nn.MaxPool2d(3, 2, dilation=2), "MaxPool2d.*dilation"),
        (nn.MaxPool2d(3, 2, return_indices=True), "MaxPool2d.*indices"),
        (nn.AvgPool2d(3, 2, ceil_mode=True), "AvgPool2d.*ceil_mode"),
        (nn.AvgPool2d(3, 2, divisor_override=4), "AvgPool2d.*divisor"),
        (nn.AdaptiveAvgPool2d(2), "AdaptiveAvgPool2d.*2"),
        (nn.AdaptiveAvgPool2d((1, None)), "AdaptiveAvgPool2d.*None"),
        (nn.AdaptiveMaxPool2d(1), "AdaptiveMaxPool2d"),
        (nn.Flatten(2), "Flatten"),
        (nn.Flatten(0), "Flatten"),
        (nn.BatchNorm2d(4, affine=False), "BatchNorm2d.*scale"),
        (nn.BatchNorm2d(4, track_running_stats=False), "BatchNorm2d.*statistics"),
    ],
    ids=str,
)
def test_an_unknown_layer_is_refused_with_its_path_and_kind(layer: nn.Module, kind: str) -> None:
    network = nn.Sequential(OrderedDict(stem=conv(3, 4), odd=nn.Sequential(layer), end=nn.ReLU()))
    with pytest.raises(UnsupportedModule, match=rf"odd\.0: {kind}"):
        to_onnx(network.eval(), SIZE, {})


@pytest.mark.parametrize(
    ("wiring", "name"),
    [
        (lambda self, x: torch.relu(self.a(x)), "relu"),
        (lambda self, x: nn.functional.gelu(self.a(x)), "gelu"),
        (lambda self, x: self.a(x) * 2, "mul"),
        (lambda self, x: self.a(x) - x, "sub"),
        (lambda self, x: self.a(x).relu(), "relu"),
        (lambda self, x: self.a(x).mean((2, 3)), "mean"),
        (lambda self, x: self.a(x) + 1, "add"),
        (lambda self, x: torch.add(self.a(x), x, alpha=2), "add"),
        (lambda self, x: torch.cat([self.a(x), x]), "cat"),
        (lambda self, x: torch.cat([self.a(x), x], 2), "cat"),
        (lambda self, x: self.r(torch.chunk(self.a(x), 2, 1)[0]), "chunk"),
        (lambda self, x: self.r(torch.chunk(self.a(x), 3, 2)[0]), "chunk"),
        (lambda self, x: self.r(self.a(x)[0]), "getitem"),
        (lambda self, x: self.r(torch.chunk(self.a(x), 3, 1)[0:2]), "getitem"),
    ],
)
def test_an_unknown_function_is_refused_by_name(wiring: Callable[..., Tensor], name: str) -> None:
    with pytest.raises(UnsupportedModule, match=name):
        to_onnx(Wired(wiring, a=conv(padding=1), r=nn.ReLU()), SIZE, {})


def test_a_weight_outside_a_layer_is_refused_by_name() -> None:
    network = Wired(lambda self, x: self.a(x) + self.scale, a=conv())
    network.scale = nn.Parameter(torch.ones(1))
    with pytest.raises(UnsupportedModule, match="scale"):
        to_onnx(network, SIZE, {})


def test_a_second_input_is_refused() -> None:
    class TwoInputs(nn.Module):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return x + mask

    with pytest.raises(UnsupportedModule, match="mask: a second input"):
        to_onnx(TwoInputs(), SIZE, {})


@pytest.mark.parametrize(
    "wiring",
    [
        lambda self, x: (self.a(x), x),
        lambda self, x: {"logits": self.a(x)},
        lambda self, x: [y := self.a(x), self.r(y)][0],
        lambda self, x: x,
        lambda self, x: None,
    ],
    ids=["a tuple", "a dictionary", "an earlier value", "its input", "nothing"],
)
def test_a_network_that_returns_anything_but_its_last_layers_result_is_refused(wiring: Callable[..., Any]) -> None:
    with pytest.raises(UnsupportedModule):
        to_onnx(Wired(wiring, a=conv(), r=nn.ReLU()), SIZE, {})


def right_or_refused(network: nn.Module) -> None:
    """Either an UnsupportedModule, or a valid model that computes what torch computes."""
    network.eval()
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    try:
        content = to_onnx(network, SIZE, {}).SerializeToString()
    except UnsupportedModule:
        return
    check_onnx(content)
    with torch.no_grad():
        expected = network(images)
    assert torch.allclose(torch.from_numpy(run_onnx(content, images.numpy())), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("wiring", "parts"),
    [
        (lambda self, x: self.a(self.a(x)), {"a": conv(padding=1)}),
        (lambda self, x: self.s(self.a(self.s(x))), {"a": conv(padding=1), "s": nn.ChannelShuffle(3)}),
        (lambda self, x: self.n(self.a(self.n(x))), {"a": conv(padding=1), "n": nn.BatchNorm2d(3)}),
        (lambda self, x: self.p(self.a(x)) + self.b(x), {"a": conv(), "b": conv(), "p": nn.AdaptiveAvgPool2d(1)}),
        (lambda self, x: self.r(torch.chunk(self.a(x), 3, dim=1)[0]), {"a": conv(), "r": nn.ReLU()}),
        (lambda self, x: torch.cat(tensors=[self.a(x), self.a(x)], dim=1), {"a": conv()}),
        (lambda self, x: self.r(self.output(x)), {"output": conv(), "r": nn.ReLU()}),
        (lambda self, x: self.r(self.input(x)), {"input": conv(), "r": nn.ReLU()}),
        (lambda self, x: self.b(self.a(x)), {"a": conv(), "b": nn.Linear(15, 4)}),
    ],
    ids=[
        *("a convolution run twice", "a shuffle run twice", "a norm run twice", "a sum that broadcasts"),
        *("a chunk with a keyword", "a concatenation with keywords", "a layer called output", "a layer called input"),
        "a linear layer without flatten",
    ],
)
def test_an_unusual_network_is_right_or_refused_and_never_an_invalid_model(
    wiring: Callable[..., Tensor], parts: dict[str, nn.Module]
) -> None:
    right_or_refused(Wired(wiring, **parts))


def test_a_float64_network_is_right_or_refused() -> None:
    """Its files would have float64 weights under a float32 input."""
    network = nn.Sequential(conv(), nn.ReLU()).double()
    try:
        model = to_onnx(network, SIZE, {})
    except UnsupportedModule:
        return
    check_onnx(model.SerializeToString())


def test_a_norm_in_training_mode_is_refused_because_its_file_would_not_compute_what_it_computes() -> None:
    network = nn.Sequential(conv(), nn.BatchNorm2d(3), nn.ReLU()).train()
    with pytest.raises(UnsupportedModule):
        to_onnx(network, SIZE, {})


def test_onnx_itself_has_what_these_tests_lean_on() -> None:
    """The checker does refuse an invalid model: a weight that is named twice."""
    model = to_onnx(nn.Sequential(conv()), SIZE, {})
    model.graph.initializer.append(model.graph.initializer[0])
    with pytest.raises(onnx.checker.ValidationError):
        check_onnx(model.SerializeToString())
