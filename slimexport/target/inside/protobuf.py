"""Protocol buffers, written without a package of theirs: a message is its fields one after the other, each a key (number and
kind) and a value, a whole number or bytes with their length before them. `onnx_scan.Walk` reads them."""

from __future__ import annotations

from slimexport.target.onnx_scan import BYTES, VARINT


def varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    assert value >= 0
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def number_field(field: int, value: int) -> bytes:
    """A field of a whole number, 0 or more."""
    return varint(field << 3 | VARINT) + varint(value)


def bytes_field(field: int, content: bytes) -> bytes:
    """A field of bytes, or of another message."""
    return varint(field << 3 | BYTES) + varint(len(content)) + content


def text_field(field: int, text: str) -> bytes:
    """A field of text."""
    return bytes_field(field, text.encode())
