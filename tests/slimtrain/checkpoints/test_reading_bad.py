"""Whatever is no checkpoint gets a CheckpointError that names the file and what was found in it; never a traceback."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from slimtrain.base.errors import CheckpointError
from slimtrain.checkpoints.checkpoint import open_checkpoint
from tests.support.state_files import read_state_dict

LEGACY = {"_use_new_zipfile_serialization": False}
TENSORS = {f"features.{i}.weight": torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(i)) for i in range(12)}


def refusal(path: Path) -> str:
    """The message that refuses a file; it names the file."""
    with pytest.raises(CheckpointError) as caught:
        read_state_dict(path)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message and "Traceback" not in message
    return message


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_missing_file(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "nowhere.pt")
    with pytest.raises(CheckpointError, match=r"nowhere\.pt: no such file"):
        open_checkpoint(tmp_path / "nowhere.pt")


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder.pt").mkdir()
    assert "is a folder, expected a checkpoint file" in refusal(tmp_path / "folder.pt")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root and Windows read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    written(tmp_path / "a.pt", b"x").chmod(0)
    assert "permission denied" in refusal(tmp_path / "a.pt")


def test_a_path_below_a_file(tmp_path: Path) -> None:
    assert refusal(written(tmp_path / "a.pt", b"x") / "b.pt")


def test_a_link_to_itself(tmp_path: Path) -> None:
    (tmp_path / "loop.pt").symlink_to(tmp_path / "loop.pt")
    assert refusal(tmp_path / "loop.pt")


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    assert refusal(tmp_path / ("x" * 300 + ".pt"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"hello, this is no checkpoint at all\n", "is a text file beginning with 'hello, this is n'"),
        (b"a", "is a text file beginning with 'a'"),
        (b'{"name":{"a": 1}, "model": "json"}', "text"),  # the { where safetensors have theirs
        ("Größe der Dateien: viele".encode(), "text"),
        (b"\n  <!DOCTYPE html>\n<html><body>404</body></html>", "web page"),
        (b"<html><head><title>Sign in</title></head></html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "Git LFS pointer"),
        (b"\x1f\x8b\x08\x00" + bytes(60), "begins with 1f 8b 08 00"),
        (b"\x89PNG\r\n\x1a\n" + bytes(60), "begins with 89 50 4e 47"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(60), "begins with ff d8 ff e0"),
    ],
    ids=["empty", "text", "one letter", "json", "utf-8", "html", "html2", "lfs", "gzip", "png", "jpeg"],
)
def test_files_of_other_kinds_are_recognized(data: bytes, words: str, tmp_path: Path) -> None:
    assert words in refusal(written(tmp_path / "us_mbv1.pt", data))


@pytest.mark.parametrize(
    "data", [bytes(4096), b"\x7fELF\x02\x01\x01" + bytes(64), b"PK\x05\x06" + bytes(18)], ids=["zeros", "elf", "empty zip"]
)
def test_binary_files_are_not_called_text(data: bytes, tmp_path: Path) -> None:
    assert "text file" not in refusal(written(tmp_path / "a.pt", data))


@pytest.mark.parametrize("seed", range(40))
def test_random_bytes(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    data = rng.bytes(int(rng.integers(1, 3000)))
    for start in (b"", b"\x80", b"\x80\x02", b"PK\x03\x04", b"\x40\x00\x00\x00\x00\x00\x00\x00{"):
        refusal(written(tmp_path / "a.pt", start + data))


def saved(folder: Path, kind: str) -> Path:
    path = folder / "whole.pt"
    if kind == "safetensors":
        save_file(TENSORS, path)
    else:
        torch.save({"model": TENSORS}, path, **(LEGACY if kind == "legacy" else {}))
    if kind == "zipped":
        with zipfile.ZipFile(folder / "whole.pt.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(path, "whole.pt")
        return folder / "whole.pt.zip"
    return path


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "zipped"])
def test_truncated_anywhere(kind: str, tmp_path: Path) -> None:
    path = saved(tmp_path, kind)
    data = path.read_bytes()
    assert len(read_state_dict(path)) == len(TENSORS)
    ends = {*range(40), *range(0, len(data), len(data) // 60), *range(len(data) - 40, len(data))}
    for end in sorted(ends):
        message = refusal(written(path, data[:end]))
        if end > 16:
            assert "truncated" in message or "damaged" in message, f"{end}: {message}"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol", "ignore:invalid escape sequence")
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "zipped", "lzma"])
def test_a_flipped_byte_is_refused_or_harmless_but_no_traceback(kind: str, tmp_path: Path) -> None:
    path = saved(tmp_path, "zip" if kind == "lzma" else kind)
    if kind == "lzma":
        with zipfile.ZipFile(tmp_path / "whole.pt.zip", "w", zipfile.ZIP_LZMA) as archive:
            archive.write(path, "whole.pt")
        path = tmp_path / "whole.pt.zip"
    data, messages = path.read_bytes(), []
    draw = np.random.default_rng(0)
    for position in draw.integers(0, len(data), 150):
        damaged = bytearray(data)
        damaged[position] ^= int(draw.integers(1, 256))
        try:
            read_state_dict(written(path, bytes(damaged)))
        except CheckpointError as error:
            messages.append(str(error))
    assert messages and all(path.name in message for message in messages)


# --------------------------------------------------------------------------------------------------------------- zips


def zipped(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_a_zip_of_two_checkpoints_or_of_none_lists_what_it_holds(tmp_path: Path) -> None:
    data = saved(tmp_path, "legacy").read_bytes()
    two = refusal(zipped(tmp_path / "two.zip", **{"a.pt": data, "b.pth": data}))
    assert "a.pt, b.pth" in two and "exactly one checkpoint" in two
    assert "notes.txt" in refusal(zipped(tmp_path / "none.zip", **{"notes.txt": b"hello"}))
    assert "arr_0.npy" in refusal(_npz(tmp_path / "a.npz"))


def _npz(path: Path) -> Path:
    np.savez(path, np.zeros(3))
    return path


def test_what_is_wrong_inside_a_zip_is_named_by_both_names(tmp_path: Path) -> None:
    message = refusal(zipped(tmp_path / "us.pt.zip", **{"inner.pt": b"hello, I am a text file"}))
    assert "us.pt.zip" in message and "inner.pt" in message and "text file" in message


# ------------------------------------------------------------------------------------------------------ other contents


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), "whole pickled"),
        ([1, 2], "holds a list"),
        (torch.ones(3), "holds a Tensor"),
        (None, "holds a NoneType"),
        ({}, "no tensors"),
        ({"epoch": 3, "lr": 0.1}, "'epoch', 'lr'"),
        ({"model": {}, "epoch": 3}, "no tensors"),
        ({"model": {"a": [1.0]}}, "no tensors"),
        ({3: torch.ones(3)}, "no tensors"),
    ],
    ids=["module", "list", "tensor", "none", "empty", "values", "empty model", "lists", "numbers as keys"],
)
def test_what_is_no_state_dict_is_named(content: Any, words: str, legacy: bool, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pt", **(LEGACY if legacy else {}))
    assert words in refusal(tmp_path / "a.pt")


def test_a_whole_module_within_a_wrapper_is_named(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1))
    torch.save(module, tmp_path / "a.pt")
    assert "torch.nn.modules.container.Sequential" in refusal(tmp_path / "a.pt")
    torch.save({"model": module, "epoch": 3}, tmp_path / "b.pt")
    assert "Sequential" in refusal(tmp_path / "b.pt")


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore:'torch.load' received a zip file")
def test_a_torchscript_archive_is_named_as_one(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Conv2d(3, 4, 1)), tmp_path / "a.pt")
    message = refusal(tmp_path / "a.pt")
    assert "TorchScript" in message and "weights_only" not in message and "truncated" not in message


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_another_pickle_protocol_is_refused_and_named(legacy: bool, tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "a.pt", pickle_protocol=4, **(LEGACY if legacy else {}))
    assert "protocol" in refusal(tmp_path / "a.pt")
