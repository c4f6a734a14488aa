"""Arrays in numpy's format: read as numpy wrote them; headers that lie or name other things are refused."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from slimexport.target.arrays import NpyError, array_of, read_header


def written(array: Any) -> bytearray:
    with io.BytesIO() as file:
        np.save(file, array)
        return bytearray(file.getvalue())


def header(shape: str, dtype: str = "'<f8'", order: str = "False") -> bytearray:
    text = f"{{'descr': {dtype}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    return bytearray(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i8", "u1", "bool"])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3), (2, 3, 4, 5)])
def test_arrays_read_as_they_were_written(dtype: str, shape: tuple[int, ...]) -> None:
    array = (np.random.default_rng(0).standard_normal(shape) * 3).astype(dtype)
    for one in (array, np.asfortranarray(array)):
        content = written(one)
        read = array_of(content, read_header(bytes(content)))
        np.testing.assert_array_equal(read, one)
        assert read.dtype == one.dtype and read.shape == one.shape


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"text",
        written(np.array(["a"])),
        written(np.zeros(2, [("a", "f4")])),
        written(np.zeros(2, ">f8")),
        written(np.zeros(2, "c8")),
        header("(2,)", "'|O'"),
        header("(2,)", "'<f3'"),
        header("(2,)", "[('a', '<f4', (1000000000,))]"),
        header("(-1,)"),
        header("(2.0,)"),
        header("(True,)"),
        header("(" + "1, " * 40 + ")"),
        header("(" * 2000),
        header("-" * 2000),
        header("(" + "1" * 3000),
        header("__import__('os')"),
    ],
)
def test_what_is_no_plain_array_is_refused(content: bytes) -> None:
    with pytest.raises(NpyError) as caught:
        read_header(bytes(content))
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize("shape", ["(1000000000000,)", "(4294967296, 4294967296)", "(3,)", "(1,)"])
def test_a_header_that_says_more_or_less_than_there_is_is_refused(shape: str) -> None:
    content = header(shape) + bytes(16)
    with pytest.raises(NpyError, match="its header says"):
        array_of(content, read_header(bytes(content)))
