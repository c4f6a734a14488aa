"""Tensors as files describe them: which bytes of which storage. What is claimed is compared with what is there before a tensor
is made of it: torch itself enlarges a storage that is too small, by whatever memory holds, and repeats elements as often as it
is told to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

GIB = 1 << 30
DIMENSIONS = 16  # of one tensor
LARGEST = 1 << 50  # elements that one may name
PLAIN = {
    **{f"float{bits}": getattr(torch, f"float{bits}") for bits in (16, 32, 64)},
    **{f"{sign}int{bits}": getattr(torch, f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{name: getattr(torch, name) for name in ("bfloat16", "bool", "complex64", "complex128")},
    **{name: getattr(torch, name) for name in ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")},
}
STORAGES = {
    **{"Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16", "Byte": "uint8", "Char": "int8"},
    **{"Short": "int16", "Int": "int32", "Long": "int64", "Bool": "bool"},
    **{"ComplexFloat": "complex64", "ComplexDouble": "complex128"},
}


class Damaged(Exception):
    """What a file holds contradicts itself."""


@dataclass(frozen=True)
class ElementType:
    """A type of elements that a file names: torch's own, or None for one that is no plain numbers."""

    name: str
    plain: torch.dtype | None

    @property
    def size(self) -> int:
        """Bytes of an element."""
        return self.plain.itemsize if self.plain else 1


def element_type(module: str, name: str) -> ElementType | None:
    """The type of elements that a class of storages, or a torch.dtype, of this name has; None where it is neither."""
    if module == "torch.storage" and name == "UntypedStorage":
        return ElementType("uint8", torch.uint8)
    if module in ("torch", "torch.cuda") and name.endswith("Storage"):
        plain = STORAGES.get(name.removesuffix("Storage"), "")
        return ElementType(plain or name, PLAIN.get(plain))
    if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
        return ElementType(f"torch.{name}", PLAIN.get(name, PLAIN.get(str(getattr(torch, name)).removeprefix("torch."))))
    return None


@dataclass(frozen=True)
class Storage:
    """`count` elements that the file keeps under `key`, beginning with number `start` of them."""

    key: str
    elements: ElementType
    count: int
    whole: int  # elements under the key
    start: int = 0


@dataclass(frozen=True)
class Claim:
    """A tensor of `size` and `stride` within a storage, from element `offset` on."""

    storage: Storage
    elements: ElementType
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        numbers = (self.offset, *self.size, *self.stride)
        if not all(type(number) is int and 0 <= number < LARGEST for number in numbers):
            raise Damaged("a tensor's size, strides or offset are no numbers that a tensor can have")
        if len(self.size) != len(self.stride) or len(self.size) > DIMENSIONS or self.count >= LARGEST:
            raise Damaged(f"a tensor of {len(self.size)} dimensions, {len(self.stride)} strides and {self.count} elements")

    @property
    def count(self) -> int:
        """Elements."""
        return math.prod(self.size)

    @property
    def bytes(self) -> int:
        """What its elements take when each is there once."""
        return self.count * self.elements.size

    def of(self, content: Tensor) -> Tensor:
        """The tensor, out of its storage's bytes. Damaged where it reaches beyond them."""
        assert self.elements.plain is not None
        last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        held = len(content) // self.elements.size
        if self.count and last >= held:
            raise Damaged(f"a tensor of {list(self.size)} reaches to element {last} of a storage of {held}")
        if not self.count:
            return torch.empty(self.size, dtype=self.elements.plain)
        content = content[: held * self.elements.size].view(self.elements.plain)
        return content.as_strided(self.size, self.stride, self.offset).contiguous()


def as_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor, to be read and filled."""
    array: Any = tensor.view(-1).view(torch.uint8).numpy()
    return memoryview(array)


class OddTensor(Tensor):
    """In place of a tensor that is no plain numbers, such as quantized, sparse and nested ones: only its shape is there, and
    `kind`, which says what it is."""

    kind = "an unknown"


def odd_tensor(kind: str, size: Any = ()) -> OddTensor:
    """One of a kind, of `size` where that is one."""
    whole = isinstance(size, tuple) and len(size) <= DIMENSIONS and all(type(n) is int and 0 <= n < LARGEST for n in size)
    shape = size if whole and math.prod(size) < LARGEST else ()
    tensor: OddTensor = torch.empty(shape, device="meta").as_subclass(OddTensor)
    tensor.kind = kind
    return tensor
