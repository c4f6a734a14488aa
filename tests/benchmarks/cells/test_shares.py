"""The figure that widths are compared by."""

from __future__ import annotations

import pytest

from benchmarks.cells.shares import key_of, name_of, share_of
from benchmarks.cells.statistics import standard_error

CLASSIFIER = {"top1": 0.9, "images": 100, "data": "digits"}
DETECTOR = {"top1": None, "images": 100, "data": "scenes", "ap": 0.31, "ap50": 0.6}


def test_a_classifiers_is_its_top1_and_a_detectors_its_average_precision() -> None:
    assert (key_of(CLASSIFIER), share_of(CLASSIFIER), name_of(CLASSIFIER)) == ("top1", 0.9, "top-1")
    assert (key_of(DETECTOR), share_of(DETECTOR), name_of(DETECTOR)) == ("ap", 0.31, "AP")


def test_an_average_precision_has_no_standard_error_of_a_share() -> None:
    assert standard_error(CLASSIFIER) == pytest.approx(0.03)
    assert standard_error(DETECTOR) == 0
