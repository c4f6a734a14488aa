"""The syntax of `--widths` and `--macs`: what is understood, what is refused, and in which order it comes out."""

from __future__ import annotations

from fractions import Fraction

import pytest

from slimtrain.base.errors import UserError
from slimtrain.base.options import parse_macs, parse_widths


@pytest.mark.parametrize(
    ("text", "widths"),
    [
        ("0.5", [0.5]),
        ("0.5,1.0", [0.5, 1.0]),
        (" 0.5 , 1 ", [0.5, 1.0]),
        ("1.0,0.25", [1.0, 0.25]),
        ("0.5,1.0,0.5,0.50", [0.5, 1.0]),
        ("0.25:1.0:0.25", [0.25, 0.5, 0.75, 1.0]),
        ("0.25:0.9:0.25", [0.25, 0.5, 0.75]),
        ("0.3:0.3:0.1", [0.3]),
        ("0.5,0.25:0.75:0.25,2", [0.5, 0.25, 0.75, 2.0]),
        ("1,2,3", [1.0, 2.0, 3.0]),
        ("3.5e-1", [0.35]),
    ],
)
def test_lists_ranges_and_mixtures_give_each_width_once_in_the_order_asked_for(text: str, widths: list[float]) -> None:
    assert parse_widths(text) == widths


@pytest.mark.parametrize("text", ["all", "ALL", " all "])
def test_all_gives_none(text: str) -> None:
    assert parse_widths(text) is None


def test_ranges_hit_the_decimal_widths_exactly_and_include_both_ends() -> None:
    grid = [float(Fraction(250 + 5 * i, 1000)) for i in range(151)]  # 0.25 + i * 0.005 without adding up errors
    assert parse_widths("0.25:1.0:0.005") == grid
    assert parse_widths("0.25:1.0:0.05") == grid[::10]


@pytest.mark.parametrize(
    "text",
    [
        *("", ",", "0.5,", ",0.5", "0.5,,1.0", "abc", "0.5x", "0,5:1", "0.25:1.0", "0.25:1.0:0.05:1", "::", "0.5;1.0"),
        *("0", "-0.5", "nan", "inf", "-inf", "0.5,nan", "0.25:1.0:0", "0.25:1.0:-0.1", "1.0:0.25:0.05", "0:1:0.5"),
        *("all,0.5", "0.25:all:0.1", "0.25:1.0:0.0000001"),
    ],
)
def test_what_is_no_list_of_positive_widths_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        parse_widths(text)


def test_a_refusal_names_the_offending_entry_and_what_was_expected() -> None:
    with pytest.raises(UserError, match=r"'0\.x'.*not a number.*0\.5"):
        parse_widths("0.5,0.x")
    with pytest.raises(UserError, match=r"'1:0\.5:0\.1'.*above its end.*FROM:TO:STEP"):
        parse_widths("0.25,1:0.5:0.1")


@pytest.mark.parametrize(
    ("text", "budgets"),
    [
        ("150M", [150_000_000]),
        ("150m,300M", [150_000_000, 300_000_000]),
        ("1.2G", [1_200_000_000]),
        ("500000", [500_000]),
        ("12.5k", [12_500]),
        ("41.042816M", [41_042_816]),
        ("300M,0.3G", [300_000_000]),
        ("1.9", [1]),
    ],
)
def test_budgets_are_exact_multiply_accumulates(text: str, budgets: list[int]) -> None:
    assert parse_macs(text) == budgets


@pytest.mark.parametrize("text", ["", "M", "150MB", "150T", "-1M", "0", "0M", "nan", "infM", "150M,", "a few"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        parse_macs(text)


@pytest.mark.parametrize("text", ["150MM", "150KM", "5GK"])
def test_a_budget_with_two_units_is_refused_and_not_guessed(text: str) -> None:
    with pytest.raises(UserError):
        parse_macs(text)


@pytest.mark.parametrize("text", ["0.1:9e999999:0.01", "0.1:1:1e-999999"])
def test_numbers_beyond_any_width_are_refused_and_do_not_escape_as_arithmetic_errors(text: str) -> None:
    with pytest.raises(UserError):
        parse_widths(text)


def test_a_budget_beyond_all_numbers_is_refused_and_does_not_escape_as_an_arithmetic_error() -> None:
    with pytest.raises(UserError):
        parse_macs("9e999999G")
