"""What is recorded of a file's layers is written, read again, and distrusted."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from slimexport.target.arrays import Array
from slimexport.target.inside.drawn import BUCKETS
from slimexport.target.inside.pieces import Place
from slimexport.target.inside.recorded import MOST_NUMBERS, Inside, Listing, Value, inside_in, most_numbers

VALUES = (
    Value(name="conv", shape=(2, 8, 4, 4), kind=10, middle=0.5, spread=2.0),
    Value(name="odd", shape=(2, 3), spread=1.0, compared=False),
    Value(name="output", shape=(2, 10)),
)
DRAW = np.random.default_rng(4)
INSIDE = Inside(
    Listing(seed=3, images=2, values=VALUES),
    DRAW.normal(size=(2, 2, BUCKETS)).astype(np.float32),
    DRAW.random((2, BUCKETS), np.float32),
    np.full((2, 2), 1e-3, np.float32),
)
KEY = "inside_x0_5.int8"


def _read(arrays: dict[str, Array], images: int = 4, activations: int | None = 1000) -> Inside | None:
    return inside_in(arrays, "x0_5", "int8", images, activations)


def _arrays() -> dict[str, Array]:
    return dict(INSIDE.arrays("x0_5", "int8"))


def test_it_is_read_as_it_was_written() -> None:
    arrays = _arrays()
    assert set(arrays) == {f"{KEY}.{part}" for part in ("values", "sketches", "scales", "moved")}
    read = _read(arrays)
    assert read is not None and read.listing == INSIDE.listing
    for part in ("sketches", "scales", "moved"):
        np.testing.assert_array_equal(getattr(read, part), getattr(INSIDE, part))
    assert _read({}) is None and inside_in(arrays, "x0_5", "fp16", 4, 1000) is None


def test_values_are_given_or_compared_or_both() -> None:
    listing = INSIDE.listing
    assert [value.name for value in listing.given] == ["conv", "odd"]
    assert [value.name for value in listing.compared] == ["conv", "output"]
    assert listing.numbers == 256 + 6 + 20 and VALUES[0].place == Place("conv", (2, 8, 4, 4), 10)
    numbers = VALUES[0].numbers(3)
    assert numbers.shape == (2, 8, 4, 4) and numbers.dtype == np.float32
    assert numbers.mean() == pytest.approx(0.5, abs=0.4) and numbers.std() == pytest.approx(2, abs=0.3)


def _listing(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Array]], object]:
    def changed(arrays: dict[str, Array]) -> None:
        listing = json.loads(arrays[f"{KEY}.values"].tobytes())
        change(listing)
        arrays[f"{KEY}.values"] = np.frombuffer(json.dumps(listing).encode(), np.uint8)

    return changed


def _put(part: str, values: Any) -> Callable[[dict[str, Array]], object]:
    return lambda arrays: arrays.update({f"{KEY}.{part}": np.asarray(values)})


DAMAGES: dict[str, Callable[[dict[str, Array]], object]] = {
    "no JSON": _put("values", np.frombuffer(b"{", np.uint8)),
    "no UTF-8": _put("values", np.frombuffer(b"\xff\xfe", np.uint8)),
    "no bytes": _put("values", np.zeros(4)),
    "no values": _listing(lambda it: it.update(values=[])),
    "another kind of value": _listing(lambda it: it["values"][0].update(shape="wide")),
    "an unknown type": _listing(lambda it: it["values"][0].update(kind=7)),
    "too many images": _listing(lambda it: it.update(images=5)),
    "no images": _listing(lambda it: it.update(images=0)),
    "a value twice": _listing(lambda it: it["values"].append(it["values"][0])),
    "too many numbers": _listing(lambda it: it["values"][1].update(shape=[2, 10**9])),
    "too many sizes": _listing(lambda it: it["values"][1].update(shape=[1] * 9)),
    "too large numbers": _listing(lambda it: it["values"][1].update(spread=1e300)),
    "a negative seed": _listing(lambda it: it.update(seed=-1)),
    "too long a name": _listing(lambda it: it["values"][0].update(name="x" * 2000)),
    "one more value": _listing(lambda it: it["values"][1].update(compared=True)),
    "fewer sketches": _put("sketches", INSIDE.sketches[:1]),
    "scales of another type": _put("scales", INSIDE.scales.astype(np.float64)),
    "what is not finite": _put("moved", np.full((2, 2), np.nan, np.float32)),
    "nothing of what is moved": lambda arrays: arrays.pop(f"{KEY}.moved"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_cannot_be_is_refused_in_one_line(damage: str) -> None:
    arrays = _arrays()
    DAMAGES[damage](arrays)
    with pytest.raises(ValueError, match=rf"^its {KEY}\.\w+:? [^\n]*$"):
        _read(arrays)


def test_values_are_no_larger_than_what_the_manifest_explains() -> None:
    arrays = _arrays()
    _listing(lambda it: it["values"][1].update(shape=[2, 2 * 10**6]))(arrays)
    assert most_numbers(None, 2) < 4 * 10**6 < most_numbers(10**6, 2)
    assert _read(arrays, activations=10**6) is not None
    with pytest.raises(ValueError, match="and at most 1,0"):
        _read(arrays, activations=None)


def test_no_value_is_larger_than_memory_allows_whatever_the_manifest_explains() -> None:
    """What is drawn for it is held at once: a bundle of three kilobytes could ask for gigabytes."""
    arrays = _arrays()
    _listing(lambda it: it["values"][1].update(shape=[2, MOST_NUMBERS // 2]))(arrays)
    assert _read(arrays, activations=10**14) is not None
    _listing(lambda it: it["values"][1].update(shape=[2, MOST_NUMBERS // 2 + 1]))(arrays)
    with pytest.raises(ValueError, match=r"a value of 67,108,866 numbers, expected at most 67,108,864"):
        _read(arrays, activations=10**14)
