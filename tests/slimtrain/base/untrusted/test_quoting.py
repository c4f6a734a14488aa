"""Messages quote little, and nothing that a terminal obeys."""

import numpy as np
import pytest

from slimtrain.base.untrusted.quoting import MOST, MOST_MESSAGE, printable, quoted, reason, shortened


class _Refuses:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize("value", ["x" * 1_000_000, 10**4000, 10**5000, list(range(10_000)), _Refuses()], ids=type)
def test_a_quoted_value_is_short(value: object) -> None:
    assert 0 < len(quoted(value)) <= MOST


def test_a_short_value_is_quoted_as_python_does() -> None:
    assert quoted("it's") == '"it\'s"' and quoted(0.5) == "0.5"


def test_terminals_obey_nothing() -> None:
    assert printable("a\x1b[31mb\u202ec\ud800\nd\te") == "a\\x1b[31mb\\u202ec\\ud800\nd\te"
    assert printable("größe, 大") == "größe, 大"


def test_a_long_message_keeps_its_beginning_and_its_advice() -> None:
    text = printable("begin" + "x" * 100_000 + "Export again.")
    assert len(text) <= MOST_MESSAGE and text.startswith("begin") and text.endswith("Export again.")


def test_an_error_of_the_system_is_its_words() -> None:
    assert reason(OSError(5, "Input/output error", "/x")) == "Input/output error"
    assert reason(ValueError("one\n  two")) == "one two"
    assert reason(ValueError()) == "ValueError"
    assert len(reason(ValueError("x" * 10_000))) <= 4 * MOST and shortened("abc", 3) == "abc"


def test_rows_of_numbers_are_one_line() -> None:
    assert quoted(np.zeros((2, 2))) == "array([[0., 0.], [0., 0.]])"
