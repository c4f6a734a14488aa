"""What a module gives out where that is more than a tensor: tensors within dictionaries, tuples and lists, as plain values."""

from __future__ import annotations

import keyword
import re
from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

TENSOR, NOTHING, DICTIONARY, TUPLE, LIST = "tensor", "nothing", "dictionary", "tuple", "list"
KINDS = (TENSOR, NOTHING, DICTIONARY, TUPLE, LIST)
OUTPUT = "output"
TAKEN = re.compile(r"input(_\d+)?")  # what inputs are called in files


@dataclass(frozen=True)
class Structure:
    """One of KINDS, with its `parts`. `keys`: of a dictionary, or the names of a named tuple's parts. `nothing` is None."""

    kind: str = TENSOR
    parts: tuple[Structure, ...] = ()
    keys: tuple[str | int, ...] = ()

    def __post_init__(self) -> None:
        _ = self._named  # before anything that compiles a network can meet the making of a class

    def __reduce__(self) -> tuple[Any, ...]:
        return Structure, (self.kind, self.parts, self.keys)  # without the class, which no other process could import

    @cached_property
    def _named(self) -> Callable[..., tuple[Any, ...]] | None:
        """A named tuple of its keys, if they can be names; the user's own class would have to be imported."""
        names = [key for key in self.keys if isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key)]
        if self.kind != TUPLE or not names or len(names) < len(self.keys) or any(name.startswith("_") for name in names):
            return None
        return namedtuple("Outputs", names)

    @cached_property
    def tensors(self) -> int:
        """How many tensors there are in it."""
        return int(self.kind == TENSOR) + sum(part.tensors for part in self.parts)

    def filled(self, tensors: Sequence[Any]) -> Any:
        """The structure with `tensors` in it, in their order. A named tuple comes as one of the same names."""
        left = iter(tensors)
        return self._filled(left)

    def _filled(self, left: Iterator[Any]) -> Any:
        if self.kind == TENSOR:
            return next(left)
        parts = [part._filled(left) for part in self.parts]
        if self.kind == DICTIONARY:
            return dict(zip(self.keys, parts, strict=True))
        if self._named is not None:
            return self._named(*parts)
        return {NOTHING: None, TUPLE: tuple(parts), LIST: parts}[self.kind]

    def _paths(self) -> Iterator[tuple[str | int, ...]]:
        """Where every tensor stands: keys, and numbers of parts without."""
        if self.kind == TENSOR:
            yield ()
        for key, part in zip(self.keys or range(len(self.parts)), self.parts, strict=True):
            for path in part._paths():
                yield key, *path

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What the tensors are called in files: by their keys (`out`, `head_box`) and numbers (`maps_0`), where there is no
        key `output_0`, alone `output`. No two are alike, none is called as an input."""
        names: list[str] = []
        for path in self._paths():
            words = [str(key) for key in path if isinstance(key, str) or self.tensors > 1]
            name = re.sub(r"\W", "_", "_".join(words), flags=re.ASCII)
            if not name.strip("_") or name[0].isdigit() or TAKEN.fullmatch(name):
                name = "_".join([OUTPUT, *([name] if name.strip("_") else [])])
            while name in names:
                name += "_"
            names.append(name)
        return tuple(names)


LONGEST_KEY = 200  # characters: keys become names in files


def usual_structure(tensors: int) -> Structure:
    """Of so many tensors that stand in nothing: one alone, several in a tuple."""
    return Structure() if tensors == 1 else Structure(TUPLE, (Structure(),) * tensors)


def plain_structure(structure: Structure) -> list[Any]:
    """As checkpoints hold it."""
    return [structure.kind, list(structure.keys), [plain_structure(part) for part in structure.parts]]


def read_structure(content: Any) -> Structure:
    """The inverse of `plain_structure`. ValueError or TypeError for what is none."""
    kind, keys, parts = content
    if not isinstance(keys, list | tuple) or any(len(str(key)) > LONGEST_KEY for key in keys):
        raise ValueError(f"{str(keys)[:LONGEST_KEY]!r} are no keys of outputs")
    structure = Structure(kind, tuple(read_structure(part) for part in parts), tuple(keys))
    if kind not in KINDS or (structure.parts and kind in (TENSOR, NOTHING)):
        raise ValueError(f"{kind!r} is no kind of output")
    if any(type(key) not in (str, int) for key in keys) or len(set(keys)) != len(keys):
        raise ValueError(f"{keys!r} are no keys of outputs")
    if len(keys) != len(parts) and (keys or kind == DICTIONARY):
        raise ValueError(f"{len(keys)} keys of {len(parts)} outputs")
    return structure
