"""safetensors files: what the format forbids is refused, as are headers of no file."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from slimtrain.base.errors import CheckpointError
from slimtrain.checkpoints.reading import read_content

TENSORS = {
    **{
        f"w.{kind}": torch.arange(6).reshape(2, 3).to(kind) for kind in (torch.float16, torch.float32, torch.int64, torch.bool)
    },
    **{"empty": torch.zeros(0, 3), "one": torch.tensor(3.0), "brain": torch.ones(4, dtype=torch.bfloat16)},
}


def test_tensors_are_those_that_the_library_reads(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "a.safetensors", metadata={"format": "pt"})
    read, expected = read_content(tmp_path / "a.safetensors"), load_file(tmp_path / "a.safetensors")
    assert read.keys() == expected.keys() == TENSORS.keys()
    assert all(read[key].dtype == t.dtype and torch.equal(read[key], t) for key, t in expected.items())


def entry(shape: Any = (2,), begin: Any = 0, end: Any = 8, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"a": entry(), "b": entry()}, "do not follow"),
        ({"a": entry((1,), 0, 4)}, "8 are there"),
        ({"a": entry((10**12,))}, "has 8 bytes"),
        ({"a": entry((2**40, 2**40))}, "has 8 bytes"),
        ({"a": entry((-2,))}, "are none"),
        ({"a": entry((True, 2))}, "are none"),
        ({"a": entry((2,), 8, 0)}, "has -8 bytes"),
        ({"a": entry((2,), 0, 10**40)}, "are none"),
        ({"a": entry(dtype=3)}, "no type"),
        ({"a": 3}, "no object"),
        ({"a" * 2000: entry()}, "2,000 letters"),
        ('{"a": ' + json.dumps(entry()) + ', "a": ' + json.dumps(entry()) + "}", "comes twice"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "recursion|deeper"),
        ('{"a": ' + "9" * 10_000 + "}", "digits"),
    ],
)
def test_headers_that_no_writer_makes_are_refused(header: Any, words: str, tmp_path: Path) -> None:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(CheckpointError, match=r"^a\.safetensors: truncated or damaged") as caught:
        read_content(tmp_path / "a.safetensors")
    assert re.search(words, str(caught.value)), caught.value


@pytest.mark.parametrize("size", [0, 1, 2**63, 2**40, 10**7])
def test_a_header_of_another_length_is_refused(size: int, tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", size) + data[8:])
    with pytest.raises(CheckpointError, match=r"^a\.safetensors: "):
        read_content(tmp_path / "a.safetensors")
