"""Pieces of an ONNX file, written anew without the onnx package: some of its nodes, between values that are given and values
that are wanted.

A value that is given takes the place of what the file computes there; it may be wanted too, and then is what the file computes
of the values that are given before it. A piece takes all given values as one input, after each other in a row, and gives
float32. Nodes and stored tensors are copied byte by byte; nothing of them is believed or run here.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from slimexport.target.inside.protobuf import bytes_field, number_field, text_field
from slimexport.target.onnx_scan import GRAPH, INITIALIZER, INPUT, NAME, NODE, OUTPUT, Malformed, Walk

IR_VERSION, OPSETS = 1, 8  # of a model
GRAPH_NAME = 2
READS, WRITES, OPERATOR, ATTRIBUTE = 1, 2, 4, 5  # of a node
TENSOR_NAME = 8
FLOAT, INT64 = 1, 7  # types of tensors
PACKED, SIZES = "inside/packed", "inside/sizes"
NEEDS_SPLIT = 13  # the first opset whose Split takes sizes as a tensor


class NotThere(ValueError):
    """A file has no value of a name; the message says which."""


@dataclass(frozen=True)
class Place:
    """A value of a file: its name, its shape, and the type of its numbers, as ONNX counts them."""

    name: str
    shape: tuple[int, ...]
    kind: int = FLOAT

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Piece:
    """A piece's `content`, and which of the given values it `takes`, in their order: float32 [1, all of their numbers]. It
    gives what was wanted, in that order."""

    content: bytes
    takes: tuple[Place, ...]


@dataclass(frozen=True)
class _Node:
    begin: int
    end: int
    reads: tuple[bytes, ...]
    writes: tuple[bytes, ...]


class Pieces:
    """A file in `content`, as its pieces are cut out. Malformed where it is no ONNX file."""

    def __init__(self, content: bytes) -> None:
        self.content, self._walk = content, Walk(content)
        self._nodes: list[_Node] = []
        self._stored: dict[bytes, tuple[int, int]] = {}
        self._head: list[bytes] = []
        for number, begin, end, value in self._walk.fields(0, len(content)):
            if number == GRAPH:
                self._read_graph(begin, end)
            elif number == IR_VERSION:
                self._head.append(number_field(number, value))
            elif number == OPSETS:
                self._head.append(bytes_field(number, content[begin:end]))
        self._writers = {name: place for place, node in enumerate(self._nodes) for name in node.writes if name}

    def _read_graph(self, begin: int, end: int) -> None:
        for number, first, last, _ in self._walk.fields(begin, end):
            if number == NODE:
                names: dict[int, list[bytes]] = {READS: [], WRITES: []}
                for field, a, b, _ in self._walk.fields(first, last):
                    if field in names:
                        names[field].append(self.content[a:b])
                self._nodes.append(_Node(first, last, tuple(names[READS]), tuple(names[WRITES])))
            elif number == INITIALIZER:
                fields = self._walk.fields(first, last)
                name = next((self.content[a:b] for field, a, b, _ in fields if field == TENSOR_NAME), b"")
                self._stored[name] = first, last

    def between(self, given: Sequence[Place], wanted: Sequence[str]) -> Piece:
        """The piece that gives the `wanted` values from the `given` ones. NotThere where nothing in the file computes one that
        is wanted, or a value before it."""
        cut = {place.name.encode(): place for place in given}
        starts = [name.encode() for name in wanted]
        nodes, stored, taken = self._needed(cut, starts)
        takes = tuple(place for name, place in cut.items() if name in taken)
        graph = [text_field(GRAPH_NAME, "inside"), *_unpacked(takes)]
        for number in sorted(nodes):
            graph.append(bytes_field(NODE, self._renamed(self._nodes[number], cut)))
        for name in sorted(stored):
            first, last = self._stored[name]
            graph.append(bytes_field(INITIALIZER, self.content[first:last]))
        for number, name in enumerate(starts):
            seen = f"inside/{number}.seen"
            graph.append(_node("Cast", [_inner(name) if name in cut else name], [seen], "to", FLOAT))
            graph.append(bytes_field(OUTPUT, _value(seen, None)))
        graph.append(bytes_field(INPUT, _value(PACKED, (1, sum(place.size for place in takes)))))
        return Piece(b"".join([*self._head, bytes_field(GRAPH, b"".join(graph))]), takes)

    def _needed(self, cut: dict[bytes, Place], starts: Sequence[bytes]) -> tuple[set[int], set[bytes], set[bytes]]:
        """The nodes, stored tensors and given values that what is wanted depends on."""
        nodes, stored, taken = set[int](), set[bytes](), set[bytes]()
        pending = []
        for name in starts:
            if name not in self._writers:
                raise NotThere(name.decode("utf-8", "replace"))
            pending.append(self._writers[name])
        while pending:
            number = pending.pop()
            if number in nodes:
                continue
            nodes.add(number)
            for name in filter(None, self._nodes[number].reads):
                if name in cut:
                    taken.add(name)
                elif name in self._stored:
                    stored.add(name)
                elif name in self._writers:
                    pending.append(self._writers[name])
                else:
                    raise NotThere(name.decode("utf-8", "replace"))
        return nodes, stored, taken

    def _renamed(self, node: _Node, cut: dict[bytes, Place]) -> bytes:
        """A node that writes no value which is given, but one beside it."""
        if not cut.keys() & set(node.writes):
            return self.content[node.begin : node.end]
        parts = []
        for number, begin, end, value in self._walk.fields(node.begin, node.end):
            content = self.content[begin:end]
            if number == WRITES and content in cut:
                content = _inner(content)
            parts.append(bytes_field(number, content) if end > begin or not value else number_field(number, value))
        return b"".join(parts)


def _inner(name: bytes) -> bytes:
    return name + b"/inside"


def _unpacked(takes: Sequence[Place]) -> Iterator[bytes]:
    """What takes a piece's input apart."""
    parts = [f"inside/{number}.part" for number in range(len(takes))]
    if parts:
        yield _node("Split", [PACKED, SIZES], parts, "axis", 1)
        yield bytes_field(INITIALIZER, _int64(SIZES, [place.size for place in takes]))
    for number, (part, place) in enumerate(zip(parts, takes, strict=True)):
        shape, single = f"inside/{number}.shape", f"inside/{number}.float"
        yield bytes_field(INITIALIZER, _int64(shape, place.shape))
        yield _node("Reshape", [part, shape], [place.name if place.kind == FLOAT else single])
        if place.kind != FLOAT:
            yield _node("Cast", [single], [place.name], "to", place.kind)


# ------------------------------------------------------------------------------------------------ parts of ONNX files


def _node(
    operator: str, reads: Sequence[str | bytes], writes: Sequence[str], attribute: str | None = None, value: int = 0
) -> bytes:
    """A graph's field of a node, with at most one whole number for an attribute."""
    names = [name.encode() if isinstance(name, str) else name for name in reads]
    parts = [
        *(bytes_field(READS, name) for name in names),
        *(text_field(WRITES, name) for name in writes),
        text_field(OPERATOR, operator),
    ]
    if attribute is not None:
        parts.append(
            bytes_field(ATTRIBUTE, text_field(1, attribute) + number_field(3, value) + number_field(20, 2))
        )  # name, i, type: INT
    return bytes_field(NODE, b"".join(parts))


def _int64(name: str, values: Sequence[int]) -> bytes:
    """A tensor of one dimension."""
    raw = struct.pack(f"<{len(values)}q", *values)
    return number_field(1, len(values)) + number_field(2, INT64) + text_field(TENSOR_NAME, name) + bytes_field(9, raw)


def _value(name: str, shape: Sequence[int] | None) -> bytes:
    """What a graph says of an input or output: float32, of a `shape` if that is known."""
    tensor = number_field(1, FLOAT)
    if shape is not None:
        tensor += bytes_field(2, b"".join(bytes_field(1, number_field(1, size)) for size in shape))
    return text_field(NAME, name) + bytes_field(2, bytes_field(1, tensor))


__all__ = ["FLOAT", "Malformed", "NotThere", "Piece", "Pieces", "Place"]
