"""safetensors files: a header in JSON, which says of every tensor its type, its shape and which bytes are its, and the bytes.

What the format forbids is refused: tensors that overlap, gaps, bytes that no tensor has, names that come twice. The format has
no checksums: the source's SHA-256, which is recorded beside what is made of it, is all that there is.
"""

from __future__ import annotations

import io
import json
import math
from typing import IO, Any

import torch
from torch import Tensor

from slimtrain.base.errors import CheckpointError
from slimtrain.base.untrusted.quoting import quoted, reason
from slimtrain.base.untrusted.zip_members import filled
from slimtrain.checkpoints.files.claims import DIMENSIONS, LARGEST, Damaged, as_bytes, odd_tensor
from slimtrain.checkpoints.files.settling import KEY
from slimtrain.checkpoints.files.shards import TENSORS

MOST_HEADER = 1 << 25  # bytes: some 200,000 tensors
METADATA = "__metadata__"
TYPES = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "BOOL": torch.bool},
    **{"U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8},
    **{"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "C64": torch.complex64},
}


def read_safetensors(file: IO[bytes], name: str) -> dict[str, Tensor]:
    """The tensors of a file, by name. CheckpointError where it is damaged."""
    try:
        size = int.from_bytes(file.read(8), "little")
        header = file.read(size)
        if len(header) < size:
            raise EOFError("it ends within its header")
        start = 8 + size
        length = file.seek(0, io.SEEK_END) - start
        entries = _entries(header, length)
        tensors = {}
        for key, (kind, shape, begin, end) in entries.items():
            file.seek(start + begin)
            tensors[key] = _tensor(file, kind, shape, end - begin)
        return tensors
    except (Damaged, EOFError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{name}: truncated or damaged safetensors file ({reason(error)}). Download or copy it again."
        ) from error


def _entries(header: bytes, length: int) -> dict[str, tuple[str, tuple[int, ...], int, int]]:
    """Of every tensor type, shape, first byte and the one after its last, in the order of the header."""
    content = json.loads(header, object_pairs_hook=_object)
    if not isinstance(content, dict):
        raise Damaged("its header is no object")
    content.pop(METADATA, None)
    if len(content) > TENSORS:
        raise Damaged(f"{len(content):,} tensors, expected at most {TENSORS:,}")
    entries = {key: _entry(key, value) for key, value in content.items()}
    place = 0
    for key, (_, _, begin, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if begin != place or end < begin:
            raise Damaged(f"the bytes of {quoted(key)} do not follow on those before")
        place = end
    if place != length:
        raise Damaged(f"its tensors are of {place:,} bytes, {length:,} are there")
    return entries


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise Damaged("a name comes twice")
    return value


def _entry(key: str, value: Any) -> tuple[str, tuple[int, ...], int, int]:
    if len(key) > KEY:
        raise Damaged(f"a tensor's name of {len(key):,} letters, {quoted(key)}")
    if not isinstance(value, dict):
        raise Damaged(f"{quoted(key)} is no object")
    kind, shape, place = value.get("dtype"), value.get("shape"), value.get("data_offsets")
    if not isinstance(kind, str) or not isinstance(shape, list) or not isinstance(place, list) or len(place) != 2:
        raise Damaged(f"{quoted(key)} has no type, shape or offsets")
    if not all(type(number) is int and 0 <= number < LARGEST for number in (*shape, *place)) or len(shape) > DIMENSIONS:
        raise Damaged(f"the shape or the offsets of {quoted(key)} are none")
    begin, end = place
    if kind in TYPES and math.prod(shape) * TYPES[kind].itemsize != end - begin:
        raise Damaged(f"{quoted(key)} is {quoted(shape)} of {kind}, and has {end - begin:,} bytes")
    return kind, tuple(shape), begin, end


def _tensor(file: IO[bytes], kind: str, shape: tuple[int, ...], size: int) -> Tensor:
    if kind not in TYPES:
        return odd_tensor(f"a {kind[:20]}", shape)
    try:
        content = torch.empty(shape, dtype=TYPES[kind])
    except RuntimeError as error:
        raise MemoryError(f"{size:,} bytes") from error
    if size and not filled(file, as_bytes(content)):
        raise EOFError("it ends early")
    return content
