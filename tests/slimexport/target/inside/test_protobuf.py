"""Fields as protobuf's own package writes and reads them."""

from __future__ import annotations

import onnx
import pytest

from slimexport.target.inside.protobuf import bytes_field, number_field, text_field, varint


@pytest.mark.parametrize("value", [0, 1, 127, 128, 129, 300, 16383, 16384, 2**31, 2**40 + 3])
def test_integers_are_written_as_protocol_buffers_write_them(value: int) -> None:
    bits = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)]
    assert varint(value) == bytes([bit | 0x80 for bit in bits[:-1]] + bits[-1:])


def test_fields_are_what_the_package_reads() -> None:
    """Fields 1 (dims), 2 (data_type), 8 (name) and 9 (raw_data) of an ONNX tensor."""
    content = number_field(1, 300) + number_field(2, 3) + text_field(8, "größe") + bytes_field(9, bytes(300))
    tensor = onnx.TensorProto.FromString(content)
    assert (list(tensor.dims), tensor.data_type, tensor.name, tensor.raw_data) == ([300], 3, "größe", bytes(300))
