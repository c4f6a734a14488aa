"""The proof that a slimmable network is the user's module: what it lets pass, and what it does not touch."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.tracing import equality, slimmed
from slimtrain.tracing.doubles import products
from slimtrain.tracing.equality import NotEqualError, check_equal
from slimtrain.tracing.slimmed import make_slimmable, trace
from slimtrain.tracing.smaller import smaller
from tests.support.user_networks import NETWORKS, images, network

EXAMPLE = torch.zeros(2, 3, 128, 128)


class Convolutions(nn.Module):
    """Four halvings, and a wide kernel on the map of 8 pixels that they leave."""

    scale: Tensor

    def __init__(self, flat: bool = False) -> None:
        super().__init__()
        self.halvings = nn.Sequential(*(nn.Conv2d(a, b, 3, 2, 1) for a, b in itertools.pairwise((3, 8, 8, 8, 8))))
        self.wide = nn.Conv2d(8, 8, 5, padding=2, groups=8)
        self.flat = flat
        self.head = nn.Linear(8 * 64 if flat else 8, 5)
        self.kept: Tensor | None = None
        self.register_buffer("scale", torch.full((1,), 0.3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.wide(self.halvings(x)) * self.scale
        self.scale = self.scale * 1  # a module may keep what it computes
        return self.head(x.flatten(1) if self.flat else x.mean((2, 3)))


class Branching(Convolutions):
    """It does something else with small images."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.shape[-1] > 100 else -x)


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The images of every comparison, without copies or by them."""
    seen: list[tuple[int, ...]] = []
    for name in ("_of_stored", "_of_copies"):
        original = getattr(equality, name)

        def noting(n: Any, m: Any, x: Sequence[Tensor], *number: Any, compare: Any = original) -> Any:
            seen.append(tuple(x[0].shape))
            return compare(n, m, x, *number)

        monkeypatch.setattr(equality, name, noting)
    return seen


def test_small_images_are_those_that_every_tap_still_meets(sizes: list[tuple[int, ...]]) -> None:
    """A kernel of 5 with 2 of padding needs 3 of 8 positions: 48 of 128 pixels, as a multiple of 32."""
    module = Convolutions()
    assert smaller(trace(module, EXAMPLE).graph, (128, 128)) == (64, 64)
    assert smaller(trace(module, EXAMPLE[..., :64, :64]).graph, (64, 64)) is None
    assert smaller(trace(module, torch.zeros(2, 3, 64, 256)).graph, (64, 256)) == (64, 64)
    make_slimmable(module, EXAMPLE)
    assert sizes == [(1, 3, 64, 64)]


@pytest.mark.parametrize("module", [Convolutions(flat=True), Branching()], ids=["flat", "branching"])
def test_a_network_of_one_size_is_compared_at_that_size(module: nn.Module, sizes: list[tuple[int, ...]]) -> None:
    make_slimmable(module, EXAMPLE)
    assert sizes == [(1, 3, 64, 64), (1, 3, 128, 128)]


def test_a_module_of_float64_is_compared_by_copies(sizes: list[tuple[int, ...]]) -> None:
    make_slimmable(Convolutions().double(), EXAMPLE.double())
    assert sizes == [(2, 3, 128, 128)]


def weights(slimmable: SlimmableNetwork) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in slimmable.state_dict().items() if tensor.is_floating_point()}


def test_every_tap_of_every_weight_counts() -> None:
    """One number of all that are stored is another one: the check says so, whichever it is."""
    module = Convolutions()
    slimmable = make_slimmable(module, EXAMPLE)
    for tensor in weights(slimmable).values():
        for place in {0, tensor.numel() // 2, tensor.numel() - 1}:
            before = float(tensor.view(-1)[place])
            tensor.view(-1)[place] += 0.1
            with pytest.raises(NotEqualError, match="differs"):
                check_equal(slimmable, module, EXAMPLE)
            tensor.view(-1)[place] = before
    check_equal(slimmable, module, EXAMPLE)


class Closed(nn.Module):
    """Zeros close a branch and the head, as published recipes have it; nothing of the network counts in the output."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8, 5)
        for zeros in (self.norm.weight, self.head.weight):
            nn.init.zeros_(zeros)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.head((x + self.norm(self.branch(x))).mean((2, 3)))


class Blend(nn.Module):
    """Two branches share the output by a number that is zero at first; what one has of it the other has not."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3), nn.Linear(8, 5)
        self.share = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(((1 - self.share) * self.one(x) + self.share * self.other(x)).mean((2, 3)))


class Tokens(nn.Module):
    """Words, looked up through another view of their numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.inner, self.head = nn.Embedding(11, 8), nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        words = self.words(tokens.flatten(1).long())
        return self.head(self.inner(words).relu().mean(1))


@pytest.mark.parametrize(
    ("module", "example"),
    [
        (Closed(), torch.zeros(2, 3, 8, 8)),
        (Blend(), torch.zeros(2, 3, 8, 8)),
        (Tokens(), torch.zeros(2, 3, 4, dtype=torch.int32)),
    ],
    ids=["closed", "blend", "tokens"],
)
def test_what_zeros_hide_is_compared(module: nn.Module, example: Tensor) -> None:
    slimmable = make_slimmable(module, example)
    for name, tensor in weights(slimmable).items():
        if tensor.any() and "running" not in name:
            before = float(tensor.view(-1)[-1])
            tensor.view(-1)[-1] += 0.1
            with pytest.raises(NotEqualError, match="differs"):
                check_equal(slimmable, module, example)
            tensor.view(-1)[-1] = before
    check_equal(slimmable, module, example)


class Logarithm(nn.Module):
    """Of a number that may be zero and not much more."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head, self.shift = nn.Conv2d(3, 8, 3), nn.Linear(8, 5), nn.Parameter(torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x).mean((2, 3)) + torch.log(0.5 - self.shift))


def test_what_gives_nothing_finite_without_its_zeros_is_compared_with_them() -> None:
    module = Logarithm()
    slimmable = make_slimmable(module, EXAMPLE)
    with torch.no_grad():
        weights(slimmable)["stem.weight"].view(-1)[-1] += 0.1
    with pytest.raises(NotEqualError, match="differs"):
        check_equal(slimmable, module, EXAMPLE)


class Centred(nn.Module):
    """What an image has of its own, beside the others: nothing where it is alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu().mean((2, 3))
        return self.head(x - x.mean(0, keepdim=True))


@pytest.mark.parametrize("side", [8, 128])
def test_images_that_are_computed_with_each_other_are_compared_as_such(side: int, sizes: list[tuple[int, ...]]) -> None:
    module, example = Centred(), torch.zeros(2, 3, side, side)
    slimmable = make_slimmable(module, example)
    assert [shape[0] for shape in sizes] == [2]
    with torch.no_grad():
        weights(slimmable)["stem.weight"].view(-1)[-1] += 0.1
    with pytest.raises(NotEqualError, match="differs"):
        check_equal(slimmable, module, example)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_wrong_permutation_is_refused_at_making(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The channels of one tensor's dimension come from other places than the rest of their group."""
    original = slimmed.ordered

    def wrong(graph: Any, groups: Any, tensors: Any, order: str) -> dict[str, Tensor]:
        result = original(graph, groups, tensors, order)
        key = next(name for name, dim, _ in groups.groups[0].dims if dim == 0 and result[name].ndim > 1)
        return result | {key: result[key].roll(1, 0)}

    monkeypatch.setattr(slimmed, "ordered", wrong)
    with pytest.raises(NotEqualError, match="differs"):
        make_slimmable(network(name), images(2))


@pytest.mark.parametrize("how", [{"padding": 2, "dilation": 2}, {"padding": 1, "padding_mode": "circular"}])
@pytest.mark.parametrize("kind", ["depthwise", "few places"])
def test_a_convolution_that_goes_another_way_is_noticed(kind: str, how: dict[str, Any]) -> None:
    """One of those that torch does not compute: over a map of 8 by 8 channel by channel, or of 4 by 4 with a large weight."""
    groups, side = (8, 8) if kind == "depthwise" else (1, 4)

    def network(**how: Any) -> nn.Module:
        torch.manual_seed(0)
        wide = 8 if groups > 1 else 96
        convolution = nn.Conv2d(wide, wide, 3, groups=groups, **how)
        return nn.Sequential(nn.Conv2d(3, wide, 1), convolution, nn.Flatten(), nn.Linear(wide * side**2, 5))

    example = torch.zeros(2, 3, side, side)
    slimmable = make_slimmable(network(padding=1), example)
    with pytest.raises(NotEqualError, match="differs"):
        check_equal(slimmable, network(**how), example)


class Wide(nn.Module):
    """Large weights on maps of 2 by 2 and on one row, which the proof multiplies block by block."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.wide, self.head = nn.Conv2d(3, 96, 1), nn.Conv2d(96, 320, 3, padding=1), nn.Linear(320, 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.wide(self.stem(x)).relu().mean((2, 3)))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What torch did not compute."""
    seen: list[str] = []
    original = products.quick

    def noting(*given: Any) -> Any:
        compute = original(*given)
        seen.append(getattr(compute, "__name__", "torch"))
        return compute

    monkeypatch.setattr(products, "quick", noting)
    return seen


def test_every_number_of_a_large_weight_counts(quick: list[str], sizes: list[tuple[int, ...]]) -> None:
    module, example = Wide(), torch.zeros(2, 3, 2, 2)
    slimmable = make_slimmable(module, example)
    assert quick == ["torch", "convolution", "linear"] * 2 and len(sizes) == 1
    with torch.no_grad():
        for name in ("wide.weight", "wide.bias", "head.weight", "head.bias"):
            tensor = weights(slimmable)[name].view(-1)
            for place in (0, tensor.numel() // 2, tensor.numel() - 1):
                before = float(tensor[place])
                tensor[place] += 0.1
                with pytest.raises(NotEqualError, match="differs"):
                    check_equal(slimmable, module, example)
                tensor[place] = before
    check_equal(slimmable, module, example)


@pytest.mark.parametrize("entry", ["stride", "padding", "dilation"])
def test_another_stride_padding_or_dilation_is_noticed(entry: str) -> None:
    """The module has another stride, padding or dilation; both average a map of some size, whose shape says nothing."""
    module, example = Wide(), torch.zeros(2, 3, 4, 4)
    slimmable = make_slimmable(module, example)
    other = copy.deepcopy(module)
    setattr(other.wide, entry, (2, 2))
    with pytest.raises(NotEqualError, match="differs"):
        check_equal(slimmable, other, example)


@pytest.mark.parametrize("name", NETWORKS)
def test_channels_in_another_order_are_noticed(name: str) -> None:
    module = network(name)
    slimmable = make_slimmable(module, images(2))
    with torch.no_grad():
        changed = max(weights(slimmable).values(), key=Tensor.numel)
        changed.copy_(changed.flip(0))
    with pytest.raises(NotEqualError):
        check_equal(slimmable, module, images(2))


class Noting(Convolutions):
    """It notes what it computes in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        self.notes["x"] = super().forward(x)
        return self.notes["x"]


def test_an_empty_dictionary_of_the_module_stays_empty(sizes: list[tuple[int, ...]]) -> None:
    module = Noting()
    slimmable = make_slimmable(module, EXAMPLE, check=False)
    module.notes.clear()
    check_equal(slimmable, module, EXAMPLE)
    assert not module.notes and sizes == [(1, 3, 64, 64)]


def test_nothing_of_the_module_or_the_network_changes() -> None:
    module = Convolutions().train()
    module.wide.eval()
    before = copy.deepcopy(module)
    slimmable = make_slimmable(module, EXAMPLE)
    after = dict(module.state_dict())
    assert all(torch.equal(after[key], tensor) for key, tensor in before.state_dict().items())
    assert all(tensor.dtype == torch.float32 for tensor in after.values())
    assert [part.training for part in module.modules()] == [part.training for part in before.modules()]
    assert slimmable.training and slimmable.active == slimmable.spec.widest
    assert slimmable(EXAMPLE).dtype == torch.float32
    with slimmable.at(slimmable.plan(0.5)):
        check_equal(slimmable.eval(), module, EXAMPLE)
        assert slimmable.active == slimmable.plan(0.5) and not slimmable.training
    memory = {tensor.data_ptr() for tensor in module.state_dict().values()}
    assert not memory & {tensor.data_ptr() for tensor in slimmable.state_dict().values()}
