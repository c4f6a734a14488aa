"""Arrays of numbers, and how they are read from files that somebody else wrote: what a header in numpy's format says is
compared before it is believed."""

from __future__ import annotations

import math
import re
import zipfile
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from slimtrain.base.untrusted.quoting import quoted
from slimtrain.base.untrusted.zip_members import read_member, read_start

Array: TypeAlias = NDArray[Any]
SHAPE = rb"\(((?:\d{1,18}(?:, ?|(?=\)))){0,32})\)"
HEADER = re.compile(rb"\{'descr': '([<|][biuf]\d{1,2})', 'fortran_order': (True|False), 'shape': " + SHAPE + rb", ?\} *\n")
MAGIC = b"\x93NUMPY"
LENGTH_BYTES = {1: 2, 2: 4}  # by the format's version
MOST_HEADER = 4096


class NpyError(ValueError):
    """Bytes are no array of numbers; the message says how."""


@dataclass(frozen=True)
class Header:
    """What an array's header says, and how many bytes it takes itself."""

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    fortran_order: bool
    size: int

    @property
    def bytes(self) -> int:
        """Of header and numbers."""
        return self.size + self.dtype.itemsize * math.prod(self.shape)


def read_header(start: bytes) -> Header:
    """The header that a file's first MOST_HEADER bytes hold. NpyError for anything but plain numbers: for objects, texts,
    records, other byte orders."""
    version = start[len(MAGIC)] if start[: len(MAGIC)] == MAGIC and len(start) > len(MAGIC) + 1 else 0
    length = LENGTH_BYTES.get(version)
    if length is None:
        raise NpyError("is no array in numpy's format")
    begin = len(MAGIC) + 2 + length
    end = begin + int.from_bytes(start[begin - length : begin], "little")
    text = start[begin:end]
    match = HEADER.fullmatch(text) if end <= len(start) else None
    try:
        dtype = np.dtype(match[1].decode()) if match else None
    except TypeError:  # such as of 3 bytes
        dtype = None
    if match is None or dtype is None:
        raise NpyError(f"is no array of plain numbers ({quoted(text.decode('latin-1').strip())})")
    shape = tuple(int(size) for size in re.findall(rb"\d+", match[3]))
    return Header(dtype, shape, match[2] == b"True", end)


def array_of(content: bytearray, header: Header) -> Array:
    """The array in a file's bytes, of which `header` is. It shares their memory. NpyError where they are more or fewer."""
    if len(content) != header.bytes:
        raise NpyError(f"has {len(content):,} bytes, its header says {header.bytes:,}")
    flat = np.frombuffer(content, header.dtype, offset=header.size)
    return flat.reshape(header.shape, order="F") if header.fortran_order else flat.reshape(header.shape)


def header_in(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Header:
    """The header of an archive's member. NpyError, also where it does not fit the member's size; ZipError."""
    header = read_header(read_start(archive, member, MOST_HEADER))
    if header.bytes != member.file_size:
        raise NpyError(f"is of {member.file_size:,} bytes, its header says {header.bytes:,}")
    return header


def array_in(archive: zipfile.ZipFile, member: zipfile.ZipInfo, header: Header) -> Array:
    """The array in an archive's member. NpyError, ZipError."""
    return array_of(read_member(archive, member, header.bytes), header)
