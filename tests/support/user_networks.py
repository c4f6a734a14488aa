"""Small networks as users write them, one for each way in which channels depend on each other. 16 pixels, 7 classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 7
SHAPE = (3, 16, 16)


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(True),
    )


class Classifier(nn.Module):
    """A body, global average pool, linear layer."""

    def __init__(self, body: nn.Module, channels: int) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(channels, 24), nn.Conv2d(24, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.conv2(self.conv1(x)))


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, 8, 1), nn.Conv2d(8, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc2(F.silu(self.fc1(F.adaptive_avg_pool2d(x, 1)))).sigmoid()


class Dense(nn.Module):
    """Concatenations: each layer reads all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = conv(3, 16), conv(16, 8), conv(24, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([x, self.a(x)], 1)
        return torch.cat([self.b(x), x], 1)


class Split(nn.Module):
    """Halves that go separate ways, one of which gates the other."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right, self.out = conv(3, 32), conv(16, 16), conv(16, 16, groups=16), conv(32, 24)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.stem(x).chunk(2, 1)
        a, b = self.left(a), self.right(b)
        return self.out(torch.cat([a * torch.sigmoid(b), b], 1))


class Shuffle(nn.Module):
    """ShuffleNet v2's unit."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch = conv(3, 32), conv(16, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept, read = self.stem(x).chunk(2, 1)
        x = torch.cat([kept, self.branch(read)], 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


class Attention(nn.Module):
    """A transformer block as most write it: one qkv, heads, LayerNorm, MLP, LayerScale."""

    def __init__(self, channels: int = 48, heads: int = 6) -> None:
        super().__init__()
        self.heads, self.norm1, self.norm2 = heads, nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 96), nn.GELU(), nn.Dropout(0.5), nn.Linear(96, channels))
        self.scale = nn.Parameter(torch.rand(channels) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, channels = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, channels)
        x = x + self.scale * self.proj(attended)
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 48, 4, 4)
        self.token, self.position = nn.Parameter(torch.randn(1, 1, 48)), nn.Parameter(torch.randn(1, 17, 48))
        self.block, self.norm, self.head = Attention(), nn.LayerNorm(48), nn.Linear(48, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.block(x))[:, 0])


class Windows(nn.Module):
    """Windows in the batch, a shifted mask made in forward, relative positions looked up, scores by hand."""

    def __init__(self, channels: int = 40, heads: int = 5) -> None:
        super().__init__()
        self.patches, self.heads = nn.Conv2d(3, channels, 2, 2), heads
        self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.index: Tensor
        self.table = nn.Parameter(torch.randn(49, heads))
        self.register_buffer("index", torch.arange(256).reshape(16, 16) % 49)
        self.head = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).permute(0, 2, 3, 1)
        n, h, w, c = x.shape
        x = torch.roll(x, (-2, -2), (1, 2)).view(n, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        mask = x.new_zeros(16, 16)
        mask[:8, 8:] = -100.0
        mask[8:, :8] = -100.0
        q, k, v = self.qkv(x).reshape(x.shape[0], 16, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        scores = (q * (c // self.heads) ** -0.5) @ k.transpose(-2, -1)
        bias = self.table[self.index.view(-1)].view(16, 16, -1).permute(2, 0, 1).contiguous()
        attended = ((scores + bias.unsqueeze(0) + mask).softmax(-1) @ v).transpose(1, 2).reshape(-1, 16, c)
        return self.head(self.proj(attended).view(n, -1, c).mean(1))


class Standardized(nn.Module):
    """Weights that are standardized at every pass, group norms."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 32, 3, padding=1), nn.GroupNorm(4, 32)
        self.weight, self.gain = nn.Parameter(torch.randn(24, 32, 3, 3)), nn.Parameter(torch.rand(24, 1, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight * self.gain / (weight.var((1, 2, 3), keepdim=True) + 1e-5).sqrt(), padding=1)


class Upsampled(nn.Module):
    """Dense outputs: a decoder with transposed convolutions, pixel shuffle and a resize."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up, self.shuffled = conv(3, 32, stride=2), nn.ConvTranspose2d(32, 16, 2, 2), nn.Conv2d(32, 64, 1)
        self.head, self.aux = nn.Conv2d(32, CLASSES, 1), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        low = self.down(x)
        x = torch.cat([self.up(low), F.pixel_shuffle(self.shuffled(low), 2)], 1)
        resized = F.interpolate(self.head(x), size=(32, 32), mode="bilinear", align_corners=False)
        return {"out": resized, "aux": self.aux(x.amax((2, 3)))}


class Prelu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.act, self.conv2 = nn.Conv2d(3, 16, 3), nn.PReLU(16), nn.Conv2d(16, 32, 3, 2)
        self.hidden, self.head = nn.Linear(32 * 36, 20), nn.Linear(20, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.act(self.conv1(x)))
        return self.head(F.leaky_relu(self.hidden(torch.flatten(F.glu(torch.cat([x, x], 1), 1), 1))))


class Signal(nn.Module):
    """One-dimensional convolutions over the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm, self.conv2 = nn.Conv1d(48, 32, 3), nn.BatchNorm1d(32), nn.Conv1d(32, 32, 3, groups=32)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(F.relu(self.norm(self.conv1(x.flatten(1, 2)))))
        return self.head(F.adaptive_max_pool1d(x, 1).squeeze(-1))


class Recurrent(nn.Module):
    """The rows of an image, read in both directions; what they end with begins a second reading, which a cell goes on from."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8, stride=2)
        self.rows = nn.LSTM(8 * 8, 12, 2, batch_first=True, bidirectional=True)
        self.again, self.cell = nn.GRU(24, 12), nn.LSTMCell(12, 16)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 1, 3).flatten(2)
        x, (state, _) = self.rows(x)
        x, _ = self.again(x.transpose(0, 1), state[-1:])
        read, kept = self.cell(x[0])
        for step in x[1:3]:
            read, kept = self.cell(step, (read, kept))
        return self.head(read + kept)


class Unknown(nn.Module):
    """An operator that nobody here has a rule for, in the middle of a network."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 24, 3), nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cummax(self.first(x), 1).values
        return self.head(F.relu(self.second(x)).mean((2, 3)))


class Shuffled(nn.Module):
    """Two units of ShuffleNet v2: half of the channels go on, the others are read, then all are shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 32, 3), nn.Linear(32, CLASSES)
        self.units = nn.ModuleList(nn.Conv2d(16, 16, 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for unit in self.units:
            kept, read = x.chunk(2, 1)
            x = torch.cat([kept, unit(read)], 1)
            n, c, h, w = x.shape
            x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(x.mean((2, 3)))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: Classifier(nn.Sequential(conv(3, 16), conv(16, 32, stride=2)), 32),
    "residual": lambda: Classifier(nn.Sequential(conv(3, 32), Residual(32), Residual(32)), 32),
    "gate": lambda: Classifier(nn.Sequential(conv(3, 16), conv(16, 16, groups=16), Gate(16), conv(16, 32, 1)), 32),
    "grouped": lambda: Classifier(nn.Sequential(conv(3, 32), conv(32, 64, groups=8), conv(64, 32, 1)), 32),
    "concatenation": lambda: Classifier(Dense(), 32),
    "split": lambda: Classifier(Split(), 24),
    "shuffle": lambda: Classifier(nn.Sequential(Shuffle(), conv(32, 24)), 24),
    "transformer": VisionTransformer,
    "windows": Windows,
    "standardized": lambda: Classifier(Standardized(), 24),
    "upsampled": Upsampled,
    "prelu": Prelu,
    "signal": Signal,
    "recurrent": Recurrent,
}


def network(name: str, seed: int = 0) -> nn.Module:
    """One of `NETWORKS`, every parameter random, its batch norms with statistics of some images: no branch hides."""
    torch.manual_seed(seed)
    module = NETWORKS[name]()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim < 2:
                parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.2)
        for norm in (m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)):
            norm.momentum = None
            norm.train()
        module.train()
        module(images(8, seed))
    return module.eval()


def images(count: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def outputs(result: Any) -> list[Tensor]:
    """The tensors of an output, in order."""
    if isinstance(result, Tensor):
        return [result]
    return [tensor for part in (result.values() if isinstance(result, dict) else result) for tensor in outputs(part)]
