"""Objects in place of classes that a checkpoint names: they hold what the file puts into them, and nothing of theirs is
imported or called.

Values of the standard library and numpy that are rebuilt by a call (paths, dates, fractions), and members of enumerations, are
such objects too. Objects that are filled as dictionaries or lists become plain ones: settings are often kept in subclasses.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Set
from typing import Any

NUMPY = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
PATHS = ("PurePath", "PurePosixPath", "PureWindowsPath", "Path", "PosixPath", "WindowsPath")
# Values that pickle rebuilds by a call, by the modules that name them. The calls make inert objects, and reach nothing.
VALUES: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("builtins",): ("complex", "frozenset", "range", "set", "slice"),
    ("datetime",): ("date", "datetime", "time", "timedelta", "timezone"),
    ("decimal",): ("Decimal",),
    ("fractions",): ("Fraction",),
    ("ipaddress",): ("IPv4Address", "IPv6Address", "IPv4Network", "IPv6Network"),
    ("pathlib", "pathlib._local"): PATHS,
    ("time",): ("struct_time",),
    ("torch",): ("Size", "device"),
    ("torch.serialization",): ("_get_layout",),
    ("types",): ("SimpleNamespace",),
    ("uuid",): ("SafeUUID", "UUID"),
    NUMPY: ("dtype", "ndarray", "scalar", "_reconstruct"),
    ("numpy.random.bit_generator",): ("__pyx_unpickle_SeedSequence",),
    ("numpy.random._pickle",): ("__bit_generator_ctor", "__generator_ctor", "__randomstate_ctor"),
}
INERT_CALLS: Set[str] = frozenset(
    f"{module}.{name}" for modules, names in VALUES.items() for module in modules for name in names
)
CONTAINERS: Mapping[str, type] = {"collections.defaultdict": dict, "collections.deque": list}
PLAIN = (str, int, float, tuple)  # values of an enumeration's members


class Refused(Exception):
    """What a file asks for is not done: it would run code, or is of no known kind."""


class InertType(type):
    """A class that stands for one named in a file. `container` is what its objects are filled as, where one of them is;
    `called` says that one was made by a call without arguments, as dictionaries and lists of somebody's are."""

    container: type | None
    called: bool

    def result(cls, *arguments: Any) -> Any:
        """What a call of it gives: an object of it where the call rebuilds a value; Refused for any other."""
        if not arguments:
            cls.called = True
        elif cls.__name__ not in (*CONTAINERS, *INERT_CALLS) and not cls._may_be_enumeration(*arguments):
            raise Refused(f"the file calls {cls.__name__}")
        return cls.blank()

    def check(cls) -> None:
        """Refused where it was called, and neither is a value nor was ever filled."""
        if cls.called and not cls.container and cls.__name__ not in INERT_CALLS:
            raise Refused(f"the file calls {cls.__name__}")

    def blank(cls) -> Any:
        """A new object of it, empty."""
        return object.__new__(cls)  # type: ignore[arg-type]

    def _may_be_enumeration(cls, *arguments: Any) -> bool:
        """Whether a call may be one of an enumeration with a member's value: of somebody's class, by how it is written."""
        module, _, name = cls.__name__.rpartition(".")
        foreign = bool(module) and module.split(".")[0] not in sys.stdlib_module_names
        return foreign and name.lstrip("_")[:1].isupper() and len(arguments) == 1 and isinstance(arguments[0], PLAIN)


class Inert(metaclass=InertType):
    """What all inert objects are. `state` is what the file gave them, `entries` and `elements` what it filled them with."""

    container: type | None = None
    called = False
    state: Any = None
    entries: dict[Any, Any] | None = None
    elements: list[Any] | None = None


def inert_type(name: str) -> InertType:
    """The class that stands for the one of this full name."""
    return InertType(name, (Inert,), {"container": CONTAINERS.get(name)})
