"""CIFAR-10 and CIFAR-100 from their published Python files, read without running anything in them.

The files are pickles. Unpickling may call whatever a pickle names, so the few names that CIFAR's files need stand here
for inert objects that only keep what they are given; every other name refuses the file. numpy is not called by it.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from slimtrain.base.errors import UserError
from slimtrain.base.text import some
from slimtrain.base.untrusted.opening import MIB, open_file, read_file
from slimtrain.base.untrusted.quoting import reason, shortened
from slimtrain.data.catalog import DataRequest
from slimtrain.data.folders import data_folder, entry_names
from slimtrain.data.samples import ArraySamples

SIDE = 32  # pixels
PIXELS = 3 * SIDE * SIDE
MOST_BYTES = 256 * MIB  # of a file; the largest published one has 155 MB
MOST_INFLATED = 512 * MIB  # of an archive; the published ones have 186 MB
MOST_MEMBERS = 100  # files and folders of an archive; the published ones have 9
MOST_STEPS = 1_000_000  # of a pickle; the largest published one takes 300,000


@dataclass(frozen=True)
class Layout:
    """How one of the two is published."""

    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    meta: str
    labels: str  # key
    names: str  # key in `meta`


LAYOUTS = {
    "cifar10": Layout(
        folder="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        train=tuple(f"data_batch_{i}" for i in range(1, 6)),
        test="test_batch",
        meta="batches.meta",
        labels="labels",
        names="label_names",
    ),
    "cifar100": Layout(
        folder="cifar-100-python",
        archive="cifar-100-python.tar.gz",
        train=("train",),
        test="test",
        meta="meta",
        labels="fine_labels",
        names="fine_label_names",
    ),
}
Inflated = BinaryIO | gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile
Read = Callable[[str], bytes]  # the content of the file of that name


def open_cifar(request: DataRequest) -> tuple[ArraySamples, ArraySamples, tuple[str, ...]]:
    """Training images, test images and the classes' names of one of `LAYOUTS`.

    UserError where the files are missing, truncated, foreign, or hold more than data.
    """
    dataset = request.dataset
    name, layout = dataset.name, LAYOUTS[dataset.name]
    with _reader(name, data_folder(request.folder, f"{layout.folder}/ or {layout.archive}")) as (read, where):
        meta = _load(read(layout.meta), f"{where}/{layout.meta}")
        named = meta.get(layout.names)
        classes = tuple(_text(item) for item in named) if isinstance(named, list) else ()
        if len(classes) != dataset.classes:
            raise UserError(f"{where}/{layout.meta}: names {len(classes)} classes, expected {dataset.classes}. {_AGAIN}")

        def images(file: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
            return _images(_load(read(file), f"{where}/{file}"), layout.labels, dataset.classes, f"{where}/{file}")

        parts, test = [images(file) for file in layout.train], images(layout.test)
    pixels, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return ArraySamples(pixels, labels, f"{name} train"), ArraySamples(*test, f"{name} test"), classes


_AGAIN = "Download it again, or correct data_dir."


@contextmanager
def _reader(name: str, path: Path) -> Iterator[tuple[Read, str]]:
    """How to read a file of `name`, and what messages call the place: the folder, one in it, or an archive."""
    layout = LAYOUTS[name]
    for folder in (path, path / layout.folder):
        if all((folder / file).is_file() for file in (layout.meta, layout.test)):
            yield partial(_file, folder), str(folder)
            return
    archive = path if path.is_file() else path / layout.archive
    if archive.is_file():
        contents = _unpack(archive, layout)
        yield partial(_member, archive, contents), str(archive)
        return
    other = next((key for key, known in LAYOUTS.items() if known is not layout and (path / known.folder).is_dir()), None)
    hint = f" It holds {other}: set data to that, or" if other else ""
    raise UserError(
        f"{path}: holds no {name} (found {some(entry_names(path))}), expected {layout.folder}/ or {layout.archive}.{hint} "
        f"{'d' if hint else 'D'}ownload it from https://www.cs.toronto.edu/~kriz/cifar.html (the Python version)."
    )


def _file(folder: Path, file: str) -> bytes:
    try:
        return read_file(folder / file, MOST_BYTES)
    except OSError as error:
        raise UserError(f"{folder / file}: cannot be read ({reason(error)}). {_AGAIN}") from error


def _unpack(archive: Path, layout: Layout) -> dict[str, bytes]:
    """The wanted files of an archive, in memory: nothing is written."""
    wanted, contents = {layout.meta, layout.test, *layout.train}, {}
    try:
        with open_file(archive) as file, _inflated(file) as inner:
            measured = _Measured(inner)
            tar = tarfile.open(fileobj=measured, mode="r:")  # noqa: SIM115 (what it holds is closed above)
            for number, member in enumerate(tar):
                if number == MOST_MEMBERS:
                    raise tarfile.ReadError(f"it holds more than {MOST_MEMBERS} files")
                name = Path(member.name).name
                if member.isreg() and not member.issparse() and name in wanted and member.size < MOST_BYTES:
                    stream = tar.extractfile(member)
                    assert stream is not None  # only for what is not a file
                    measured.at_once = MOST_BYTES
                    contents[name] = stream.read()
                    measured.at_once = MIB
    except Exception as error:  # tarfile and its decompressors raise a dozen kinds on damaged archives
        raise UserError(
            f"{archive}: truncated or no tar archive ({reason(error)}), expected {layout.archive}. {_AGAIN}"
        ) from error
    return contents


def _inflated(file: BinaryIO) -> Inflated:
    """An archive's bytes, of whichever kind its first ones are."""
    kind = file.read(6)
    file.seek(0)
    if kind.startswith(b"\x1f\x8b"):
        return gzip.open(file)
    if kind.startswith(b"BZh"):
        return bz2.open(file)
    return lzma.open(file) if kind == b"\xfd7zXZ\0" else file


class _Measured(io.RawIOBase):
    """An archive's bytes as far as they are taken: `at_once` of them, and none beyond the most of all."""

    def __init__(self, file: Inflated) -> None:
        self.file, self.at_once = file, MIB

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self.at_once:
            raise tarfile.ReadError("a part of it is larger than such an archive has")
        self._check(self.file.tell() + size)
        return self.file.read(size)

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        self._check(place)
        return self.file.seek(place, whence)

    def tell(self) -> int:
        return self.file.tell()

    def _check(self, place: int) -> None:
        if place > MOST_INFLATED:
            raise tarfile.ReadError(f"it inflates to more than {MOST_INFLATED // MIB} MiB")


def _member(archive: Path, contents: dict[str, bytes], file: str) -> bytes:
    if file not in contents:
        raise UserError(f"{archive}: holds no {file} (found {some(sorted(contents))}). {_AGAIN}")
    return contents[file]


class _Inert:
    """Keeps what a pickle gives it, and does nothing with it. Each name that CIFAR's files call is one of these."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:  # also keeps a pickle from setting attributes
        self.state = state


class _Array(_Inert):
    """numpy's `_reconstruct`; the state is (version, shape, dtype, Fortran order, bytes)."""


class _Kind(_Inert):
    """numpy's `ndarray`, an argument of `_reconstruct`, and `dtype`."""


class _Encoded:
    """`_codecs.encode`: how Python 3 puts bytes into protocol 2. A call gives the bytes."""

    def __new__(cls, text: str, *_: Any) -> bytes:  # type: ignore[misc]
        return text.encode("latin-1")

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it fills _codecs.encode")


_KNOWN = {
    ("numpy", "ndarray"): _Kind,
    ("numpy", "dtype"): _Kind,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("_codecs", "encode"): _Encoded,
}


# What published files, and those that Python 3 writes of the same, are made of: values, lists, dictionaries, `_KNOWN`.
_STEPS = (
    *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.POP, pickle.POP_MARK, pickle.NONE, pickle.NEWTRUE),
    *(pickle.NEWFALSE, pickle.INT, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINSTRING),
    *(pickle.SHORT_BINSTRING, pickle.STRING, pickle.UNICODE, pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINBYTES),
    *(pickle.SHORT_BINBYTES, pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
    *(pickle.EMPTY_LIST, pickle.LIST, pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT, pickle.PUT, pickle.LONG),
    *(pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.GET, pickle.BINGET, pickle.LONG_BINGET, pickle.GLOBAL),
    *(pickle.STACK_GLOBAL, pickle.REDUCE, pickle.BUILD, pickle.BINFLOAT),
)


class _Steps(dict[int, Any]):
    """What the steps of a pickle do, so many times in all; others end it."""

    def __init__(self, steps: Mapping[int, Any]) -> None:
        super().__init__(steps)
        self.left = MOST_STEPS

    def __getitem__(self, step: int) -> Any:
        self.left -= 1
        if self.left < 0:
            raise pickle.UnpicklingError(f"it takes more than {MOST_STEPS:,} steps")
        return super().__getitem__(step)

    def __missing__(self, step: int) -> Any:
        raise pickle.UnpicklingError(f"its step {bytes((step,))!r} is none of CIFAR's")


class _Unpickler(pickle._Unpickler):
    """Python's own in Python: that in C takes room for whatever numbers a file claims, and cannot be stopped.

    Keys are text alone: a tuple that holds the same one twice, and so on forty times, has no end of being hashed.
    """

    stack: list[Any]

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        own = {
            pickle.SETITEM[0]: _Unpickler.set_item,
            pickle.SETITEMS[0]: _Unpickler.set_items,
            pickle.DICT[0]: _Unpickler.set_dict,
        }
        self.dispatch = _Steps({step[0]: pickle._Unpickler.dispatch[step[0]] for step in _STEPS} | own)  # type: ignore[misc]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it calls {module}.{name}")
        return _KNOWN[module, name]

    def set_item(self) -> None:
        self._check_keys(self.stack[-2:-1])
        pickle._Unpickler.dispatch[pickle.SETITEM[0]](self)  # type: ignore[arg-type]

    def set_items(self) -> None:
        self._check_keys(self.stack[::2])
        pickle._Unpickler.dispatch[pickle.SETITEMS[0]](self)  # type: ignore[arg-type]

    def set_dict(self) -> None:
        self._check_keys(self.stack[::2])
        pickle._Unpickler.dispatch[pickle.DICT[0]](self)  # type: ignore[arg-type]

    def _check_keys(self, keys: Sequence[Any]) -> None:
        if not all(isinstance(key, str | bytes) for key in keys):
            raise pickle.UnpicklingError("a key of it is no text")


def _load(content: bytes, where: str) -> dict[str, Any]:
    """The dictionary of a file, keys as text; UserError where it is damaged, foreign, or would run code."""
    try:
        loaded = _Unpickler(content).load()
    except Exception as error:  # pickle raises nearly everything on damaged files
        raise UserError(
            f"{where}: truncated, or no file of CIFAR ({type(error).__name__}: {reason(error)}). {_AGAIN}"
        ) from error
    if not isinstance(loaded, dict):
        raise UserError(f"{where}: no file of CIFAR: holds a {type(loaded).__name__}, expected a dictionary. {_AGAIN}")
    return {_text(key): value for key, value in loaded.items()}


def _text(value: Any) -> str:
    """A text of a file; nothing of another value, of which no text need ever end."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value if isinstance(value, str) else ""


def _images(batch: dict[str, Any], key: str, classes: int, where: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """uint8 [N, 3, 32, 32] and int64 [N] of a batch's dictionary, which holds its labels at `key`."""
    data, labels = batch.get("data"), batch.get(key)
    pixels = _bytes(data)
    if not isinstance(labels, list) or not labels or not all(type(label) is int for label in labels):
        raise UserError(f"{where}: no file of CIFAR: has no list {key!r} (found {shortened(some(sorted(batch)))}). {_AGAIN}")
    if pixels is None or len(pixels) != len(labels) * PIXELS:
        size = "no bytes" if pixels is None else f"{len(pixels)} bytes"
        raise UserError(f"{where}: has {size} of images, expected {PIXELS} for each of {len(labels)} labels. {_AGAIN}")
    if not 0 <= min(labels) <= max(labels) < classes:
        raise UserError(f"{where}: has labels from {min(labels)} to {max(labels)}, expected 0 to {classes - 1}. {_AGAIN}")
    images = np.frombuffer(pixels, np.uint8).reshape(-1, 3, SIDE, SIDE)
    return images.copy(), np.asarray(labels, np.int64)


def _bytes(array: Any) -> bytes | None:
    """The bytes of an inert uint8 array in C order; None where it is another thing."""
    if not isinstance(array, _Array) or not isinstance(array.state, tuple) or len(array.state) != 5:
        return None
    _, _, kind, fortran, content = array.state
    uint8 = isinstance(kind, _Kind) and kind.arguments[:1] in ((b"u1",), ("u1",))
    return content if uint8 and not fortran and isinstance(content, bytes) else None
