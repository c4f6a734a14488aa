"""Modules with odd parts: names that are ours, shared norms, branches that drop, operators used in rare ways."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from slimtrain.base.errors import UserError
from slimtrain.graph.sizes import Sizing
from slimtrain.groups.groups import find_groups
from slimtrain.slimmable.calibrate import calibrate
from slimtrain.slimmable.graph_dense import graph_dense
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.slimmable.program import Program
from slimtrain.tracing.masked import masked
from slimtrain.tracing.slimmed import make_slimmable, trace
from tests.support.user_networks import images

CLASSES = 5


class Odd(nn.Module):
    """Two convolutions, a classifier, and a forward pass that is given."""

    def __init__(self, forward: Callable[[Any, Tensor], Any], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.c, self.c2, self.f = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1), nn.Linear(16, CLASSES)
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                self.add_module(name, part)
            else:
                self.register_parameter(name, nn.Parameter(part))
        self.written = forward

    def forward(self, x: Tensor) -> Any:
        return self.written(self, x)

    def head(self, x: Tensor) -> Tensor:
        result: Tensor = self.f(x.mean((2, 3)))
        return result

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name)


def rows(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def before(x: Tensor) -> Tensor:
    """Four heads, those of all images one behind the other."""
    return x.view(len(x), 4, 4).permute(1, 0, 2).reshape(4 * len(x), 4)


def back(x: Tensor, images: int) -> Tensor:
    return x.view(4, images, 4).permute(1, 0, 2).reshape(images, 16)


def written_to(x: Tensor, part: Any, value: Any) -> Tensor:
    x = x.clone()
    x[:, part] = value(x[:, part]) if callable(value) else value
    return x


def apply(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return function(x)


SIGNS = torch.sin, torch.cos, torch.sin, torch.tanh
P = torch.linspace(-1, 1, 80).reshape(16, 5)
FORWARDS: dict[str, tuple[Callable[[Any, Tensor], Any], dict[str, nn.Module | Tensor]]] = {
    "einsum without an arrow": (lambda s, x: torch.einsum("bc,cd", rows(s.c(x)), s.p), {"p": P}),
    "einsum over more": (lambda s, x: torch.einsum("bchw,ck", s.c(x), s.p), {"p": P}),
    "pools over channels": (lambda s, x: s.f(F.max_pool1d(rows(s.c(x))[:, None], 3, 1, 1)[:, 0]), {}),
    "zeros written to channels": (lambda s, x: s.f(written_to(rows(s.c(x)), slice(0, 4), 0)), {}),
    "channels written to": (lambda s, x: s.f(rows(written_to(s.c(x), slice(4, 8), lambda part: 2 * part))), {}),
    "others written to channels": (lambda s, x: s.f(rows(written_to(s.c(x), slice(8, 16), s.c2(s.c(x))[:, :8]))), {}),
    "one written to": (lambda s, x: s.f(written_to(rows(s.c(x)), 3, lambda part: part + 1)), {}),
    "every other one written to": (lambda s, x: s.f(written_to(rows(s.c(x)), slice(None, None, 2), lambda p: p - 1)), {}),
    "a part doubled": (lambda s, x: s.f(torch.cat([2 * (y := rows(s.c(x)))[:, :4], y[:, 4:]], 1)), {}),
    "a part shifted": (lambda s, x: s.f(rows(torch.cat([(y := s.c(x))[:, :8].roll(1, 2), y[:, 8:]], 1) * s.c2(y))), {}),
    "parts by several functions": (
        lambda s, x: s.f(torch.cat([*map(apply, SIGNS, rows(s.c(x)).tensor_split([5, 10, 15], 1))], 1)),
        {},
    ),
    "sorted channels": (lambda s, x: s.f(rows(s.c(x)).sort(1).values), {}),
    "sums along channels": (lambda s, x: s.f(rows(s.c(x)).cumsum(1)), {}),
    "channels cut off": (lambda s, x: s.f(F.pad(rows(s.c(x)), (-8, 8))), {}),
    "a squeezed group": (lambda s, x: F.linear(F.adaptive_avg_pool2d(s.c(x)[:, :4], 1).squeeze(), s.p[:5, :4]), {"p": P}),
    "strides with bounds": (lambda s, x: F.linear(rows(s.c(x))[:, 0:8:2] + rows(s.c(x))[:, 8:16:2], s.p[:5, :4]), {"p": P}),
    "shuffled pixels of five dimensions": (
        lambda s, x: s.f(F.pixel_shuffle(s.c(x)[:, None], 2).flatten(1, 2).repeat(1, 4, 1, 1).mean((2, 3))),
        {},
    ),
    "an exponential kernel": (lambda s, x: s.f(rows(s.c(x)).exp() @ (s.p.exp() @ s.p.T)), {"p": P}),
    "attention of channels": (
        lambda s, x: s.f(F.scaled_dot_product_attention(*[s.c(x).flatten(2)] * 3).mean(2)),
        {},
    ),
    "heads before the images": (lambda s, x: s.f(back(before(rows(s.c(x))) * 2, len(x))), {}),
    "repeated differently often": (
        lambda s, x: s.f(rows(s.c(x)).repeat_interleave(torch.tensor([1, 3] * 8), 1, output_size=32)[:, ::2]),
        {},
    ),
}


@pytest.mark.parametrize("name", ["zeros written to channels", "channels written to", "others written to channels"])
def test_channels_that_are_written_to_can_go(name: str) -> None:
    forward, parts = FORWARDS[name]
    groups = find_groups(trace(Odd(forward, **parts).eval(), images(2)).graph)
    assert sum(groups.sizes.values()) >= 12 and not any("has no rule" in pin.reason for pin in groups.pinned)


@pytest.mark.parametrize("name", FORWARDS)
def test_rare_uses_are_followed_or_pinned(name: str) -> None:
    forward, parts = FORWARDS[name]
    module = Odd(forward, **parts)
    traced = trace(module.eval(), images(2))
    tensors = {key: t.double() if t.is_floating_point() else t for key, t in traced.tensors.items()}
    x = images(2, dtype=torch.float64)
    groups = find_groups(traced.graph)
    with torch.no_grad():
        expected = copy.deepcopy(module).double()(x)
        assert torch.allclose(Program.full(traced.graph, torch.float64).run([x], tensors)[0], expected, atol=1e-10)
    for share in (0.25, 0.5):
        sizing = Sizing(traced.graph, groups, {g: max(1, int(n * share)) for g, n in groups.sizes.items()})
        result = Program.of(sizing, torch.float64).run([x], tensors)[0]
        assert result.shape == expected.shape
        assert torch.allclose(result, masked(sizing, [x], tensors)[0], atol=1e-10)
    make_slimmable(module, images(2))


NAMES = ("active", "spec", "norms", "weighted", "calibrated", "body", "program", "plan", "rounding", "places", "training_")


@pytest.mark.parametrize("name", NAMES)
def test_a_user_s_names_may_be_ours(name: str) -> None:
    child = Odd(lambda s, x: s.head(s._modules[name](s.c(x))), **{name: nn.BatchNorm2d(16)}).eval()
    scale = Odd(lambda s, x: s.head(s.c(x)) * s._parameters[name], **{name: torch.ones(5) * 2}).eval()
    for module in (child, scale):
        network = make_slimmable(module, images(2))
        calibrate(network, [network.plan(0.5)], [images(8)])
        with torch.no_grad():
            assert torch.allclose(network(images(2)), module(images(2)), atol=1e-5)
            with network.at(network.plan(0.5)):
                assert torch.equal(network(images(2)), network.dense(0.5)(images(2)))
        again = pickle.loads(pickle.dumps(network))
        assert isinstance(again, SlimmableNetwork) and torch.equal(again(images(2)), network(images(2)))
        network.load_state_dict(copy.deepcopy(network.state_dict()), assign=True)
        assert torch.equal(again(images(2)), network(images(2)))


@pytest.mark.parametrize("names", [("in", "class"), ("graph", "code"), ("meta", "recompile"), ("lambda", "forward_")])
def test_dense_networks_take_any_name(names: tuple[str, str]) -> None:
    parts = {name: nn.Conv2d(16, 16, 1) for name in names}
    module = Odd(lambda s, x: s.head(s._modules[names[1]](s._modules[names[0]](s.c(x)))), **parts).eval()
    network = make_slimmable(module, images(2))
    assert torch.allclose(network.dense(1.0)(images(2)), module(images(2)), atol=1e-5)


def test_norms_that_share_scale_and_shift_go_on_sharing_them() -> None:
    first, second = nn.BatchNorm2d(16), nn.BatchNorm2d(16)
    second.weight, second.bias = first.weight, first.bias
    module = Odd(lambda s, x: s.head(s.n2(s.c2(s.n1(s.c(x))))), n1=first, n2=second).train()
    network = make_slimmable(module, images(2), order="none")
    network(images(4)).square().sum().backward()
    torch.optim.SGD(network.parameters(), 0.1).step()
    assert network.norms["n1"].weight is network.norms["n2"].weight
    with torch.no_grad():
        assert torch.allclose(network.eval()(images(2)), graph_dense(network, network.spec.widest)(images(2)), atol=1e-5)


class Functional(nn.Module):
    """A batch norm with statistics of its own names, in the network itself."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.f = nn.Conv2d(3, 16, 3), nn.Linear(16, CLASSES)
        self.mean: Tensor
        self.var: Tensor
        self.register_buffer("mean", torch.zeros(16))
        self.register_buffer("var", torch.ones(16))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.f(F.relu(F.batch_norm(self.c(x), self.mean, self.var, training=self.training)).mean((2, 3)))
        return result


def test_statistics_under_other_names_are_a_norm_too() -> None:
    network = make_slimmable(Functional().train(), images(2))
    network(images(4)).sum().backward()
    assert list(network.norms) == ["mean_norm"] and not any(p.grad is None for p in network.parameters() if p.requires_grad)
    (statistics,) = (network.norms["mean_norm"].stored(),)
    assert statistics is not None and statistics.running_mean is not None and statistics.running_mean.abs().sum() > 0


def test_a_norm_that_averages_all_batches_alike_does() -> None:
    module = Odd(lambda s, x: s.head(s.n(s.c(x))), n=nn.BatchNorm2d(16, momentum=None)).train()
    network = make_slimmable(module, images(2), order="none")
    for seed in (1, 2, 3):
        module(images(4, seed))
        network(images(4, seed))
    ours, theirs = network.norms["n"].stored(), module.n
    assert ours is not None and torch.allclose(ours.running_mean, theirs.running_mean, atol=1e-5)  # type: ignore[arg-type]


def test_a_norm_with_parts_of_its_own_keeps_them() -> None:
    class Normed(nn.BatchNorm2d):
        def __init__(self) -> None:
            super().__init__(16, affine=False)
            self.act = nn.PReLU(16)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.act(super().forward(x))
            return result

    module = Odd(lambda s, x: s.head(s.n(s.c(x))), n=Normed()).train()
    network = make_slimmable(module, images(2))
    assert "n.act.weight" in dict(network.named_parameters())
    network(images(4)).sum().backward()
    assert network.double()(images(4, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("mode", ["row", "batch"])
def test_stochastic_depth_drops_in_training(mode: str) -> None:
    module = Odd(lambda s, x: s.head(s.c(x) * 0 + s.d(s.c(x))), d=torchvision.ops.StochasticDepth(0.5, mode)).train()
    network = make_slimmable(module, images(2), order="none")
    torch.manual_seed(0)
    x = images(1).repeat(64, 1, 1, 1)
    with torch.no_grad():
        branch = network(x) - network.body.stored("f.bias")  # type: ignore[operator]
        sizes = branch.abs().sum(1)
        assert torch.allclose(network.eval()(x), module.eval()(x), atol=1e-5)
    kinds = {round(float(size / sizes.max()), 3) for size in sizes} if sizes.max() > 0 else {0.0}
    assert kinds == {0.0, 1.0} if mode == "row" else len(kinds) == 1
    assert "StochasticDepth" in str(module) and module.d(x) is x  # the user's module is as it was


def test_a_module_that_runs_in_float32_alone_is_checked_there() -> None:
    make_slimmable(Odd(lambda s, x: s.head(s.c(x.float()))), images(2))


def test_whole_numbers_are_no_images_of_float64() -> None:
    module = nn.Sequential(nn.Embedding(50, 16), nn.Flatten(), nn.Linear(64, CLASSES))
    network = make_slimmable(module, torch.zeros(2, 4, dtype=torch.int64))
    assert network(torch.ones(2, 4, dtype=torch.int64)).shape == (2, CLASSES)


class Counting(Odd):
    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return self.head(self.c(x))


def test_buffers_that_are_written_to_are_no_outputs() -> None:
    module = Counting(lambda s, x: x)
    module.register_buffer("count", torch.zeros(1))
    network = make_slimmable(module, images(2))
    assert len(network.spec.graph.outputs) == 1  # type: ignore[attr-defined]


def test_what_is_stored_can_be_given_out() -> None:
    module = Odd(lambda s, x: (s.head(s.c(x)), s.f.weight)).eval()
    network = make_slimmable(module, images(2), order="none")
    logits, weight = network(images(2))
    assert torch.allclose(logits, module(images(2))[0], atol=1e-5) and torch.equal(weight, module.f.weight)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: make_slimmable(Odd, images(2)),  # type: ignore[arg-type]
        lambda: make_slimmable(nn.Linear(2, 2), (2, 2)),  # type: ignore[arg-type]
        lambda: make_slimmable(nn.Linear(2, 2), torch.zeros(2, 2), family="u"),
        lambda: make_slimmable(nn.Linear(2, 2), torch.zeros(2, 2), name="a/b"),
    ],
)
def test_what_is_no_module_no_image_no_family_and_no_name_is_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(UserError, match=r"expected|goes into"):
        wrong()
