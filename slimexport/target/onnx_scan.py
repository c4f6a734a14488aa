"""What an ONNX file asks of whoever loads it, before anything does: the onnx package is not on targets, so its protobuf is
walked here, field by field, without a value of it being believed.

Files that this package writes are whole and straight: their weights are inside, every operator runs once, and all are of ONNX
itself. Others make a runtime read any file on the disk (external data) or run for ever (Loop, Scan), and are refused. Numbers
of fields are those of onnx.proto.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from slimexport.target.errors import BundleError
from slimtrain.base.untrusted.opening import open_file
from slimtrain.base.untrusted.quoting import quoted, reason

MOST_FIELDS = 2_000_000  # a network of 1,000 layers has 30,000
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
FIXED = {FIXED64: 8, FIXED32: 4}
GRAPH, FUNCTIONS, TRAINING = 7, 25, 20  # of a model
NODE, INITIALIZER, INPUT, OUTPUT, SPARSE = 1, 5, 11, 12, 15  # of a graph
OPERATOR, ATTRIBUTE, DOMAIN = 4, 5, 7  # of a node
TENSOR, SUBGRAPH, TENSORS, SUBGRAPHS, SPARSE_TENSOR, SPARSE_TENSORS = 5, 6, 10, 11, 22, 23  # of an attribute
EXTERNAL_DATA, LOCATION = 13, 14  # of a tensor
NAME = 1  # of an input or output
DOMAINS = ("", "ai.onnx", "com.microsoft")  # the last: what runtimes add to ONNX's own operators
PLUGINS = (("trt.plugins", "EfficientNMS_TRT"),)  # what TensorRT brings itself: detectors' files may end in it


class Malformed(ValueError):
    """Bytes are no protobuf of the kind; the message says how."""


@dataclass(frozen=True)
class OnnxOutline:
    """Names of what a file takes, its initializers left out, and gives; the operators that it uses."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operators: frozenset[str]


def check_onnx(path: Path) -> OnnxOutline:
    """The outline of an ONNX file. BundleError where it is damaged, or asks for more than to be run on its input."""
    try:
        with open_file(path) as file:
            if not os.fstat(file.fileno()).st_size:
                raise Malformed("is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return Walk(content).model()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({reason(error)}). Copy the bundle again, or export again.") from error
    except Malformed as error:
        raise BundleError(f"{path}: {error}. The file is damaged, or not one that slimexport wrote: export again.") from error


class Walk:
    """One walk over a file's bytes. Malformed."""

    def __init__(self, content: bytes | mmap.mmap) -> None:
        self.content = content
        self.left = MOST_FIELDS

    def fields(self, begin: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """(number, begin, end, value) of the fields between two places; of a number begin is end, of bytes value is 0."""
        at = begin
        while at < end:
            self.left -= 1
            if self.left < 0:
                raise Malformed(f"has more than {MOST_FIELDS:,} fields")
            key, at = self.varint(at, end)
            wire, value = key & 7, 0
            if wire == VARINT:
                value, at = self.varint(at, end)
                first = last = at
            elif wire == BYTES:
                size, first = self.varint(at, end)
                at = last = first + size
            elif wire in FIXED:
                first, at = at, at + FIXED[wire]
                last = at
            else:
                raise Malformed("is no ONNX file")
            if at > end:
                raise Malformed("is no whole ONNX file")
            yield key >> 3, first, last, value

    def varint(self, at: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while at < end and shift < 70:
            byte = self.content[at]
            value |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                return value, at
        raise Malformed("is no whole ONNX file")

    def text(self, begin: int, end: int) -> str:
        return self.content[begin : min(end, begin + 200)].decode("utf-8", "replace")

    def model(self) -> OnnxOutline:
        outline = None
        for number, begin, end, _ in self.fields(0, len(self.content)):
            if number == GRAPH:
                if outline is not None:
                    raise Malformed("holds two graphs")
                outline = self.graph(begin, end)
            elif number in (FUNCTIONS, TRAINING):
                raise Malformed("defines functions of its own, or training steps, which are not run here")
        if outline is None:
            raise Malformed("is no ONNX file: it holds no graph")
        return outline

    def graph(self, begin: int, end: int) -> OnnxOutline:
        inputs: list[str] = []
        outputs: list[str] = []
        operators: set[str] = set()
        initializers: set[str] = set()
        for number, first, last, _ in self.fields(begin, end):
            if number == NODE:
                operators.add(self.node(first, last))
            elif number == INITIALIZER:
                initializers.add(self.tensor(first, last))
            elif number == SPARSE:
                self.sparse(first, last)
            elif number in (INPUT, OUTPUT):
                name = next((self.text(a, b) for field, a, b, _ in self.fields(first, last) if field == NAME), "")
                (inputs if number == INPUT else outputs).append(name)
        given = tuple(name for name in inputs if name not in initializers)
        return OnnxOutline(given, tuple(outputs), frozenset(operators))

    def node(self, begin: int, end: int) -> str:
        """Its operator's name."""
        operator = domain = ""
        attributes = []
        for number, first, last, _ in self.fields(begin, end):
            if number == OPERATOR:
                operator = self.text(first, last)
            elif number == DOMAIN:
                domain = self.text(first, last)
            elif number == ATTRIBUTE:
                attributes.append((first, last))
        if domain not in DOMAINS and (domain, operator) not in PLUGINS:
            raise Malformed(f"uses the operator {quoted(operator)} of {quoted(domain)}, expected those of ONNX")
        for place in attributes:
            self.attribute(operator, *place)
        return operator

    def attribute(self, operator: str, begin: int, end: int) -> None:
        for number, first, last, _ in self.fields(begin, end):
            if number in (TENSOR, TENSORS):
                self.tensor(first, last)
            elif number in (SPARSE_TENSOR, SPARSE_TENSORS):
                self.sparse(first, last)
            elif number in (SUBGRAPH, SUBGRAPHS):
                raise Malformed(
                    f"has a graph within the operator {quoted(operator)}, which may run for ever, expected none of that kind"
                )

    def sparse(self, begin: int, end: int) -> None:
        for number, first, last, _ in self.fields(begin, end):
            if number in (1, 2):  # values, indices
                self.tensor(first, last)

    def tensor(self, begin: int, end: int) -> str:
        """Its name."""
        name = ""
        for number, first, last, value in self.fields(begin, end):
            if number == EXTERNAL_DATA or (number == LOCATION and value):
                raise Malformed("keeps weights in another file (external data), expected all of them in the one")
            if number == 8:  # name
                name = self.text(first, last)
        return name
