"""Reading checkpoint files without running anything in them.

torch's own restricted unpickler (`weights_only=True`) decides what may be called. Classes that it does not know, such
as the meter objects of published `latest_checkpoint.pt` files, become inert objects: they are never imported, they
may be created and filled, and a call to them refuses the file. Zip and legacy serialization, tensors saved on CUDA
devices, a checkpoint still zipped (`NAME.pt.zip`) and safetensors are read.
"""

from __future__ import annotations

import _compat_pickle
import codecs
import io
import pickletools
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any

import torch
from torch import Tensor

from slimtrain.base.errors import CheckpointError

StateDict = Mapping[str, Tensor]  # bare key -> tensor
WEIGHT_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar", ".safetensors")
WRAPPERS = ("model", "state_dict", "model_state_dict", "net")
PROTOCOL = 2  # of pickle: the only one that torch's restricted unpickler reads
MAX_HEADER = 100_000_000  # bytes, of a safetensors file
LEGACY_PICKLES = 5  # magic number, protocol, system, object, storage keys
# numpy's scalars and arrays are rebuilt by calls; these calls make inert objects too, they never reach numpy.
INERT_CALLS = frozenset(
    f"{module}.{name}"
    for module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
    for name in ("dtype", "ndarray", "scalar", "_reconstruct")
)


class _InertType(type):
    """A class that stands for one named in a file. Calling it is refused, unless it rebuilds a numpy value."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls.__name__ == "collections.defaultdict":
            return OrderedDict()  # the unpickler fills no other kinds of dictionaries
        if cls.__name__ in INERT_CALLS:
            return object.__new__(cls)  # type: ignore[arg-type]
        raise UnpicklingError(f"the file calls {cls.__name__}")


def _inert(name: str) -> _InertType:
    def remember(self: Any, state: Any) -> None:
        object.__setattr__(self, "state", state)

    return _InertType(name, (), {"__setstate__": remember, "__new__": lambda cls, *args: object.__new__(cls)})


def read_content(path: str | Path) -> Any:
    """Whatever was saved: tensors on the CPU, plain values, inert objects in place of unknown classes.

    Raises CheckpointError, with what was found and what to do, for anything else.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _read(file, path.name)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file. Give the path of a checkpoint, or random:NETWORK.") from error
    except IsADirectoryError as error:
        raise CheckpointError(f"{path}: is a folder, expected a checkpoint file (.pt, .pt.zip or .safetensors).") from error
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
        return _torch_load(file, name)
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
                return _torch_load(file, name)
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


def _pickles(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """The pickle streams of a torch.save file, each positioned at its start."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for member in archive.namelist():
                if member.split("/")[-1] == "data.pkl":
                    yield io.BytesIO(archive.read(member))
    else:
        file.seek(0)
        for _ in range(LEGACY_PICKLES):
            yield file  # each is read up to its end, where the next begins


def _globals(file: IO[bytes], name: str) -> set[str]:
    """Every class or function that the pickles name, under its Python 3 name.

    CheckpointError for another protocol, and for a legacy file of a whole module: it keeps ("module", class, ...) where others
    keep ("storage", ...).
    """
    names = set()
    for stream in _pickles(file):
        previous, first = "", None  # the opcode before, and what comes first in the innermost tuple
        for opcode, argument, _ in pickletools.genops(stream):
            if previous == "MARK":
                first = argument
            previous = opcode.name
            if opcode.name == "BINPERSID" and first == "module":
                raise CheckpointError(_WHOLE_MODULE.format(name, "module"))
            if opcode.name == "PROTO" and argument != PROTOCOL:
                raise CheckpointError(
                    f"{name}: written with pickle protocol {argument}, expected {PROTOCOL}, which torch.save uses by itself. "
                    "Save it again without pickle_protocol."
                )
            if opcode.name == "GLOBAL":
                module, _, attribute = str(argument).partition(" ")
                if (module, attribute) in _compat_pickle.NAME_MAPPING:
                    module, attribute = _compat_pickle.NAME_MAPPING[module, attribute]
                names.add(f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{attribute}")
    file.seek(0)
    return names


def _torch_load(file: IO[bytes], name: str) -> Any:
    try:
        # torch's own safe list comes first: an inert class under a name that is on it is never used.
        with torch.serialization.safe_globals([(_inert(full), full) for full in sorted(_globals(file, name))]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except UnpicklingError as error:
        reason = _first_line(error.__context__ or error)
        raise CheckpointError(
            f"{name}: refused, because loading it would run code or needs what torch does not count as safe ({reason}). "
            "Expected tensors and plain values: save the state dict alone, with torch.save(model.state_dict(), ...)."
        ) from error
    except Exception as error:  # torch and pickle raise nearly everything on damaged files
        raise CheckpointError(
            f"{name}: truncated or damaged ({type(error).__name__}: {_first_line(error)}). Download or copy it again."
        ) from error


def _first_line(error: BaseException) -> str:
    """What a message says first; torch's goes on with the advice to load the file unsafely."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]


_WHOLE_MODULE = (
    "{}: holds a whole pickled {}, expected its state dict. Load it where its code is and it is trusted, and save "
    "model.state_dict()."
)


def find_state_dict(content: Any, name: str) -> dict[str, torch.Tensor]:
    """The state dict within whatever was saved."""
    for inside in (content, *(content.get(wrapper) for wrapper in WRAPPERS)) if isinstance(content, dict) else (content,):
        if isinstance(type(inside), _InertType):
            raise CheckpointError(_WHOLE_MODULE.format(name, type(inside).__name__))
    if not isinstance(content, dict):
        raise CheckpointError(f"{name}: holds a {type(content).__name__}, expected a state dict (name to tensor).")
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    state = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, torch.Tensor)}
    if not state:
        held = ", ".join(repr(key) for key in list(content)[:5]) or "nothing"
        raise CheckpointError(f"{name}: holds {held} and no tensors, expected a state dict or {{'model': state dict}}.")
    while all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state
