"""Damage to what files of weights hold: dictionaries of tensors, saved again as whole files."""

from __future__ import annotations

from collections import OrderedDict
from random import Random
from typing import Any

import torch

from tests.soak.hostile import NOT_FINITE, NUMBERS, OTHERS, at, copied, damaged_value, places, put


def odd_tensor(draw: Random, old: Any) -> Any:
    """A tensor that nobody expects, made of an old one where that is a tensor."""
    if not isinstance(old, torch.Tensor) or not 0 < old.numel() < 10**6 or old.layout != torch.strided:
        old = torch.ones(4, 3)
    old = old.detach().to(torch.float32) if draw.random() < 0.9 else old
    way = draw.randrange(24)
    if way < 4:
        kind = draw.choice(
            (torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int64, torch.bool, torch.complex64, torch.uint8)
        )
        return old.to(kind)
    if way == 4:
        return old.to(torch.float8_e4m3fn)
    if way == 5:
        return torch.empty(old.shape, dtype=torch.uint8).view(getattr(torch, "float4_e2m1fn_x2", torch.uint8))
    if way == 6:
        return torch.quantize_per_tensor(old, 0.1, 0, torch.qint8)
    if way == 7:
        axis = torch.full((old.shape[0] if old.dim() else 1,), 0.1, dtype=torch.float64)
        return torch.quantize_per_channel(
            old.reshape(len(axis), -1), axis, torch.zeros(len(axis), dtype=torch.int64), 0, torch.qint8
        )
    if way == 8:
        return old.to_sparse()
    if way == 9:
        return old.reshape(old.shape[0] if old.dim() else 1, -1).to_sparse_csr()
    if way == 10:
        return torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(4, 3)])
    if way == 11:
        return old.to("meta")
    if way == 12:  # a terabyte out of four bytes
        return torch.ones(1).expand(draw.choice((10**12, 10**9)))
    if way == 13:
        return torch.ones(1, 1).expand(10**6, 10**6)
    if way == 14:
        return torch.ones(1).expand(old.shape) if old.dim() else old
    if way == 15:
        return old[:0] if old.dim() else old
    if way == 16:
        return old.reshape(-1)
    if way == 17:
        return old[None]
    if way == 18:
        return old * draw.choice(NOT_FINITE)
    if way == 19:
        return old * draw.choice((1e30, 0.0, -1.0, 1.05))
    if way == 20:
        return torch.nn.Parameter(old)
    if way == 21:
        return old.reshape(*[1] * 40, *old.shape)
    if way == 22:
        return torch.cat([old, old]) if old.dim() else old
    return old.transpose(0, -1) if old.dim() > 1 else old.flip(0) if old.dim() else old


def odd_container(draw: Random, value: Any) -> Any:
    """A container that nobody expects, which may hold itself."""
    way = draw.randrange(8)
    if way == 0:
        circle: dict[str, Any] = {"a": 1}
        circle["self"] = circle
        return circle
    if way == 1:
        ring: list[Any] = [1]
        ring.append(ring)
        return ring
    if way == 2:
        hidden: Any = OrderedDict(value) if isinstance(value, dict) else OrderedDict(a=1)
        for name in ("items", "keys", "values", "get", "__class__x"):
            hidden.__dict__[name] = draw.choice((1, None, "text", [1]))
        return hidden
    if way == 3:
        deep: Any = value
        for _ in range(draw.choice((100, 900))):
            deep = draw.choice(([deep], {"model": deep}, (deep,)))
        return deep
    if way == 4:
        return {i: torch.ones(1) for i in range(1000)}
    if way == 5:
        return {"a" * 100_000: torch.ones(1), **(value if isinstance(value, dict) else {})}
    if way == 6:
        return {str(i): i for i in range(draw.choice((1000, 50_000)))}
    return draw.choice((set("ab"), (1, 2), b"bytes", torch.Size([1, 2]), torch.float32, torch.device("cuda:3"), 2**100, 1j))


def damaged_content(draw: Random, content: Any, times: int) -> tuple[Any, str]:
    """What a file of weights holds with so many places changed, and how."""
    content, said = copied(content), []
    for _ in range(times):
        paths = places(content) if isinstance(content, dict | list) else []
        if not paths:
            return odd_container(draw, content), "another container"
        depth = draw.choice(sorted({len(path) for path in paths}))
        path = draw.choice([path for path in paths if len(path) == depth])
        way = draw.randrange(10)
        if way < 5:
            put(content, path, odd_tensor(draw, at(content, path)))
            said.append("a tensor")
        elif way == 5:
            put(content, path, odd_container(draw, at(content, path)))
            said.append("a container")
        elif way == 6:
            put(content, path, copied(draw.choice((*NUMBERS[:14], *NOT_FINITE, *OTHERS))))
            said.append("a value")
        elif way == 7 and draw.random() < 0.2:
            content = odd_container(draw, content)
            said.append("around all")
        else:
            content = damaged_value(draw, content)
            said.append("structure")
    return content, ", ".join(said)
