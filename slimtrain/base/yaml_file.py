"""YAML files, read without running anything: `!include FILE` is understood, the last of repeated keys counts.

What a text may be is limited, and is measured before values are made of it: its length, how many values it stands for (an
anchor that is named ten times counts ten times), how deep they are, how many digits a number has, and how many files it
includes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from slimtrain.base.errors import UserError
from slimtrain.base.untrusted.opening import read_text
from slimtrain.base.untrusted.quoting import quoted, reason

LONGEST = 1 << 18  # bytes of a file: some hundred times the largest packaged one
VALUES = 20_000  # that a text stands for, keys counted
DEPTH = 16  # of lists and keys within each other
DIGITS = 40  # letters of a number
INCLUDED = 8  # files within each other
FILES = 32  # all that one includes

# What yaml's own constructors raise: of tags of values of another kind nearly anything.
BAD = (yaml.YAMLError, ValueError, RecursionError, ArithmeticError, LookupError, TypeError, AttributeError, AssertionError)


@dataclass
class _Budget:
    """What is left of the limits, for a file and all that it includes."""

    values: int = VALUES
    files: int = FILES

    def take(self, node: yaml.Node) -> None:
        """YAMLError where a text stands for more than is left, deeper or in a circle."""
        self.values -= _measured(node, {}, 0)
        if self.values < 0:
            raise yaml.YAMLError(f"it stands for more than {VALUES:,} values")


def _measured(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """The values that a node stands for. `known` are those of anchors, 0 of one that is being measured."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) in known:
        if not known[id(node)]:
            raise yaml.YAMLError("an anchor contains itself")
        return known[id(node)]
    if depth == DEPTH:
        raise yaml.YAMLError(f"it is nested deeper than {DEPTH} levels")
    known[id(node)] = 0
    known[id(node)] = 1 + sum(_measured(part, known, depth + 1) for part in _parts(node))
    return known[id(node)]


def _parts(node: yaml.Node) -> Iterator[yaml.Node]:
    for part in node.value:
        yield from part if isinstance(part, tuple) else (part,)


class _Loader(yaml.SafeLoader):
    """Reads numbers of few letters only: of those with a hundred thousand, a hexadecimal one is soon made and never shown."""

    composed = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.composed += 1
        if self.composed > VALUES:
            raise yaml.YAMLError(f"it holds more than {VALUES:,} values")
        return super().compose_node(parent, index)

    def number(self, node: yaml.ScalarNode) -> Any:
        if len(node.value) > DIGITS:
            raise yaml.YAMLError(f"the number {quoted(node.value, DIGITS)} has more than {DIGITS} letters")
        kind = self.construct_yaml_int if node.tag.endswith(":int") else self.construct_yaml_float
        return kind(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.number)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.number)


@dataclass
class _Place:
    """Where a text stands: what it includes is beside it."""

    path: Path
    depth: int = 0
    budget: _Budget = field(default_factory=_Budget)


def load_yaml(path: Path) -> Any:
    """The YAML of `path`, safely loaded, `!include`d files put in place. UserError where it cannot be read, or is more than a
    text of the kind is."""
    return _load(_Place(path))


def parse_yaml(text: str) -> Any:
    """The value of a short text, as an option has it; nothing is included. ValueError where it is none."""
    try:
        return _value(_Loader(text), _Budget())
    except BAD as error:
        raise ValueError(_said(error)) from error


def _load(place: _Place) -> Any:
    path, depth, budget = place.path, place.depth, place.budget

    class Loader(_Loader):
        pass

    def include(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
        if depth > INCLUDED:
            raise UserError(f"{path}: !include goes deeper than {INCLUDED} files, is it a circle?")
        budget.files -= 1
        if budget.files < 0:
            raise UserError(f"{path}: more than {FILES} files are included, is it a circle?")
        if not isinstance(node, yaml.ScalarNode):
            raise yaml.YAMLError("!include is followed by something that is no file's name")
        return _load(_Place(path.parent / str(loader.construct_scalar(node)), depth + 1, budget))

    Loader.add_constructor("!include", include)
    try:
        return _value(Loader(read_text(path, LONGEST)), budget)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({reason(error)}).") from error
    except UserError:
        raise
    except BAD as error:
        raise UserError(f"{path}: is not YAML that can be read here: {_said(error)}.") from error


def _value(loader: _Loader, budget: _Budget) -> Any:
    """The value of the one document that a loader reads."""
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        budget.take(node)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _said(error: BaseException) -> str:
    """What is wrong, in one line without the lines that it stands in."""
    if isinstance(error, RecursionError):
        return f"it is nested deeper than {DEPTH} levels"
    if not isinstance(error, yaml.YAMLError | ValueError):
        return "a tag is of a value of another kind"
    return reason(error).rstrip(".")
