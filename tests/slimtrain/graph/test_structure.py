"""What modules give out: names of the tensors, filled again, as plain values and back."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from slimtrain.graph.structure import (
    DICTIONARY,
    LIST,
    NOTHING,
    TUPLE,
    Structure,
    plain_structure,
    read_structure,
    usual_structure,
)

TENSOR = Structure()
NESTED = Structure(
    DICTIONARY,
    (Structure(LIST, (TENSOR, TENSOR)), Structure(NOTHING), Structure(DICTIONARY, (TENSOR,), ("box",))),
    ("maps", "loss", "head"),
)


def dictionary(*keys: str | int) -> Structure:
    return Structure(DICTIONARY, (TENSOR,) * len(keys), keys)


@pytest.mark.parametrize(
    ("structure", "names"),
    [
        (TENSOR, ["output"]),
        (usual_structure(2), ["output_0", "output_1"]),
        (dictionary("out"), ["out"]),
        (dictionary("out", "aux"), ["out", "aux"]),
        (NESTED, ["maps_0", "maps_1", "head_box"]),
        (Structure(TUPLE, (TENSOR,)), ["output"]),
        (Structure(TUPLE, (TENSOR, TENSOR), ("logits", "boxes")), ["logits", "boxes"]),
        (dictionary("input", "input_1"), ["output_input", "output_input_1"]),
        (dictionary(0, 1), ["output_0", "output_1"]),
        (dictionary("a b", "a_b", "größe", ""), ["a_b", "a_b_", "gr__e", "output"]),
    ],
    ids=str,
)
def test_tensors_are_called_by_their_keys(structure: Structure, names: list[str]) -> None:
    assert list(structure.names) == names


def test_a_structure_is_filled_in_order() -> None:
    assert NESTED.tensors == 3
    assert NESTED.filled(["a", "b", "c"]) == {"maps": ["a", "b"], "loss": None, "head": {"box": "c"}}
    pair = Structure(TUPLE, (TENSOR, Structure(NOTHING)), ("x", "y"))
    for structure in (pair, pickle.loads(pickle.dumps(pair))):
        filled = structure.filled(["a"])
        assert filled == ("a", None) and (filled.x, filled.y) == ("a", None)
    for keys in (("x", "class"), ("x", "_y"), ("x", 0), ("x", "a b")):
        assert type(Structure(TUPLE, (TENSOR, TENSOR), keys).filled(["a", "b"])) is tuple


@pytest.mark.parametrize("structure", [TENSOR, NESTED, dictionary(1, "b"), Structure(DICTIONARY)], ids=str)
def test_a_structure_comes_back(structure: Structure) -> None:
    assert read_structure(json.loads(json.dumps(plain_structure(structure)))) == structure


@pytest.mark.parametrize(
    "content",
    [
        ["file", [], []],
        ["tensor", [], [["tensor", [], []]]],
        ["dictionary", ["a", "a"], [["tensor", [], []]] * 2],
        ["dictionary", [], [["tensor", [], []]]],
        ["dictionary", [1.5], [["tensor", [], []]]],
        ["tuple", ["a"], [["tensor", [], []]] * 2],
        ["tuple", []],
        None,
    ],
)
def test_what_is_no_structure_is_refused(content: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        read_structure(content)
