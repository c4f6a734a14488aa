"""torch.save files, read without running anything in them.

torch's own restricted unpickler (`weights_only=True`) decides what may be called. Classes that it does not know, such
as the meter objects of published `latest_checkpoint.pt` files, become inert objects: they are never imported, they
may be created and filled, and a call to them refuses the file. Values of the standard library and numpy that are rebuilt by a
call (paths, dates, fractions), and members of enumerations, become inert objects too: nothing of theirs is called.
"""

from __future__ import annotations

import io
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pickle import UnpicklingError
from typing import IO, Any

import torch

from slimtrain.base.errors import CheckpointError
from slimtrain.checkpoints.files.pickle_scan import Scan

PROTOCOL = 2  # of pickle: the only one that torch's restricted unpickler reads
LEGACY_PICKLES = 5  # magic number, protocol, system, object, storage keys
NUMPY = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
PATHS = ("PurePath", "PurePosixPath", "PureWindowsPath", "Path", "PosixPath", "WindowsPath")
# Values that pickle rebuilds by a call, by the modules that name them. The calls make inert objects, and reach nothing.
VALUES: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("builtins",): ("complex", "frozenset", "range", "slice"),
    ("datetime",): ("date", "datetime", "time", "timedelta", "timezone"),
    ("decimal",): ("Decimal",),
    ("fractions",): ("Fraction",),
    ("ipaddress",): ("IPv4Address", "IPv6Address", "IPv4Network", "IPv6Network"),
    ("pathlib", "pathlib._local"): PATHS,
    ("time",): ("struct_time",),
    ("types",): ("SimpleNamespace",),
    ("uuid",): ("SafeUUID", "UUID"),
    NUMPY: ("dtype", "ndarray", "scalar", "_reconstruct"),
    ("numpy.random.bit_generator",): ("__pyx_unpickle_SeedSequence",),
    ("numpy.random._pickle",): ("__bit_generator_ctor", "__generator_ctor", "__randomstate_ctor"),
}
INERT_CALLS = frozenset(f"{module}.{name}" for modules, names in VALUES.items() for module in modules for name in names)
# Containers that the unpickler fills after the call: it fills no others than these.
CONTAINERS: Mapping[str, Callable[[], Any]] = {"collections.defaultdict": OrderedDict, "collections.deque": list}
PLAIN = (str, int, float, tuple)  # values of an enumeration's members


class InertType(type):
    """A class that stands for one named in a file. Calling it is refused, unless it rebuilds a value. `container` makes what
    its objects are filled as, where they are."""

    container: Callable[[], Any] | None = None

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls.container and (cls.__name__ in CONTAINERS or not args):
            return cls.container()
        if cls.__name__ in INERT_CALLS or cls._may_be_enumeration(*args):
            return object.__new__(cls)  # type: ignore[arg-type]
        raise UnpicklingError(f"the file calls {cls.__name__}")

    def _may_be_enumeration(cls, *args: Any) -> bool:
        """Whether a call may be one of an enumeration with a member's value: of somebody's class, by how it is written."""
        module, _, name = cls.__name__.rpartition(".")
        foreign = bool(module) and module.split(".")[0] not in sys.stdlib_module_names
        return foreign and name.lstrip("_")[:1].isupper() and len(args) == 1 and isinstance(args[0], PLAIN)


def _inert(name: str, scan: Scan) -> InertType:
    """The class that stands for `name`. Of one whose objects are filled as dictionaries or lists, plain ones are made: the
    unpickler fills no subclasses."""
    filled: Callable[[], Any] | None = OrderedDict if name in scan.dictionaries else list if name in scan.lists else None

    def remember(self: Any, state: Any) -> None:
        object.__setattr__(self, "state", state)

    def create(cls: type, *args: Any) -> Any:
        return filled() if filled else object.__new__(cls)

    inert = InertType(name, (), {"__setstate__": remember, "__new__": create})
    inert.container = CONTAINERS.get(name, filled)
    return inert


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


def _scan(file: IO[bytes], name: str) -> Scan:
    """What a file's pickles name. CheckpointError for another protocol, and for a legacy file of a whole module."""
    scan = Scan()
    for stream in _pickles(file):
        scan.read(stream)
        if scan.whole_module:
            raise CheckpointError(WHOLE_MODULE.format(name, "module"))
        if other := scan.protocols - {PROTOCOL}:
            raise CheckpointError(
                f"{name}: written with pickle protocol {max(other)}, expected {PROTOCOL}, which torch.save uses by itself. "
                "Save it again without pickle_protocol."
            )
    file.seek(0)
    return scan


def torch_load(file: IO[bytes], name: str) -> Any:
    try:
        # torch's own safe list comes first: an inert class under a name that is on it is never used.
        scan = _scan(file, name)
        with torch.serialization.safe_globals([(_inert(full, scan), full) for full in sorted(scan.names)]):
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


WHOLE_MODULE = (
    "{}: holds a whole pickled {}, expected its state dict. Load it where its code is and it is trusted, and save "
    "model.state_dict()."
)
