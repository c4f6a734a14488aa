"""Reading checkpoint files without running anything in them.

Zip and legacy serialization of torch (`files/unpickling.py`), tensors saved on CUDA devices, a checkpoint still zipped
(`NAME.pt.zip`), safetensors, and several files with their index (`files/shards.py`) are read.
"""

from __future__ import annotations

import codecs
import io
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from slimtrain.base.errors import CheckpointError
from slimtrain.checkpoints.files.shards import WEIGHT_SUFFIXES, index_of, read_shards
from slimtrain.checkpoints.files.unpickling import torch_load

StateDict = Mapping[str, Tensor]  # bare key -> tensor
MAX_HEADER = 100_000_000  # bytes, of a safetensors file


def read_content(path: str | Path) -> Any:
    """Whatever was saved: tensors on the CPU, plain values, inert objects in place of unknown classes. A path may be that of
    an index of several files, or of its folder.

    Raises CheckpointError, with what was found and what to do, for anything else.
    """
    path = Path(path)
    try:
        index = index_of(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}).") from error
    return _read_file(path) if index is None else read_shards(index, _read_file)


def _read_file(path: Path) -> Any:
    """The content of one file."""
    try:
        with path.open("rb") as file:
            return _read(file, path.name)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file. Give the path of a checkpoint, or random:NETWORK.") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _read(file: IO[bytes], name: str) -> Any:
    """The object in an open file: a torch.save file of either format, safetensors, or a zip around one of these."""
    head = file.read(16)
    file.seek(0)
    if not head:
        raise CheckpointError(f"{name}: is empty. Download or copy it again.")
    if head.startswith(b"PK\x03\x04"):
        return _read_zip(file, name)
    if head[:1] == b"\x80":
        return torch_load(file, name)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < MAX_HEADER:
        return _read_safetensors(file, name)
    raise CheckpointError(f"{name}: {_guess(head)}. Expected a file written by torch.save, a zip of one, or safetensors.")


def _guess(head: bytes) -> str:
    """What a file that is no checkpoint seems to be."""
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        return "is a web page, not a checkpoint: the download went wrong"
    if start.startswith(b"version https:"):
        return "is a Git LFS pointer, not the file itself: run `git lfs pull`"
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the last letter may be cut off
    except UnicodeDecodeError:
        text = "\0"
    if all(letter.isprintable() or letter.isspace() for letter in text):
        return f"is a text file beginning with {text!r}, not a checkpoint"
    return f"begins with {head[:8].hex(' ')}, which no known checkpoint does"


def _read_zip(file: IO[bytes], name: str) -> Any:
    try:
        with zipfile.ZipFile(file) as archive:
            members = [m for m in archive.namelist() if not m.startswith("__MACOSX/")]
            if any(m.split("/")[-1] == "constants.pkl" for m in members):
                raise CheckpointError(
                    f"{name}: is a TorchScript archive, expected a state dict. Load it with torch.jit.load where it is "
                    "trusted, and save its state_dict()."
                )
            if any(m.split("/")[-1] == "data.pkl" for m in members):
                file.seek(0)
                return torch_load(file, name)
            inside = [m for m in members if m.lower().endswith(WEIGHT_SUFFIXES)]
            if len(inside) != 1:
                listed = ", ".join(members[:5]) or "nothing"
                raise CheckpointError(f"{name}: a zip archive holding {listed}. Expected exactly one checkpoint in it.")
            return _read(io.BytesIO(archive.read(inside[0])), f"{name}/{inside[0]}")
    except CheckpointError:
        raise
    except RuntimeError as error:  # encrypted, or a compression that this Python lacks
        raise CheckpointError(f"{name}: the zip archive cannot be opened ({error}). Unzip it first.") from error
    except Exception as error:  # zipfile and its decompressors raise a dozen kinds on damaged archives
        raise CheckpointError(f"{name}: truncated or damaged zip archive ({error}). Download or copy it again.") from error


def _read_safetensors(file: IO[bytes], name: str) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(file.read())
    except (SafetensorError, struct.error, KeyError) as error:
        raise CheckpointError(f"{name}: damaged safetensors file ({error}). Download or copy it again.") from error
