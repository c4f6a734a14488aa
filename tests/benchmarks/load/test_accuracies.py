"""Accuracies are the manifest's where it knows all, the published ones only where that network was published as it is."""

from __future__ import annotations

import pytest

from benchmarks.cells.published_errors import ERRORS
from benchmarks.load.accuracies import published_widths, with_accuracies
from benchmarks.load.figures import WidthFacts

BARE = (WidthFacts("0.25", 0.25, None), WidthFacts("1", 1.0, None))
MEASURED = (WidthFacts("0.25", 0.25, 0.5), WidthFacts("1", 1.0, 0.75))


def test_the_manifest_comes_first() -> None:
    assert with_accuracies(MEASURED, "us_mobilenet_v1", (3, 224, 224), 1000) == (MEASURED, "manifest")


def test_published_ones_stand_in_where_one_is_not_known() -> None:
    facts, source = with_accuracies((MEASURED[0], BARE[1]), "us_mobilenet_v1", (3, 224, 224), 1000)
    assert source == "published" and [fact.accuracy for fact in facts] == pytest.approx([0.557, 0.718])


@pytest.mark.parametrize(
    ("network", "shape", "classes"),
    [
        ("us_mobilenet_v1", (3, 224, 224), 10),
        ("us_mobilenet_v1", (3, 128, 128), 1000),
        ("us_mobilenet_v1", (1, 224, 224), 1000),
        ("us_mobilenet_v1", (3, 224, 224), None),
        ("mine", (3, 224, 224), 1000),
    ],
)
def test_other_networks_than_the_published_ones_have_none(network: str, shape: tuple[int, ...], classes: int | None) -> None:
    assert with_accuracies(BARE, network, shape, classes) == (BARE, None)


def test_a_width_that_was_not_published_leaves_all_unknown() -> None:
    facts = (*BARE, WidthFacts("0.33", 0.33, None))
    assert with_accuracies(facts, "us_mobilenet_v1", (3, 224, 224), 1000) == (facts, None)
    named = (*BARE, WidthFacts("mine", None, None))
    assert with_accuracies(named, "us_mobilenet_v1", (3, 224, 224), 1000) == (named, None)
    assert with_accuracies((), "us_mobilenet_v1", (3, 224, 224), 1000) == ((), None)


@pytest.mark.parametrize("network", ERRORS)
def test_all_switches_are_listed(network: str) -> None:
    assert [fact.accuracy for fact in published_widths(network)] == pytest.approx(
        [1 - error / 100 for error in ERRORS[network]]
    )
