"""A pickle of protocol 2, followed instruction by instruction: what comes out are plain values, inert objects and descriptions
of tensors.

It knows the instructions that torch's own restricted reader (`weights_only=True`) knows, and differs from it in three things:
no function of torch is called, attributes that a file gives to dictionaries and tensors are dropped (one called `items` would
hide the method), and lengths are limited.
"""

from __future__ import annotations

import _compat_pickle
import struct
from collections.abc import Callable
from typing import IO, Any

from slimtrain.checkpoints.files.calls import KNOWN, Call, fill
from slimtrain.checkpoints.files.claims import LARGEST, Damaged, ElementType, OddTensor, Storage, element_type
from slimtrain.checkpoints.files.inert import Inert, InertType, Refused, inert_type

PROTOCOL = 2
STEPS = 5_000_000  # instructions of one pickle: more than a million entries need, and soon over
TEXT = 1 << 24  # bytes of one text
NAME = 1000  # letters of a class's name


class OtherProtocol(Exception):
    """A pickle of another protocol than torch.save uses by itself."""


class WholeModule(Exception):
    """A legacy file that keeps a module with its source."""


class Machine:
    """Reads the pickles of one file, one after the other; classes that several of them name are the same ones."""

    def __init__(self) -> None:
        self.types: dict[str, Any] = {}
        self.storages: dict[str, int] = {}  # key -> its bytes

    def read(self, stream: IO[bytes]) -> Any:
        """The value of the next pickle, which the stream is then behind. Damaged, Refused, OtherProtocol and WholeModule; and
        KeyError, IndexError, TypeError, ValueError, AttributeError and others where it is damaged."""
        self.stream, self.stack, self.memo = stream, [], {}  # type: tuple[IO[bytes], list[Any], dict[int, Any]]
        self.marks: list[list[Any]] = []
        read, instructions = stream.read, INSTRUCTIONS
        for _ in range(STEPS):
            code = read(1)
            if code == b".":
                return self.stack.pop()
            step = instructions.get(code)
            if step is None:
                raise EOFError("it ends early") if not code else Refused(f"instruction {code!r}")
            step(self)
        raise Damaged(f"more than {STEPS:,} instructions")

    def take(self, size: int) -> bytes:
        """The next `size` bytes. EOFError where the file ends before."""
        if size > TEXT:
            raise Damaged(f"a text of {size:,} bytes")
        data = self.stream.read(size)
        if len(data) < size:
            raise EOFError("it ends early")
        return data

    def line(self) -> str:
        line = self.stream.readline(NAME)
        if not line.endswith(b"\n"):
            raise Damaged("a class's name does not end")
        return line[:-1].decode()

    def name(self) -> None:
        """GLOBAL: a class or a function."""
        module, name = self.line(), self.line()
        if (module, name) in _compat_pickle.NAME_MAPPING:
            module, name = _compat_pickle.NAME_MAPPING[module, name]
        module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        full = f"{module}.{name}"
        if full not in self.types:
            self.types[full] = KNOWN.get(full) or element_type(module, name) or inert_type(full)
        self.stack.append(self.types[full])

    def call(self) -> None:
        """REDUCE."""
        arguments, function = self.stack.pop(), self.stack[-1]
        if isinstance(function, Call) and isinstance(arguments, tuple):
            self.stack[-1] = function.function(*arguments)
        elif isinstance(function, InertType) and isinstance(arguments, tuple):
            self.stack[-1] = function.result(*arguments)
        else:
            raise Refused(f"the file calls a {type(function).__name__}")

    def create(self) -> None:
        """NEWOBJ: an object of a class, without what its constructor does."""
        arguments, cls = self.stack.pop(), self.stack[-1]
        if isinstance(cls, InertType):
            self.stack[-1] = cls.blank()
        elif isinstance(cls, Call) and isinstance(arguments, tuple):
            self.stack[-1] = cls.function(*arguments)
        else:
            raise Refused(f"the file makes a {type(cls).__name__}")

    def build(self) -> None:
        """BUILD: attributes. Only inert objects keep them."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Inert):
            target.state = state
        elif not isinstance(target, dict | list | OddTensor):
            raise Refused(f"the file sets attributes of a {type(target).__name__}")

    def storage(self) -> None:
        """BINPERSID: ("storage", class, key, device, number of elements), in legacy files with what part of it is meant."""
        reference = self.stack.pop()
        kind = reference[0] if isinstance(reference, tuple) and reference else None
        if kind in ("module", b"module"):
            raise WholeModule
        if kind not in ("storage", b"storage"):
            raise Refused("the file refers to something that is no storage")
        elements, key, _, count, *part = reference[1:]
        if not isinstance(elements, ElementType):
            raise Refused("the file keeps a storage of no known type")
        if not isinstance(key, str) or type(count) is not int or not 0 <= count < LARGEST:
            raise Damaged("a storage without a key or a number of elements")
        size = count * elements.size
        if self.storages.setdefault(key, size) != size:
            raise Damaged("a storage of two sizes")
        if part and part[0] is not None:
            _, start, length = part[0]
            if not all(type(number) is int and number >= 0 for number in (start, length)) or start + length > count:
                raise Damaged("a part of a storage that reaches beyond it")
            self.stack.append(Storage(key, elements, length, count, start))
        else:
            self.stack.append(Storage(key, elements, count, count))

    # ------------------------------------------------------------------------------------------------ what fills

    def since_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Inert):
            type(target).container = type(target).container or dict
            target.entries = target.entries if target.entries is not None else {}
            target = target.entries
        if not isinstance(target, dict) or len(items) % 2:
            raise Damaged(f"entries of a {type(target).__name__}")
        for position in range(0, len(items), 2):
            fill(target, items[position], items[position + 1])

    def append_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Inert):
            type(target).container = type(target).container or list
            target.elements = target.elements if target.elements is not None else []
            target = target.elements
        if not isinstance(target, list):
            raise Damaged(f"elements of a {type(target).__name__}")
        target.extend(items)

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def tuple_of(self, number: int) -> None:
        if len(self.stack) < number:
            raise Damaged("a tuple of what is not there")
        self.stack[-number:] = [tuple(self.stack[-number:])]

    # ----------------------------------------------------------------------------------------------- small values

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def number(self, form: str, size: int) -> Any:
        return struct.unpack(form, self.take(size))[0]

    def protocol(self) -> None:
        if (number := self.take(1)[0]) != PROTOCOL:
            raise OtherProtocol(number)


Step = Callable[[Machine], Any]
INSTRUCTIONS: dict[bytes, Step] = {
    b"q": lambda m: m.memo.__setitem__(m.take(1)[0], m.stack[-1]),
    b"r": lambda m: m.memo.__setitem__(m.number("<I", 4), m.stack[-1]),
    b"h": lambda m: m.push(m.memo[m.take(1)[0]]),
    b"j": lambda m: m.push(m.memo[m.number("<I", 4)]),
    b"X": lambda m: m.push(str(m.take(m.number("<I", 4)), "utf-8", "surrogatepass")),
    b"U": lambda m: m.push(str(m.take(m.take(1)[0]), "utf-8")),
    b"K": lambda m: m.push(m.take(1)[0]),
    b"M": lambda m: m.push(m.number("<H", 2)),
    b"J": lambda m: m.push(m.number("<i", 4)),
    b"G": lambda m: m.push(m.number(">d", 8)),
    b"\x8a": lambda m: m.push(int.from_bytes(m.take(m.take(1)[0]), "little", signed=True)),
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b")": lambda m: m.push(()),
    b"]": lambda m: m.push([]),
    b"}": lambda m: m.push({}),
    b"(": Machine.mark,
    b"t": lambda m: m.push(tuple(m.since_mark())),
    b"\x85": lambda m: m.tuple_of(1),
    b"\x86": lambda m: m.tuple_of(2),
    b"\x87": lambda m: m.tuple_of(3),
    b"a": lambda m: m.append_items([m.stack.pop()]),
    b"e": lambda m: m.append_items(m.since_mark()),
    b"s": Machine.set_item,
    b"u": lambda m: m.set_items(m.since_mark()),
    b"c": Machine.name,
    b"R": Machine.call,
    b"\x81": Machine.create,
    b"b": Machine.build,
    b"Q": Machine.storage,
    b"\x80": Machine.protocol,
}
