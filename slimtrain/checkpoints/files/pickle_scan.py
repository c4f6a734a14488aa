"""What a pickle names and fills, read off its instructions: nothing is made or called.

The pickle machine's stack is followed with the names of classes in place of objects, so that it is known whose objects get
items as dictionaries and lists do: settings are often kept in subclasses of these.
"""

from __future__ import annotations

import _compat_pickle
import pickletools
from dataclasses import dataclass, field
from typing import IO, Any

DICTIONARY, LIST = ("SETITEM", "SETITEMS"), ("APPEND", "APPENDS")
PUTS, GETS = ("BINPUT", "LONG_BINPUT", "PUT"), ("BINGET", "LONG_BINGET", "GET")


@dataclass
class Scan:
    """`names` are the classes and functions that the pickles name, under their Python 3 names; objects of `dictionaries` and
    `lists` are filled as such. `protocols` are those of the pickles, `whole_module` whether a legacy file keeps one: it has
    ("module", class, ...) where others have ("storage", ...)."""

    names: set[str] = field(default_factory=set)
    dictionaries: set[str] = field(default_factory=set)
    lists: set[str] = field(default_factory=set)
    protocols: set[int] = field(default_factory=set)
    whole_module: bool = False

    def read(self, stream: IO[bytes]) -> None:
        """Take in one pickle, up to its end. ValueError, IndexError and others where it is damaged."""
        stack: list[str] = []  # the class that an object is of, or a class that was named; "" for anything else
        marks: list[int] = []
        memo: dict[Any, str] = {}
        previous, first = "", None  # the instruction before, and what comes first in the innermost tuple
        for opcode, argument, _ in pickletools.genops(stream):
            if previous == "MARK":
                first = argument
            previous = opcode.name
            if opcode.name == "BINPERSID" and first == "module":
                self.whole_module = True
            if opcode.name == "PROTO":
                self.protocols.add(int(argument or 0))
            if opcode.name == "MARK":
                marks.append(len(stack))
            elif opcode.name in PUTS:
                memo[argument] = stack[-1]
            elif opcode.name in GETS:
                stack.append(memo.get(argument, ""))
            elif opcode.name == "GLOBAL":
                stack.append(_python3_name(argument))
                self.names.add(stack[-1])
            else:
                self._follow(opcode, stack, marks)

    def _follow(self, opcode: pickletools.OpcodeInfo, stack: list[str], marks: list[int]) -> None:
        """Take off the stack what an instruction takes, and put on what it makes."""
        takes, gives = opcode.stack_before, opcode.stack_after
        result = stack[-2] if opcode.name in ("NEWOBJ", "REDUCE", "BUILD") else ""
        if pickletools.markobject in takes:
            del stack[marks.pop() :]
            takes = takes[: takes.index(pickletools.markobject)]
        if opcode.name in ("SETITEM", "APPEND"):
            del stack[-(len(takes) - 1) :]
            takes = takes[:1]
        if opcode.name in (*DICTIONARY, *LIST):  # the object that is filled stays
            (self.dictionaries if opcode.name in DICTIONARY else self.lists).add(stack[-1])
            return
        if takes:
            del stack[-len(takes) :]
        stack.extend([result] * len(gives))


def _python3_name(argument: object) -> str:
    module, _, attribute = str(argument).partition(" ")
    if (module, attribute) in _compat_pickle.NAME_MAPPING:
        module, attribute = _compat_pickle.NAME_MAPPING[module, attribute]
    return f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{attribute}"
