"""Values that a file holds are checked in one place before they are used: tensors against their storages, containers against
each other."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from slimtrain.base.errors import CheckpointError
from slimtrain.checkpoints.files.claims import OddTensor
from slimtrain.checkpoints.reading import read_content
from slimtrain.checkpoints.weights import find_weights
from tests.support.state_files import rewrite

STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x0ctQ"


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def described(offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """The pickle of a tensor of twelve stored elements."""
    sizes = b"".join(b"(" + b"".join(map(number, numbers)) + b"t" for numbers in (size, stride))
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + number(offset) + sizes + b"\x89ccollections\nOrderedDict\n)RtR"


def read(path: Path, pickled: bytes) -> Any:
    torch.save({"model": torch.arange(12.0)}, path)
    rewrite(path, b"\x80\x02" + pickled + b".")
    return read_content(path)


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (13,), (1,)),  # torch would enlarge the storage, by whatever is in memory
        (10, (3,), (1,)),
        (0, (10**10,), (1,)),
        (0, (10**12,), (0,)),  # 4 TB of one element
        (0, (10**6, 10**6), (0, 0)),
        (0, (3,), (-1,)),
        (-1, (3,), (1,)),
        (0, (-3,), (1,)),
        (0, (2**62, 2**62), (0, 0)),
        (0, (1,) * 65, (1,) * 65),
        (0, (2, 3), (1,)),
    ],
)
def test_a_tensor_that_its_storage_cannot_hold_is_refused(
    offset: int, size: tuple[int, ...], stride: tuple[int, ...], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"^a\.pt: truncated or damaged"):
        read(tmp_path / "a.pt", described(offset, size, stride))


@pytest.mark.parametrize(
    ("offset", "size", "stride"), [(0, (3, 4), (4, 1)), (1, (4, 2), (2, 1)), (3, (), ()), (0, (5,), (0,)), (0, (3, 3), (1, 1))]
)
def test_one_that_it_can_hold_is_what_torch_makes_of_it(
    offset: int, size: tuple[int, ...], stride: tuple[int, ...], tmp_path: Path
) -> None:
    tensor = read(tmp_path / "a.pt", described(offset, size, stride))
    assert torch.equal(tensor, torch.arange(12.0).as_strided(size, stride, offset))
    assert tensor.is_contiguous() and tensor.untyped_storage().nbytes() <= 48


@pytest.mark.parametrize(
    ("pickled", "words"),
    [
        (b"}q\x01X\x01\x00\x00\x00ah\x01s", "contains itself"),
        (b"]q\x01h\x01a", "contains itself"),
        (b"]q\x01h\x01\x85a", "contains itself"),
        (b")" + b"\x85" * 100_000, "deeper than"),
        (b"]" * 1000 + b"a" * 999, "deeper than"),
        (b"}" + b")" + b"\x85" * 100_000 + b"Ns", "as a key"),  # hash() of these ends the process
        (b"}X\xd0\x07\x00\x00" + b"k" * 2000 + described(0, (3,), (1,)) + b"s", "a tensor's name of 2,000 letters"),
        (b"(" + b"N" * 10 + b"tq\x01" + b"".join(b"(" + b"h%c" % i * 10 + b"tq%c" % (i + 1) for i in range(1, 9)), "values"),
    ],
    ids=["dict", "list", "tuple", "deep tuple", "deep list", "deep key", "long name", "laughs"],
)
def test_containers_of_no_checkpoint_are_refused(pickled: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=words):
        read(tmp_path / "a.pt", pickled)


def test_attributes_that_would_hide_methods_are_dropped(tmp_path: Path) -> None:
    text = b"".join(b"X" + bytes([len(word)]) + b"\x00\x00\x00" + word + b"K\x05" for word in (b"items", b"keys", b"dim"))
    state = b"ccollections\nOrderedDict\n)R(X\x06\x00\x00\x00weight" + described(0, (3,), (1,)) + b"u}(" + text + b"ub"
    model = read(tmp_path / "a.pt", b"}X\x05\x00\x00\x00model" + state + b"s")["model"]
    assert list(model) == ["weight"] and len(model.items()) == 1
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.dim = 5  # type: ignore[assignment, method-assign]
    torch.save({"a": parameter}, tmp_path / "b.pt")
    assert read_content(tmp_path / "b.pt")["a"].dim() == 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: torch.quantize_per_tensor(torch.ones(8, 3), 0.1, 0, torch.qint8), "of a quantized network"),
        (lambda: torch.eye(3).to_sparse(), "sparse"),
        (lambda: torch.empty(3, 4, device="meta"), "meta"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "nested"),
        (lambda: torch.zeros(8, dtype=torch.uint8).view(torch.float4_e2m1fn_x2), "float4"),
    ],
    ids=["quantized", "sparse", "meta", "nested", "float4"],
)
def test_tensors_that_are_no_plain_numbers_keep_their_place_and_their_kind(make: Any, words: str, tmp_path: Path) -> None:
    torch.save({"model": {"features.weight": make(), "features.bias": torch.ones(3)}}, tmp_path / "a.pt")
    tensor = read_content(tmp_path / "a.pt")["model"]["features.weight"]
    assert isinstance(tensor, OddTensor)
    if words == "of a quantized network":
        with pytest.raises(CheckpointError, match=words):
            find_weights(read_content(tmp_path / "a.pt"), "a.pt")
    else:
        assert words in tensor.kind
