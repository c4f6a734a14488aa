"""Policies against their definitions, computed by brute force: every width and batch is tried, every run is counted."""

from __future__ import annotations

import ast
import itertools
import random
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimexport.target.serving import policy
from slimexport.target.serving.policy import FILL, NEAR, Choice, Latencies, drain, fixed, named_policy, slackfit
from tests.support.serving_helpers import latencies


@st.composite
def tables(draw: st.DrawFn) -> Latencies:
    """Wider is slower, more images are slower: as measured tables are."""
    batches = sorted(draw(st.sets(st.integers(1, 12), min_size=1, max_size=4)))
    count = draw(st.integers(1, 4))
    steps = draw(
        st.lists(st.lists(st.floats(0.01, 9), min_size=len(batches), max_size=len(batches)), min_size=count, max_size=count)
    )
    rows, before = [], [0.0] * len(batches)
    for row in steps:
        before = [low + high for low, high in zip(before, itertools.accumulate(row), strict=True)]
        rows.append(before)
    return latencies(rows, batches)


waiting_images = st.integers(1, 40)
slacks = st.one_of(st.floats(-5, 60), st.floats(-5, 900))


def run_ms(table: Latencies, width: int, images: int) -> float:
    """By the definition: on the straight line between the neighbors that were measured, level below the first."""
    points = list(zip(table.batches, table.ms[width], strict=True))
    if images <= points[0][0]:
        return points[0][1]
    for (low, low_ms), (high, high_ms) in itertools.pairwise(points):
        if low <= images <= high:
            return low_ms + (high_ms - low_ms) * (images - low) / (high - low)
    raise AssertionError(images)


def all_ms(table: Latencies, width: int, waiting: int, batch: int) -> float:
    """Run after run until nothing waits."""
    total = 0.0
    while waiting:
        images = min(batch, waiting)
        total += run_ms(table, width, images)
        waiting -= images
    return total


def useful(table: Latencies, waiting: int) -> list[int]:
    """Batches that are measured and can be filled, and one for all that waits, as far as a run takes it."""
    return sorted({batch for batch in table.batches if batch < waiting} | {min(waiting, table.batches[-1])})


@given(tables(), waiting_images, slacks)
@settings(deadline=None, max_examples=300)
def test_drain_takes_the_widest_that_serves_all_in_time(table: Latencies, waiting: int, slack: float) -> None:
    def served_by(width: int) -> int | None:
        """The smallest batch whose time for all is nearly the least, where that is in time."""
        totals = {batch: all_ms(table, width, waiting, batch) for batch in useful(table, waiting)}
        near = [batch for batch, ms in totals.items() if ms <= NEAR * min(totals.values()) * (1 + 1e-12)]
        return near[0] if totals[near[0]] <= slack + 1e-9 else None

    choice = drain(waiting, slack, table)
    widest = [width for width in range(len(table.widths)) if served_by(width) is not None]
    if widest:
        assert choice == (widest[-1], served_by(widest[-1]))
        assert all_ms(table, *choice[:1], waiting, choice.batch) <= slack + 1e-9
    else:
        assert choice.width == 0
        assert choice.batch == 1 or (choice.batch in useful(table, waiting) and run_ms(table, 0, choice.batch) <= slack + 1e-9)


@given(tables(), waiting_images, slacks)
@settings(deadline=None, max_examples=300)
def test_slackfit_fills_the_slack(table: Latencies, waiting: int, slack: float) -> None:
    runs = {
        (width, batch): run_ms(table, width, batch)
        for width in range(len(table.widths))
        for batch in useful(table, waiting)
        if run_ms(table, width, batch) <= slack
    }
    choice = slackfit(waiting, slack, table)
    if not runs:
        assert choice == (0, min(waiting, table.largest))
        return
    longest = max(runs.values())
    bucket = [(batch, width) for (width, batch), ms in runs.items() if ms >= FILL * longest - 1e-12]
    assert (choice.batch, choice.width) == max(bucket)


@given(tables(), waiting_images, slacks)
@settings(deadline=None, max_examples=200)
def test_a_fixed_width_takes_as_many_as_end_in_time(table: Latencies, waiting: int, slack: float) -> None:
    for width in range(len(table.widths)):
        in_time = [batch for batch in useful(table, waiting) if run_ms(table, width, batch) <= slack]
        assert fixed(width)(waiting, slack, table) == Choice(width, max(in_time, default=1))


@given(tables(), st.integers(1, 60), st.integers(1, 12))
@settings(deadline=None)
def test_the_time_of_many_is_that_of_all_their_runs(table: Latencies, images: int, batch: int) -> None:
    batch = min(batch, table.largest)
    for width in range(len(table.widths)):
        assert table.of_all(width, images, batch) == pytest.approx(all_ms(table, width, images, batch))


def test_latencies_between_batches_are_on_a_line() -> None:
    table = latencies([[2.0, 4.0, 12.0]], [1, 2, 6])
    assert [table.of(0, images) for images in (1, 2, 3, 4, 5, 6)] == [2, 4, 6, 8, 10, 12]
    assert latencies([[3.0]], [4]).of(0, 1) == 3, "fewer than was measured are not known to take less"
    with pytest.raises(ValueError, match="a run of 7 images, the largest is 6"):
        table.of(0, 7)


@pytest.mark.parametrize(
    ("widths", "batches", "ms"),
    [
        ((), (1,), ()),
        (("a",), (), ((),)),
        (("a",), (2, 1), ((1.0, 2.0),)),
        (("a",), (1, 1), ((1.0, 2.0),)),
        (("a",), (0, 1), ((1.0, 2.0),)),
        (("a",), (1, 2), ((1.0,),)),
        (("a", "b"), (1,), ((1.0,),)),
    ],
)
def test_a_table_that_is_none_is_refused(
    widths: tuple[str, ...], batches: tuple[int, ...], ms: tuple[tuple[float, ...], ...]
) -> None:
    with pytest.raises(ValueError, match="expected"):
        Latencies(widths, batches, ms)


def test_policies_have_names() -> None:
    table = latencies([[1.0, 2.0], [3.0, 5.0]], [1, 2], ["0.5", "1"])
    assert named_policy("drain", table.widths) is drain and named_policy("slackfit", table.widths) is slackfit
    assert named_policy("fixed:1", table.widths)(5, 100.0, table) == (1, 2)
    with pytest.raises(ValueError, match=r"'fixed:0\.25': width '0\.25' is not open. Open are 0\.5, 1\."):
        named_policy("fixed:0.25", table.widths)
    with pytest.raises(ValueError, match="Available: drain, slackfit, fixed:WIDTH"):
        named_policy("widest", table.widths)


def test_more_slack_is_never_a_narrower_width() -> None:
    """Of drain, on measured tables: widths differ by factors."""
    random_numbers = random.Random(7)
    for _ in range(200):
        rows = [[(1 + width) ** 2 * (0.4 + 0.6 * batch) for batch in (1, 2, 4, 8)] for width in range(4)]
        table, waiting = latencies(rows), random_numbers.randint(1, 30)
        widths = [drain(waiting, slack, table).width for slack in range(0, 900, 7)]
        assert widths == sorted(widths)


def test_the_file_stands_alone() -> None:
    """A Triton repository gets a copy of it."""
    tree = ast.parse(Path(policy.__file__).read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert {str(module).split(".")[0] for module in modules} <= set(sys.stdlib_module_names)
