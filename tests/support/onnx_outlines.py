"""What passes for an ONNX file before a runtime reads it: a graph without nodes, of an input and an output, and text that says
who wrote it."""

from __future__ import annotations

PRODUCER = b"\x12"


def outline(content: bytes, takes: str = "input", gives: str = "output") -> bytes:
    """A file with `content` in it."""
    graph = b"".join(_field(number, _field(b"\x0a", name.encode())) for number, name in ((b"\x5a", takes), (b"\x62", gives)))
    return _field(b"\x3a", graph) + _field(PRODUCER, content)


def _field(key: bytes, content: bytes) -> bytes:
    size, length = len(content), b""
    while size >= 0x80:
        size, length = size >> 7, length + bytes([size & 0x7F | 0x80])
    return key + length + bytes([size]) + content
