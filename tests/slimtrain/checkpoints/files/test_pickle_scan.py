"""What a pickle names and fills is read off its instructions: compared with what is known of the objects."""

from __future__ import annotations

import collections
import io
import pickle
from typing import Any

import pytest

from slimtrain.checkpoints.files.pickle_scan import Scan


class Table(dict[str, Any]):
    pass


class Row(list[Any]):
    pass


class Plain:
    def __init__(self, inside: Any = None) -> None:
        self.inside = inside


def scanned(value: Any) -> Scan:
    scan = Scan()
    scan.read(io.BytesIO(pickle.dumps(value, 2)))
    return scan


def own(names: set[str]) -> set[str]:
    return {name.rpartition(".")[2] for name in names if name.startswith(__name__)}


@pytest.mark.parametrize(
    ("value", "names", "dictionaries", "lists"),
    [
        ({"a": [1, (2, 3)], "b": {4}}, set(), set(), set()),
        (Plain(), {"Plain"}, set(), set()),
        (Plain({"a": [Plain(), 1]}), {"Plain"}, set(), set()),
        (Table(), {"Table"}, set(), set()),
        (Table(a=1), {"Table"}, {"Table"}, set()),
        (Table(a=1, b=Row([1, 2]), c=(Plain(), Row())), {"Table", "Row", "Plain"}, {"Table"}, {"Row"}),
        ([Row([Table(a=Row([1]))]), Plain(Table(b=2, c=3))], {"Row", "Table", "Plain"}, {"Table"}, {"Row"}),
        ([Plain, Table, Row], {"Plain", "Table", "Row"}, set(), set()),  # classes, not objects
        (collections.OrderedDict(a=Plain({"b": 1}), c=collections.Counter("ab")), {"Plain"}, set(), set()),
    ],
)
def test_who_is_filled(value: Any, names: set[str], dictionaries: set[str], lists: set[str]) -> None:
    scan = scanned(value)
    assert (own(scan.names), own(scan.dictionaries), own(scan.lists)) == (names, dictionaries, lists)
    assert scan.protocols == {2} and not scan.whole_module


def test_an_object_that_comes_again_is_known_again() -> None:
    shared = Table()
    shared["self"] = shared  # filled after it was stored
    again = Plain(shared)
    scan = scanned([shared, again, [shared]])
    assert own(scan.dictionaries) == {"Table"} and not own(scan.lists)


@pytest.mark.parametrize("data", [b"\x80\x02.", b"\x80\x02u.", b"\x80\x02q\x00.", b"\x80\x02(.", b"\x80\x02\x81.", b"s."])
def test_damaged_pickles_end(data: bytes) -> None:
    try:
        Scan().read(io.BytesIO(data))
    except (ValueError, IndexError):
        return
    assert data in (b"\x80\x02.", b"\x80\x02(.")  # which the unpickler refuses
