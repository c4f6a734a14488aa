"""How long cells are measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from benchmarks.measure.turns import BadMethod, Method, expected_seconds
from tests.support.bench_helpers import cell


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"duration_s": 0}, "duration 0 s"),
        ({"duration_s": -1}, "duration -1 s"),
        ({"duration_s": math.nan}, "duration nan s"),
        ({"duration_s": math.inf}, "duration inf s"),
        ({"warmup_s": -0.1}, "warm-up -0.1 s"),
        ({"warmup_s": math.nan}, "warm-up nan s"),
        ({"repeats": 0}, "repeats 0"),
        ({"repeats": -3}, "repeats -3"),
        ({"least_iterations": 0}, "least iterations 0"),
    ],
)
def test_nonsense_is_refused(change: Mapping[str, Any], named: str) -> None:
    with pytest.raises(BadMethod, match=named) as caught:
        Method(**change)
    assert caught.value.exit_code == 2


def test_the_defaults_are_those_of_the_issue() -> None:
    assert Method() == Method(duration_s=3.0, repeats=3, warmup_s=0.2, least_iterations=10)
    assert expected_seconds([cell()], Method()) == pytest.approx(3.6)
