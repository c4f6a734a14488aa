"""Pickles are followed by a machine of our own: of plain values it makes what pickle makes, and lengths are limited."""

from __future__ import annotations

import io
import pickle
from typing import Any

import pytest

from slimtrain.checkpoints.files import pickle_machine
from slimtrain.checkpoints.files.claims import Damaged
from slimtrain.checkpoints.files.inert import Inert, Refused
from slimtrain.checkpoints.files.pickle_machine import Machine, OtherProtocol, WholeModule


def machine_read(pickled: bytes) -> Any:
    return Machine().read(io.BytesIO(pickled))


SHARED = [1, 2]


@pytest.mark.parametrize(
    "value",
    [
        None,
        [True, False, 0, 255, 256, 65535, 65536, -1, 2**31, -(2**200), 1.5, -1e308],
        ["", "é", "\ud800", "x" * 1000],
        {"a": {1: (), 2.5: (1,), None: (1, 2), (1, "b"): (1, 2, 3), False: tuple(range(5))}},
        [SHARED, SHARED, {"again": SHARED}],
        list(range(1000)),
        b"bytes \x00\xff",
    ],
)
def test_plain_values_are_what_pickle_makes_of_them(value: Any) -> None:
    read = machine_read(pickle.dumps(value, 2))
    assert read == value and type(read) is type(value)


def test_pickles_of_one_stream_are_read_one_after_the_other() -> None:
    stream, machine = io.BytesIO(pickle.dumps(1, 2) + pickle.dumps({"a": 2}, 2)), Machine()
    assert (machine.read(stream), machine.read(stream)) == (1, {"a": 2})


@pytest.mark.parametrize(
    ("pickled", "error", "words"),
    [
        (b"\x80\x04N.", OtherProtocol, "4"),
        (b"\x80\x02", EOFError, "ends early"),
        (b"\x80\x02X\xff\xff\xff\xff", Damaged, "a text of 4,294,967,295 bytes"),
        (b"\x80\x02X\x08\x00\x00\x00abc", EOFError, "ends early"),
        (b"\x80\x02c" + b"a." * 1000 + b"\nb\n.", Damaged, "name does not end"),
        (b"\x80\x02}]Ns.", Damaged, "a list as a key"),
        (b"\x80\x02})\x85\x85\x85Ns.", Damaged, "a tuple as a key"),
        (b"\x80\x02K\x01Q.", Refused, "no storage"),
        (b"\x80\x02(X\x06\x00\x00\x00moduleNNtQ.", WholeModule, ""),
        (b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.", Refused, "encodes a int"),  # torch: 2 GB
        (b"\x80\x02ctorch\nempty\nJ\xff\xff\xff\x7f\x85R.", Refused, r"calls torch\.empty"),
        (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x04\x00\x00\x00idna\x86R.", Refused, "encodes a str"),
        (b"\x80\x02K\x01NNb.", Refused, "sets attributes"),
        (b"\x80\x02cos\nsystem\nNb.", Refused, "sets attributes"),
    ],
)
def test_what_no_checkpoint_asks_for_is_refused(pickled: bytes, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        machine_read(pickled)


def test_instructions_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_machine, "STEPS", 100)
    with pytest.raises(Damaged, match="more than 100 instructions"):
        machine_read(b"\x80\x02(" + b"N" * 100 + b"t.")


def test_objects_keep_what_they_are_given() -> None:
    thing = machine_read(b"\x80\x02csomebody\nThing\n)\x81}X\x05\x00\x00\x00itemsK\x03sb.")
    assert isinstance(thing, Inert) and thing.state == {"items": 3}
