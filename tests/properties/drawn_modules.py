"""Modules drawn step by step: what users write, in orders that nobody wrote. A recipe is plain values, so that what fails is
shrunk and shown; every recipe is a module, whatever its numbers are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from benchmarks.studies.any_network.modules import randomize

MOST_CHANNELS, MOST_SIDE, LEAST_SIDE = 48, 24, 3
NORMS = ("batch", "batch", "plain", "group", "none", "instance", "channels")
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "gelu": nn.GELU,
    "leaky": lambda: nn.LeakyReLU(0.2),
    "none": nn.Identity,
}


@dataclass(frozen=True)
class Step:
    """One step: what it is, a number of channels and a small number that it may use as it likes, its norm and activation."""

    kind: str
    channels: int
    number: int
    norm: str
    activation: str
    bias: bool


@dataclass(frozen=True)
class Recipe:
    """A module for images [N, *shape]. `head`: what makes logits of the last map."""

    shape: tuple[int, int, int]
    steps: tuple[Step, ...]
    head: str
    classes: int
    seed: int

    def module(self) -> nn.Module:
        """The module in evaluation mode, every number of it random, its batch norms with statistics."""
        torch.manual_seed(self.seed)
        module = DrawnNetwork(self).eval()
        randomize(module, self.images(8), self.seed)
        return module

    def images(self, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
        draw = torch.Generator().manual_seed(self.seed + 1)
        return torch.randn(count, *self.shape, generator=draw, dtype=torch.float64).to(dtype)


class ChannelsNorm(nn.Module):
    """A LayerNorm over the channels of a map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def norm_of(kind: str, channels: int) -> nn.Module:
    """`instance` is none over maps of one place, where there would be nothing to take statistics of."""
    if kind in ("batch", "plain"):  # with scale and shift, and without
        return nn.BatchNorm2d(channels, affine=kind == "batch")
    if kind == "group":
        return nn.GroupNorm(math.gcd(channels, 4), channels)
    if kind == "instance":
        return nn.InstanceNorm2d(channels, affine=True)
    return ChannelsNorm(channels) if kind == "channels" else nn.Identity()


def unit(
    step: Step, inp: int, out: int, kernel: int = 3, stride: int = 1, groups: int = 1, dilation: int = 1
) -> nn.Sequential:
    """Convolution, norm, activation."""
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(inp, out, kernel, stride, padding, dilation, groups, bias=step.bias)
    return nn.Sequential(convolution, norm_of(step.norm, out), ACTIVATIONS[step.activation]())


class Wiring(nn.Module):
    """Parts, and a forward pass given as a function of them and the input."""

    def __init__(self, function: Callable[..., Tensor], *parts: nn.Module, **numbers: nn.Parameter) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)
        self.numbers = nn.ParameterDict(numbers)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.parts, *self.numbers.values())


class Attention(nn.Module):
    """Self-attention over the places of a map, written by hand or by torch's operator."""

    def __init__(self, channels: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused, self.norm = heads, fused, nn.LayerNorm(channels)
        self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = (
            self.qkv(self.norm(tokens)).reshape(n, h * w, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        )
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = (q @ k.transpose(-2, -1) * (c // self.heads) ** -0.5).softmax(-1) @ v
        y = self.proj(y.transpose(1, 2).reshape(n, h * w, c))
        return x + y.transpose(1, 2).reshape(n, c, h, w)


class Standardized(nn.Module):
    """A convolution whose weights are standardized at every pass."""

    def __init__(self, inp: int, out: int) -> None:
        super().__init__()
        self.weight, self.gain = nn.Parameter(torch.randn(out, inp, 3, 3)), nn.Parameter(torch.ones(out, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight * self.gain / (weight.var((1, 2, 3), keepdim=True) + 1e-5).sqrt(), padding=1)


def shuffled(x: Tensor, groups: int) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


def gated(x: Tensor, inner: nn.Module, outer: nn.Module) -> Tensor:
    return x * outer(F.relu(inner(x.mean((2, 3), keepdim=True)))).sigmoid()


def even(channels: int) -> int:
    return max(2, channels // 2 * 2)


def convolution(step: Step, c: int, side: int) -> nn.Module:
    stride = 2 if step.number % 3 == 2 and side >= 2 * LEAST_SIDE else 1
    kernel, dilation = (1, 3, 3, 5)[step.number % 4], 1 + (step.number % 5 == 4)
    return unit(step, c, step.channels, kernel, stride, dilation=dilation)


def grouped(step: Step, c: int, side: int) -> nn.Module:
    groups = max(g for g in range(1, 5) if c % g == 0)
    out = max(groups, step.channels // groups * groups)
    return unit(step, c, out, groups=groups)


def depthwise(step: Step, c: int, side: int) -> nn.Module:
    times = 1 + (step.number % 4 == 3 and 2 * c <= MOST_CHANNELS)
    return unit(step, c, c * times, groups=c)


def residual(step: Step, c: int, side: int) -> nn.Module:
    return Wiring(lambda x, a, b: F.relu(x + b(a(x))), unit(step, c, step.channels), unit(step, step.channels, c, 1))


def bottleneck(step: Step, c: int, side: int) -> nn.Module:
    """With a shortcut of its own."""
    a, b = unit(step, c, step.channels), nn.Conv2d(c, step.channels, 1)
    return Wiring(lambda x, a, b: a(x) + b(x), a, b)


def concatenated(step: Step, c: int, side: int) -> nn.Module:
    out = min(step.channels, 16)
    if c + out > MOST_CHANNELS:
        return convolution(step, c, side)
    front = step.number % 2
    return Wiring(lambda x, a: torch.cat([a(x), x] if front else [x, a(x)], 1), unit(step, c, out))


def split(step: Step, c: int, side: int) -> nn.Module:
    if c < 4:
        return convolution(step, c, side)
    first = c // 2 if step.number % 2 else max(1, c // 3)

    def run(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
        left, right = torch.split(x, [first, c - first], 1)
        return torch.cat([b(right), a(left)], 1)

    return Wiring(run, unit(step, first, first), unit(step, c - first, step.channels, 1))


def half_gates(step: Step, c: int, side: int) -> nn.Module:
    out = even(step.channels)
    return Wiring(lambda x, a: F.glu(a(x), 1), nn.Conv2d(c, 2 * out, 1, bias=step.bias))


def squeeze(step: Step, c: int, side: int) -> nn.Module:
    inner = max(2, min(step.channels, 8))
    return Wiring(gated, nn.Conv2d(c, inner, 1, bias=step.bias), nn.Conv2d(inner, c, 1))


def shuffle(step: Step, c: int, side: int) -> nn.Module:
    groups = next((g for g in (2 + step.number % 3, 2, 3, 1) if c % g == 0), 1)
    return Wiring(lambda x: shuffled(x, groups))


def pool(step: Step, c: int, side: int) -> nn.Module:
    if side < 2 * LEAST_SIDE:
        return nn.AvgPool2d(3, 1, 1, count_include_pad=step.bias)
    return nn.MaxPool2d(3, 2, 1) if step.number % 2 else nn.AvgPool2d(2, 2, ceil_mode=step.bias)


def attention(step: Step, c: int, side: int) -> nn.Module:
    heads = max(h for h in (1, 2, 3, 4, 6) if c % h == 0)
    return Attention(c, heads, bool(step.number % 2))


def mlp(step: Step, c: int, side: int) -> nn.Module:
    """ConvNeXt's: channels last, linear layers, a scale for every channel."""

    def run(x: Tensor, norm: nn.Module, a: nn.Module, b: nn.Module, scale: Tensor) -> Tensor:
        return x + (scale * b(F.gelu(a(norm(x.permute(0, 2, 3, 1)))))).permute(0, 3, 1, 2)

    parts = nn.LayerNorm(c), nn.Linear(c, step.channels, bias=step.bias), nn.Linear(step.channels, c)
    return Wiring(run, *parts, scale=nn.Parameter(torch.ones(c)))


def twice(step: Step, c: int, side: int) -> nn.Module:
    """One convolution that runs twice, with one norm or two."""
    if step.number % 2:
        return Wiring(lambda x, a: a(F.relu(a(x))), unit(step, c, c, 1))
    parts = nn.Conv2d(c, c, 1, bias=step.bias), norm_of(step.norm, c), norm_of("batch", c)
    return Wiring(lambda x, a, first, second: second(a(F.relu(first(a(x))))), *parts)


def standardized(step: Step, c: int, side: int) -> nn.Module:
    return Standardized(c, step.channels)


def upsampled(step: Step, c: int, side: int) -> nn.Module:
    if 2 * side > MOST_SIDE:
        return pool(step, c, side)
    if step.number % 3 == 0:
        return nn.ConvTranspose2d(c, step.channels, 2, 2, bias=step.bias)
    if step.number % 3 == 1:
        return nn.Upsample(scale_factor=2, mode="nearest")
    return nn.Sequential(nn.Conv2d(c, 4 * (step.channels // 4 + 1), 1), nn.PixelShuffle(2))


def moved(step: Step, c: int, side: int) -> nn.Module:
    """Channels in another order, or fewer of them."""
    ways: list[tuple[Callable[[Tensor], Tensor], int]] = [
        (lambda x: x.flip(1), c),
        (lambda x: x.roll(1, 1), c),
        (lambda x: x[:, : max(1, c // 2)], max(1, c // 2)),
        (lambda x: x[:, c // 2 :], c - c // 2),
        (lambda x: x[:, ::2], (c + 1) // 2),
        (lambda x: torch.cat([x, -x], 1), 2 * c),
        (lambda x: x.repeat_interleave(2, 1), 2 * c),
    ]
    function, out = ways[step.number % len(ways)]
    return Wiring(function if out <= MOST_CHANNELS else lambda x: x.flip(1))


def across(step: Step, c: int, side: int) -> nn.Module:
    """What reads all channels at a place."""
    ways: list[Callable[[Tensor], Tensor]] = [
        lambda x: x * x.mean(1, keepdim=True),
        lambda x: x - x.amax(1, keepdim=True),
        lambda x: x.softmax(1),
        lambda x: x / (x.square().sum(1, keepdim=True) + 1).sqrt(),
        lambda x: F.normalize(x + 0.1, dim=1),
    ]
    return Wiring(ways[step.number % len(ways)])


def created(step: Step, c: int, side: int) -> nn.Module:
    """Numbers that the module makes while it runs."""
    ways: list[Callable[[Tensor], Tensor]] = [
        lambda x: x + torch.linspace(-1, 1, c).view(1, c, 1, 1),
        lambda x: x * torch.full((x.shape[0], 1, 1, 1), 0.5),
        lambda x: x + torch.ones(x.shape[0], 1, 1, 1) * 0.25,
        lambda x: x + torch.arange(c).view(1, c, 1, 1) / c,
        lambda x: torch.where(x > 0.1, x, torch.zeros(())),
        lambda x: x + x.new_ones(c, 1, 1) * torch.tensor(0.1),
    ]
    return Wiring(ways[step.number % len(ways)])


def normed(step: Step, c: int, side: int) -> nn.Module:
    """A norm by itself, before its convolution (pre-activation)."""
    return nn.Sequential(norm_of(step.norm, c), nn.ReLU(), nn.Conv2d(c, step.channels, 1, bias=step.bias))


STEPS: dict[str, Callable[[Step, int, int], nn.Module]] = {
    function.__name__: function
    for function in (
        *(convolution, grouped, depthwise, residual, bottleneck, concatenated, split, half_gates, squeeze, shuffle, pool),
        *(attention, mlp, twice, standardized, upsampled, moved, across, created, normed),
    )
}
HEADS = ("mean", "flat", "hidden", "max", "normed", "map")


class DrawnNetwork(nn.Module):
    """[N, C, H, W] -> [N, classes], or of the head `map` a dictionary of a map and logits."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        channels, height, width = recipe.shape
        steps: list[nn.Module] = []
        for step in recipe.steps:
            module = STEPS[step.kind](step, channels, min(height, width))
            with torch.no_grad():
                probe = nn.Sequential(*steps, module).eval()(torch.zeros(1, *recipe.shape))
            _, channels, height, width = probe.shape
            steps.append(module)
        self.steps, self.kind = nn.Sequential(*steps), recipe.head
        classes = recipe.classes
        if recipe.head == "flat":
            self.head: nn.Module = nn.Sequential(nn.Flatten(1), nn.Linear(channels * height * width, classes))
        elif recipe.head == "hidden":
            pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
            self.head = nn.Sequential(pooled, nn.Linear(channels, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, classes))
        elif recipe.head == "normed":
            self.head = nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.LayerNorm(channels), nn.Linear(channels, classes)
            )
        else:
            self.head = nn.Linear(channels, classes)
        if recipe.head == "map":
            self.map = nn.Conv2d(channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        x = self.steps(x)
        if self.kind in ("flat", "hidden", "normed"):
            return self.head(x)
        logits = self.head(x.amax((2, 3)) if self.kind == "max" else x.mean((2, 3)))
        return {"map": self.map(x), "logits": logits} if self.kind == "map" else logits


channel_counts = st.one_of(st.sampled_from((8, 16, 24, 32)), st.integers(2, 40))
steps = st.builds(
    Step,
    kind=st.sampled_from(sorted(STEPS)),
    channels=channel_counts,
    number=st.integers(0, 59),
    norm=st.sampled_from(NORMS),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    bias=st.booleans(),
)
stems = st.builds(
    Step,
    kind=st.just("convolution"),
    channels=channel_counts,
    number=st.integers(0, 59),
    norm=st.sampled_from(NORMS),
    activation=st.just("relu"),
    bias=st.booleans(),
)
sides = st.integers(8, 20)
shapes = st.one_of(
    st.tuples(st.sampled_from((1, 3, 4)), st.just(16), st.just(16)), st.tuples(st.sampled_from((1, 2, 3, 4)), sides, sides)
)


@st.composite
def recipes(draw: st.DrawFn, most: int = 5) -> Recipe:
    """A stem, up to `most` steps, a head."""
    parts = (draw(stems), *draw(st.lists(steps, min_size=1, max_size=most)))
    classes = draw(st.sampled_from((1, 2, 7, 10, 16)))
    return Recipe(draw(shapes), parts, draw(st.sampled_from(HEADS)), classes, draw(st.integers(0, 2**16)))
