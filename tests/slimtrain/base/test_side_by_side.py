"""Tables next to each other, as a reader sees them."""

from __future__ import annotations

import pytest

from slimtrain.base.side_by_side import side_by_side

KNOWN = [["width", "0.25", "1.0"], ["MACs", "41M", "569M"]]
ONE = ("batch 1", [["ms", "0.7", "4.70"], ["x", "6.6", "1.0"]])
OTHER = ("a long title", [["ms", "-", "36"]])


def test_titles_stand_over_their_columns_and_numbers_to_the_right() -> None:
    assert side_by_side(KNOWN, [ONE, OTHER]).split("\n") == [
        "              batch 1   a long title",
        "width MACs     ms   x             ms",
        " 0.25  41M    0.7 6.6              -",
        "  1.0 569M   4.70 1.0             36",
    ]


@pytest.mark.parametrize("most", [35, 21, 1])
def test_what_is_too_wide_goes_on_below_with_the_first_column(most: int) -> None:
    parts = side_by_side(KNOWN, [ONE, OTHER], most).split("\n\n")
    assert [part.split("\n")[1].split() for part in parts] == [["width", "MACs", "ms", "x"], ["width", "ms"]]
    assert side_by_side(KNOWN, [ONE, OTHER], 36).count("\n\n") == 0
