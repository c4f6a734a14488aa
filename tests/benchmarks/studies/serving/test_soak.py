"""A soak in small: everything it looks at is looked at, and what grows or is wrong is seen."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from benchmarks.studies.serving.soak import MOST_GROWTH_MIB, Answers, Held, grows, growth, held, soak, unaccounted
from slimexport.target.serving.answer import WidthInfo
from slimexport.target.serving.runtime import Runtime
from tests.support.load_fakes import answer_of, start_quickly
from tests.support.serving_fakes import SNAPSHOT

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


def looks(**late: Any) -> list[Held]:
    """A hundred, of which the first 20 are of a process that still grows, and the last 10 have what is `late`."""
    usual = [Held(float(number), min(120.0, 100.0 + number), 6, 20) for number in range(1, 101)]
    return [replace(look, **late) if number >= 90 else look for number, look in enumerate(usual)]


def test_what_grows_after_it_has_settled_is_seen() -> None:
    assert growth(looks()) == {"memory_mib": 0.0, "threads": 0, "handles": 0} and not grows(growth(looks()))
    for late in ({"memory_mib": 121.0 + MOST_GROWTH_MIB}, {"threads": 7}, {"handles": 21}):
        assert grows(growth(looks(**late))), late
    assert not grows(growth(looks(memory_mib=121.0))), "an allocator's noise"
    assert growth(looks()[:1]) == {}


@LINUX
def test_this_process_holds_something(tmp_path: Path) -> None:
    before = held(0.0)
    with (tmp_path / "file").open("w"):
        assert held(1.0).handles == before.handles + 1
    assert before.memory_mib > 10 and before.threads >= 1


def test_an_answer_of_another_image_is_wrong() -> None:
    class Two:
        widths = (WidthInfo("0.5", 0.5, "n", None),)
        policy = "drain"

        def submit(self, image: Any, deadline_ms: float) -> Any:
            from concurrent.futures import Future

            future: Any = Future()
            future.set_result(replace(answer_of(), output=image[0, 0]))
            return future

    images = [np.full((1, 1, 3), value, np.float32) for value in (1.0, 2.0)]
    checked = Answers(cast(Runtime, Two()), images)
    for number, value, wrong in ((0, 1.0, 0), (3, 2.0, 0), (2, 2.0, 1), (0, 1.0001, 1), (1, np.nan, 2)):
        checked(number, replace(answer_of(), output=np.full(3, value, np.float32)))
        assert checked.wrong == wrong
    checked(0, replace(answer_of(), output=np.ones(2, np.float32)))
    assert checked.wrong == 3


def test_what_the_runtime_s_own_books_lack_is_seen() -> None:
    before = replace(SNAPSHOT, submitted=12, answered=5, failed=1, refused={"late": 1, "full": 2, "closed": 3}, cancelled=0)
    after = replace(before, submitted=22, answered=12, failed=2, refused={"late": 2, "full": 2, "closed": 3}, cancelled=1)
    assert unaccounted(before, after, 10) == 0
    assert unaccounted(before, replace(after, answered=11), 10) == 1
    assert unaccounted(before, replace(after, answered=13), 10) == 1
    assert unaccounted(before, replace(after, submitted=21), 10) == 1


@LINUX
def test_a_soak_of_a_moment(two_widths: Path, tmp_path: Path, hasty: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines that a loaded machine meets; a fiftieth of the capacity, which may be thousands a second."""
    start_quickly(monkeypatch, tmp_path)
    given = soak(two_widths, seconds=1.0, load=0.02, slo_ms=30_000.0, seed=0)
    nothing = ("lost", "doubled", "wrong", "failed", "not_compared", "not_accounted")
    assert given["answers"] == dict.fromkeys(nothing, 0)
    assert given["figures"]["attainment"] == 1.0 and given["figures"]["requests"] == given["trace"]["requests"]
    assert len(given["held"]) >= 5 and set(given["growth"]) == {"memory_mib", "threads", "handles"}
    assert given["runtime"]["failed"] == 0 and given["environment"]["cpu"]
