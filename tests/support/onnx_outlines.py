"""What passes for an ONNX file before a runtime reads it: an empty graph, and text that says who wrote it."""

from __future__ import annotations

GRAPH = b"\x3a\x00"
PRODUCER = b"\x12"


def outline(content: bytes) -> bytes:
    """A file with `content` in it."""
    size, length = len(content), b""
    while size >= 0x80:
        size, length = size >> 7, length + bytes([size & 0x7F | 0x80])
    return GRAPH + PRODUCER + length + bytes([size]) + content
