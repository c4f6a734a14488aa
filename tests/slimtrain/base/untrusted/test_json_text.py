"""JSON of somebody else is read within bounds, whatever it holds."""

import json
from typing import Any

import pytest

from slimtrain.base.untrusted.json_text import DEPTH, JsonError, parse_json, whole_letters


@pytest.mark.parametrize("value", [None, True, 3, -(2**63) + 1, 0.5, "é", [], {"a": [1, {"b": "c"}]}])
def test_what_json_can_say_is_read_as_the_library_reads_it(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1" * 5000, "out of range"),
        (str(2**63), "out of range"),
        ("1e999", "out of range"),
        ("NaN", "NaN is no number"),
        ('{"a": -Infinity}', "no number"),
        ("[" * 100_000, "nested deeper"),
        ("[" * (DEPTH + 1) + "]" * (DEPTH + 1), "nested deeper"),
        ('{"a":' * 5000 + "1" + "}" * 5000, "nested deeper"),
        (r'"\ud800"', "half a letter"),
        (r'{"\ud800": 1}', "half a letter"),
        ("{", "line 1, column 2"),
        ("", "no JSON"),
    ],
)
def test_what_is_out_of_bounds_is_one_short_line(text: str, words: str) -> None:
    with pytest.raises(JsonError, match=words) as raised:
        parse_json(text, "manifest.json")
    message = str(raised.value)
    assert message.startswith("manifest.json: ") and len(message) < 200 and "\n" not in message


def test_as_deep_as_allowed_is_read() -> None:
    assert parse_json("[" * DEPTH + "]" * DEPTH)


def test_what_is_written_holds_no_half_a_letter() -> None:
    values = ["n\udcff\ud800", "\U0001f600", "a\\ud800", "\\\udcff", "ü中"]
    text = whole_letters(json.dumps(values))
    assert parse_json(text) == ["n\\udcff\\ud800", "\U0001f600", "a\\ud800", "\\\\udcff", "ü中"]
    assert whole_letters(json.dumps({"a": "plain"})) == '{"a": "plain"}'
