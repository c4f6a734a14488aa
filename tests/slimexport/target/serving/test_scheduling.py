"""Runs and refusals with a clock of the test's own, on random loads: nothing lost, in order, nothing refused that could be."""

from __future__ import annotations

import heapq
import itertools
import logging
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimexport.target.serving.correcting import Corrected
from slimexport.target.serving.policy import Choice, Latencies
from slimexport.target.serving.requests import Request
from slimexport.target.serving.scheduling import OVERHEAD_MS, REFUSE, SERVE, Run, Scheduler
from tests.support.serving_helpers import latencies

TABLE = latencies([[1.0, 1.5, 2.5, 4.0], [2.0, 3.5, 6.0, 11.0], [5.0, 9.0, 17.0, 33.0]], widths=["0.25", "0.5", "1"])


def scheduler(policy: str = "drain", late: str = REFUSE, table: Latencies = TABLE) -> Scheduler:
    return Scheduler(Corrected(table, 0.95), policy, late)


def request(now_s: float, due_s: float, images: int = 1) -> Request:
    return Request(np.zeros((images, 1), np.float32), False, now_s, due_s)


def could_not_be_met(now_s: float, waited: list[Request], asked: Request) -> bool:
    """Whether a request is the most urgent of some that take longer together than the last of them has."""
    images = sum(other.size for other in waited)
    together = min(TABLE.of_all(0, images, batch) for batch in TABLE.batches)
    last = max(other.due_s for other in waited)
    return asked.due_s == min(other.due_s for other in waited) and now_s + (together + OVERHEAD_MS) / 1e3 > last


@given(
    st.sampled_from(["drain", "slackfit", "fixed:0.25", "fixed:1"]),
    st.sampled_from([REFUSE, SERVE]),
    st.floats(1e-3, 60.0),
    st.integers(1, 8),
    st.booleans(),
)
@settings(deadline=None, max_examples=200)
def test_a_request_alone_gets_the_run_that_a_queue_of_it_would(
    policy: str, late: str, within_ms: float, images: int, trial: bool
) -> None:
    queue, alone = scheduler(policy, late), scheduler(policy, late)
    waits, asks = (request(5.0, 5.0 + within_ms / 1e3, images) for _ in range(2))
    waits.trial = asks.trial = trial
    if alone.refuses(asks, 5.0):
        return
    queue.waiting.add(waits)
    run, refused = queue.next(5.0)
    other = alone.alone(asks, 5.0)
    assert run is not None and not refused and other.requests == (asks,)
    assert (run.width, run.images, run.slack_ms, run.trial) == (other.width, other.images, other.slack_ms, other.trial)


@given(
    st.sampled_from(["drain", "slackfit", "fixed:0.25", "fixed:1"]),
    st.sampled_from([REFUSE, SERVE]),
    st.integers(0, 2**32),
    st.floats(0.2, 6.0),
)
@settings(deadline=None, max_examples=120)
def test_nothing_is_lost_and_nothing_refused_that_could_be_met(policy: str, late: str, seed: int, load: float) -> None:
    draw = random.Random(seed)
    at, arrivals = 0.0, []
    for _ in range(draw.randint(1, 120)):
        at += draw.expovariate(load) * 2e-3
        images = draw.choice([1, 1, 1, 2, 3, 8])
        arrivals.append(request(at, at + draw.choice([0.002, 0.01, 0.05, 0.2]), images))
    chooser, now, ends = scheduler(policy, late), 0.0, Counter[int]()
    heapq.heapify(coming := [(asked.submitted_s, number) for number, asked in enumerate(arrivals)])
    numbers = {id(asked): number for number, asked in enumerate(arrivals)}
    quickest = {images: min(TABLE.of(width, images) for width in range(3)) for images in range(1, 9)}
    while coming or len(chooser.waiting):
        while coming and coming[0][0] <= now:
            chooser.waiting.add(arrivals[heapq.heappop(coming)[1]])
        waited = [asked for _, _, asked in chooser.waiting._heap]
        before = set(map(id, waited))
        run, refused = chooser.next(now)
        for asked in refused:
            assert late == REFUSE
            alone = now + (quickest[asked.size] + OVERHEAD_MS) / 1e3
            assert alone > asked.due_s or could_not_be_met(now, waited, asked), "it could be met"
            waited = [other for other in waited if other is not asked]
            ends[numbers[id(asked)]] += 1
        if run is None:
            now = coming[0][0] if coming else now
            continue
        left = {id(asked): asked for _, _, asked in chooser.waiting._heap}
        dues = [asked.due_s for asked in run.requests]
        assert dues == sorted(dues) and all(dues[-1] <= asked.due_s for asked in left.values()), "the most urgent first"
        assert {id(asked) for asked in (*run.requests, *refused)} | set(left) == before
        assert run.images <= TABLE.largest
        assert run.images == sum(asked.size for asked in run.requests)
        for asked in run.requests:
            ends[numbers[id(asked)]] += 1
        now += TABLE.of(run.width, run.images) / 1e3
    assert ends == Counter(dict.fromkeys(range(len(arrivals)), 1))


@pytest.mark.parametrize("load", [2.0, 4.0])
def test_an_overload_is_served_as_far_as_the_narrowest_goes(load: float) -> None:
    """Without refusing the most urgent where too many wait, what is served is at its deadline already: few images at once, as
    there is no time for more, which are half or a quarter of what the largest batches serve."""
    chooser, now_s, slo_s = scheduler(), 0.0, 0.05
    capacity = max(1e3 * batch / ms for batch, ms in zip(TABLE.batches, TABLE.ms[0], strict=True))
    due = [number / (load * capacity) + slo_s for number in range(8000)]
    coming = in_time = 0
    while True:
        while coming < len(due) and due[coming] - slo_s <= now_s:
            chooser.waiting.add(request(due[coming] - slo_s, due[coming]))
            coming += 1
        run, _ = chooser.next(now_s)
        if run is None:
            if coming == len(due):
                break
            now_s = due[coming] - slo_s
            continue
        now_s += TABLE.of(run.width, run.images) / 1e3
        in_time += sum(now_s <= asked.due_s for asked in run.requests)
    assert in_time >= 0.85 * len(due) / load


def test_it_serves_again_once_a_disturbance_is_over() -> None:
    """Runs that took forty times as long for a while leave a table that refuses all, and nothing would correct it soon."""
    chooser, now_s, slo_s, every_s = scheduler(), 0.0, 0.02, 0.005
    for _ in range(60):
        chooser.ran(Run(0, (request(0.0, slo_s),), 20.0), 40 * TABLE.of(0, 1))
    served: list[float] = []
    for number in range(2000):
        now_s = number * every_s
        asked = request(now_s, now_s + slo_s)
        if not chooser.refuses(asked, now_s):
            chooser.waiting.add(asked)
        run, _ = chooser.next(now_s)
        if run is not None:
            chooser.ran(run, TABLE.of(run.width, run.images))
            served.append(now_s)
    assert served[0] >= 1.0, "all is refused at first"
    assert served[1] < served[0] + 0.1, "one trial tells"
    assert sum(at > 2.0 for at in served) >= 0.99 * sum(number * every_s > 2.0 for number in range(2000))


def test_a_run_leaves_nothing_to_compute_for_the_request_that_comes_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is hopeless is asked while its sender waits."""
    chooser = scheduler()
    chooser.ran(Run(2, (request(0.0, 1.0),), 20.0), 5.0)
    quickest_ms = min(chooser.latencies.of(width, 1) for width in range(3))
    monkeypatch.setattr(Latencies, "of", lambda *_: pytest.fail("it was not known"))
    for ms, hopeless in ((quickest_ms - 0.01, True), (quickest_ms + 0.01, False)):
        assert chooser.hopeless(request(0.0, (ms + OVERHEAD_MS) / 1e3), 0.0) == hopeless


def test_a_run_has_the_images_that_the_policy_said_or_is_one_larger_request() -> None:
    chooser = Scheduler(Corrected(TABLE, 0.95), lambda waiting, slack_ms, table: Choice(1, 4))
    for images in (3, 2, 1, 6, 4):
        chooser.waiting.add(request(0, 100, images))
    sizes = []
    while (run := chooser.next(0.0)[0]) is not None:
        sizes.append([asked.size for asked in run.requests])
    assert sizes == [[3], [2, 1], [6], [4]], "in order, though 3 and 1 would fit"


@pytest.mark.parametrize(("due_s", "width"), [(0.0125, 1), (0.01, 0), (0.035, 2), (10.0, 2)])
def test_a_large_request_runs_on_a_width_that_has_time_for_all_of_it(due_s: float, width: int) -> None:
    """Slackfit would run some of it on the widest."""
    chooser = scheduler("slackfit")
    chooser.waiting.add(request(0, due_s, 8))
    run, _ = chooser.next(0.0)
    assert run and (run.width, run.images) == (width, 8)
    own = Scheduler(Corrected(TABLE, 0.95), lambda waiting, slack_ms, table: Choice(2, 1))
    own.waiting.add(request(0, due_s, 8))
    run, _ = own.next(0.0)
    assert run and run.width == 2, "a function of the user's means what it says"


def test_the_policy_is_asked_with_what_waits_and_the_slack_of_its_head() -> None:
    asked: list[tuple[int, float, Latencies]] = []

    def mine(waiting: int, slack_ms: float, table: Latencies) -> Choice:
        asked.append((waiting, slack_ms, table))
        return Choice(0, 1)

    chooser = Scheduler(Corrected(TABLE, 0.95), mine)
    chooser.waiting.add(request(0, 0.5, 2))
    chooser.waiting.add(request(0, 0.1, 3))
    run, _ = chooser.next(0.05)
    assert run == Run(0, run.requests, asked[0][1]) if run else False
    assert asked[0][0] == 5 and asked[0][1] == pytest.approx(50 - OVERHEAD_MS) and asked[0][2] == TABLE


def test_a_late_head_is_served_by_the_narrowest_with_many_beside_it() -> None:
    chooser = scheduler("fixed:1", SERVE)
    for _ in range(11):
        chooser.waiting.add(request(0, 0.01))
    first, second = chooser.next(1.0)[0], chooser.next(1.0)[0]
    assert first and second and [(run.width, run.images) for run in (first, second)] == [(0, 8), (0, 3)]
    chooser.waiting.add(request(2, 3))
    run, _ = chooser.next(2.0)
    assert run and run.width == 2, "in time it is as the policy says"


def test_where_all_are_refused_one_is_served_now_and_then() -> None:
    """A table that was measured on a busy machine would refuse everything for ever: only runs correct it."""
    chooser, served, now = scheduler(), [], 0.0
    for number in range(300):  # ten a second, each of less time than the quickest run is thought to take
        now = number / 10
        chooser.waiting.add(request(now, now + 1e-4))
        run, late = chooser.next(now)
        assert len(late) == (run is None), "it is refused, or served"
        if run is not None:
            served.append(now)
            assert run.width == 0 and run.images == 1
    assert served and all(1 <= later - earlier <= 1.2 for earlier, later in itertools.pairwise(served))
    chooser.waiting.add(request(now, now + 100))
    assert chooser.next(now)[0] is not None
    for _ in range(20):  # soon after a run the table is believed, however many come too late
        chooser.waiting.add(request(now, now + 1e-4))
    assert len(chooser.next(now + 0.1)[1]) == 20


def test_nothing_waits_nothing_runs() -> None:
    assert scheduler().next(0.0) == (None, [])


# ------------------------------------------------------------------------------------------------------------- widths out


@pytest.mark.parametrize(
    ("policy", "out", "serves"),
    [
        ("fixed:1", ["1"], "0.5"),
        ("fixed:0.5", ["0.5"], "0.25"),
        ("fixed:0.25", ["0.25"], "0.5"),
        ("fixed:1", ["0.5", "1"], "0.25"),
        ("fixed:0.5", ["0.25", "0.5"], "1"),
        ("fixed:0.5", ["0.25"], "0.5"),
        ("fixed:0.5", ["1", "0.25"], "0.5"),
        ("drain", ["1"], "0.5"),
        ("drain", ["0.25", "1"], "0.5"),
    ],
)
def test_in_the_place_of_a_width_that_is_out(
    policy: str, out: list[str], serves: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Serves the widest that is not wider, and the narrowest that is left where there is none."""
    chooser = scheduler(policy)
    with caplog.at_level(logging.WARNING):
        for label in out:
            chooser.take_out(chooser.latencies.widths.index(label))
    chooser.waiting.add(request(0, 100))
    run, _ = chooser.next(0.0)
    assert run and chooser.latencies.widths[run.width] == serves
    assert chooser.policy == policy
    assert len(caplog.records) == (policy.removeprefix("fixed:") in out)


def test_what_is_no_policy_is_refused_and_the_old_one_stays() -> None:
    chooser = scheduler("fixed:0.5")
    for wrong in ("fixed:2", "widest", 5, None):
        with pytest.raises(ValueError, match="policy"):
            chooser.policy = wrong  # type: ignore[assignment]
    assert chooser.policy == "fixed:0.5"
    chooser.waiting.add(request(0, 100))
    run, _ = chooser.next(0.0)
    assert run and run.width == 1
