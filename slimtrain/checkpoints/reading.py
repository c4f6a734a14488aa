"""Reading checkpoint files without running anything in them.

Zip and legacy serialization of torch (`files/unpickling.py`), tensors saved on CUDA devices, a checkpoint still zipped
(`NAME.pt.zip`), safetensors, and several files with their index (`files/shards.py`) are read.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from torch import Tensor

from slimtrain.base.errors import CheckpointError, ResourceError
from slimtrain.base.untrusted.opening import NotAFile, open_file
from slimtrain.base.untrusted.quoting import reason, shortened
from slimtrain.base.untrusted.zip_members import OtherMethod, read_member
from slimtrain.checkpoints.files.safetensors_file import MOST_HEADER, read_safetensors
from slimtrain.checkpoints.files.shards import WEIGHT_SUFFIXES, index_of, read_shards
from slimtrain.checkpoints.files.unpickling import torch_load
from slimtrain.checkpoints.files.zips import ZipBomb, open_zip

StateDict = Mapping[str, Tensor]  # bare key -> tensor
ZIPS = 2  # around each other


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
        with open_file(path) as file:
            return _read(file, path.name)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file. Give the path of a checkpoint, or random:NETWORK.") from error
    except NotAFile as error:
        raise CheckpointError(f"{path}: {reason(error)}. Give the path of a checkpoint.") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({reason(error)}).") from error
    except MemoryError as error:
        raise ResourceError(
            f"{path}: does not fit into the memory that is left ({reason(error)}). Free some of it."
        ) from error


def _read(file: IO[bytes], name: str, zips: int = ZIPS) -> Any:
    """The object in an open file: a torch.save file of either format, safetensors, or a zip around one of these."""
    head = file.read(16)
    file.seek(0)
    if not head:
        raise CheckpointError(f"{name}: is empty. Download or copy it again.")
    if head.startswith(b"PK\x03\x04"):
        return _read_zip(file, name, zips)
    if head[:1] == b"\x80":
        return torch_load(file, name)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < MOST_HEADER:
        return read_safetensors(file, name)
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


def _read_zip(file: IO[bytes], name: str, zips: int) -> Any:
    try:
        with open_zip(file) as archive:
            members = [m for m in archive.infolist() if not m.filename.startswith("__MACOSX/")]
            names = {m.filename.split("/")[-1] for m in members}
            if "constants.pkl" in names:
                raise CheckpointError(
                    f"{name}: is a TorchScript archive, expected a state dict. Load it with torch.jit.load where it is "
                    "trusted, and save its state_dict()."
                )
            if "data.pkl" not in names:
                inside = [m for m in members if m.filename.lower().endswith(WEIGHT_SUFFIXES)]
                if len(inside) != 1 or not zips:
                    listed = shortened(", ".join(m.filename for m in members[:5]), 200) or "nothing"
                    raise CheckpointError(f"{name}: a zip archive holding {listed}. Expected exactly one checkpoint in it.")
                content = read_member(archive, inside[0], inside[0].file_size, any_method=True)
                return _read(io.BytesIO(content), f"{name}/{shortened(inside[0].filename, 200)}", zips - 1)
    except (CheckpointError, MemoryError):
        raise
    except ZipBomb as error:
        raise CheckpointError(f"{name}: is refused: {error}. If it is a checkpoint, unzip it first.") from error
    except OtherMethod as error:
        raise CheckpointError(f"{name}: the zip archive cannot be opened ({reason(error)}). Unzip it first.") from error
    except Exception as error:  # zipfile and its decompressors raise a dozen kinds on damaged archives
        raise CheckpointError(
            f"{name}: truncated or damaged zip archive ({reason(error)}). Download or copy it again."
        ) from error
    file.seek(0)
    return torch_load(file, name)
