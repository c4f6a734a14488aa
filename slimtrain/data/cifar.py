"""CIFAR-10 and CIFAR-100 from their published Python files, read without running anything in them.

The files are pickles. Unpickling may call whatever a pickle names, so the few names that CIFAR's files need stand here
for inert objects that only keep what they are given; every other name refuses the file. numpy is not called by it.
"""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimtrain.base.errors import UserError
from slimtrain.base.text import some
from slimtrain.data.catalog import DataRequest
from slimtrain.data.folders import data_folder, entry_names
from slimtrain.data.samples import ArraySamples

SIDE = 32  # pixels
PIXELS = 3 * SIDE * SIDE
MAX_MEMBER = 1 << 30  # bytes, of a file in an archive; the largest published one has 155 MB


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
        return (folder / file).read_bytes()
    except OSError as error:
        raise UserError(f"{folder / file}: cannot be read ({error.strerror or error}). {_AGAIN}") from error


def _unpack(archive: Path, layout: Layout) -> dict[str, bytes]:
    """The wanted files of an archive, in memory: nothing is written."""
    wanted, contents = {layout.meta, layout.test, *layout.train}, {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                file = Path(member.name).name
                if member.isreg() and file in wanted and member.size < MAX_MEMBER:
                    stream = tar.extractfile(member)
                    assert stream is not None  # only for what is not a file
                    contents[file] = stream.read()
    except Exception as error:  # tarfile and its decompressors raise a dozen kinds on damaged archives
        raise UserError(f"{archive}: truncated or no tar archive ({error}), expected {layout.archive}. {_AGAIN}") from error
    return contents


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


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it calls {module}.{name}")
        return _KNOWN[module, name]


def _load(content: bytes, where: str) -> dict[str, Any]:
    """The dictionary of a file, keys as text; UserError where it is damaged, foreign, or would run code."""
    try:
        loaded = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # pickle raises nearly everything on damaged files
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{where}: truncated, or no file of CIFAR ({reason}). {_AGAIN}") from error
    if not isinstance(loaded, dict):
        raise UserError(f"{where}: no file of CIFAR: holds a {type(loaded).__name__}, expected a dictionary. {_AGAIN}")
    return {_text(key): value for key, value in loaded.items()}


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _images(batch: dict[str, Any], key: str, classes: int, where: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """uint8 [N, 3, 32, 32] and int64 [N] of a batch's dictionary, which holds its labels at `key`."""
    data, labels = batch.get("data"), batch.get(key)
    pixels = _bytes(data)
    if not isinstance(labels, list) or not labels or not all(type(label) is int for label in labels):
        raise UserError(f"{where}: no file of CIFAR: has no list {key!r} (found {some(sorted(batch))}). {_AGAIN}")
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
