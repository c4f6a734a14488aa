"""Numbers, lists and tables as messages show them."""

from __future__ import annotations

import pytest

from slimtrain.base.text import count, duration, kinds, some, table


def test_tables_are_aligned_to_the_right() -> None:
    assert table(["width", "loss"], [["0.25", "12.5000"], ["1.0", "3.1"]]) == (
        "width     loss\n 0.25  12.5000\n  1.0      3.1"
    )
    assert table(["a"], []) == "a"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (0.6, "0:01"),
        (41, "0:41"),
        (59.6, "1:00"),
        (60, "1:00"),
        (3599.7, "1:00:00"),
        (11112, "3:05:12"),
        (360000, "100:00:00"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_counts_agree_with_their_nouns() -> None:
    assert [count(number, "step") for number in (0, 1, 22)] == ["0 steps", "1 step", "22 steps"]
    assert (count(1, "process", "processes"), count(2, "process", "processes")) == ("1 process", "2 processes")


def test_of_many_names_the_first_few_are_shown() -> None:
    assert some([]) == "nothing"
    assert some(["a", "b", "c", "d"]) == "a, b, c, d"
    assert some(["a", "b", "c", "d", "e", "f"]) == "a, b, c, d and 2 more"


def test_texts_that_differ_in_names_and_numbers_only_are_of_one_kind() -> None:
    texts = ["'a' has 3", "net_x0_5.onnx: no", "'b c' has 41", 'other "d"', "net_x1_0.onnx: no", "'a' had 3"]
    assert kinds(texts) == [
        ["'a' has 3", "'b c' has 41"],
        ["net_x0_5.onnx: no", "net_x1_0.onnx: no"],
        ['other "d"'],
        ["'a' had 3"],
    ]
    assert kinds([]) == []
