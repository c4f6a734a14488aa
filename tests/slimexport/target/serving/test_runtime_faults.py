"""What goes wrong while a bundle is served: runs that fail or hang, clients that go, clocks, files; each on real threads."""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import threading
import time
import tracemalloc
from collections import Counter
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimexport.target.arrays import Array
from slimexport.target.serving import books, runtime, watching
from slimexport.target.serving.answer import Answer, Snapshot
from slimexport.target.serving.errors import Closed, Late, QueueFull, RunFailed
from slimexport.target.serving.runtime import Runtime
from slimtrain.base.errors import UserError
from slimtrain.base.process.leaving import left_behind
from tests.support.serving_helpers import FOREVER_MS, PATIENCE_S, WAIT, Bench, Gate, held, images, logits, wait_until

SHORT_S = 1.0  # a run that takes longer hangs, where a test says so


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watcher looks often, and a run may take as long as a test says, however short it usually is."""
    monkeypatch.setattr(watching.Watcher.__init__, "__defaults__", (0.005,))
    monkeypatch.setattr(runtime, "HANG_FACTOR", 0.0)


def accounted(stats: Snapshot) -> int:
    """The requests whose end is known."""
    return stats.answered + stats.failed + sum(stats.refused.values()) + stats.cancelled


def fails(batch: Array) -> None:
    raise RuntimeError("out of order")


# --------------------------------------------------------------------------------------------------------- runs that fail


def test_an_error_in_one_batch_is_that_batchs_alone(bundle: Path, bench: Bench) -> None:
    with Runtime(bundle, policy="fixed:1", batches=[1, 2]) as served:
        toy = bench.of("1")
        with held(served, toy):
            bad = [served.submit(images(1)[0], FOREVER_MS / 2) for _ in range(2)]
            good = [served.submit(images(1)[0], FOREVER_MS) for _ in range(2)]

            def once(batch: Array) -> None:
                toy.before = lambda batch: None
                fails(batch)

            toy.before = once
        for future in bad:
            with pytest.raises(RunFailed, match=r"width 1: the run failed \(out of order\)") as error:
                future.result(**WAIT)
            assert error.value.exit_code == 2
        for future in good:
            np.testing.assert_array_equal(future.result(**WAIT).output, logits(images(1), toy.file)[0])
        stats = served.stats()
        assert (stats.answered, stats.failed, stats.submitted) == (3, 2, 5)
        assert [event.outcome for event in served.recent()] == ["answered", "failed", "failed", "answered", "answered"]


@pytest.mark.parametrize("error", [MemoryError(), SystemExit(), KeyboardInterrupt(), ZeroDivisionError("x" * 10_000)])
def test_whatever_a_run_raises_the_runtime_serves_on(bundle: Path, bench: Bench, error: BaseException) -> None:
    def raises(batch: Array) -> None:
        bench.of("1").before = lambda batch: None
        raise error

    with Runtime(bundle) as served:
        bench.of("1").before = raises
        with pytest.raises(RunFailed) as caught:
            served.submit(images(1)[0], FOREVER_MS).result(**WAIT)
        assert len(str(caught.value)) < 500
        assert served.submit(images(1)[0], FOREVER_MS).result(**WAIT).name == "1"


WRONG = [
    lambda batch: logits(batch, "")[:-1],
    lambda batch: logits(batch, "")[:, :-1],
    lambda batch: logits(batch, "")[0],
    lambda batch: {"other": logits(batch, "")},
    lambda batch: {"output": logits(batch, ""), "more": logits(batch, "")},
    lambda batch: None,
    lambda batch: [1.0],
]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_width_that_fails_three_times_in_a_row_is_out(
    bundle: Path, bench: Bench, wrong: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """An output of another shape than the manifest's is a failure."""
    with Runtime(bundle, policy="fixed:1") as served:
        bench.of("1").give = wrong
        for _ in range(3):
            with pytest.raises(RunFailed):
                served.submit(images(2), FOREVER_MS).result(**WAIT)
        assert served.submit(images(2), FOREVER_MS).result(**WAIT).name == "0.5"
        stats = served.stats()
        assert [(width.label, bool(width.out)) for width in stats.widths] == [("0.25", False), ("0.5", False), ("1", True)]
        assert "3 runs in a row failed" in stats.widths[2].out
        assert served.ready and served.latencies.widths == ("0.25", "0.5")
        wait_until(lambda: bench.of("1").closed == 1)
        assert (stats.answered, stats.failed) == (1, 3)
        with pytest.raises(UserError, match="width '1' is not open"):
            served.policy = "fixed:1"
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert "policy fixed:1: width 0.5 serves in the place of 1" in caplog.records[1].message
    assert [toy.closed for toy in bench.runners] == [1, 1, 1]


def test_failures_that_are_not_in_a_row_take_no_width_out(bundle: Path, bench: Bench) -> None:
    with Runtime(bundle, policy="fixed:1") as served:
        toy = bench.of("1")
        for _ in range(4):
            toy.before = fails
            for _ in range(2):
                with pytest.raises(RunFailed):
                    served.submit(images(1)[0], FOREVER_MS).result(**WAIT)
            toy.before = lambda batch: None
            assert served.submit(images(1)[0], FOREVER_MS).result(**WAIT).name == "1"


def test_the_last_width_stays_however_often_it_fails(bundle: Path, bench: Bench) -> None:
    with Runtime(bundle, widths=[0.5]) as served:
        bench.of("0.5").before = fails
        for _ in range(8):
            with pytest.raises(RunFailed):
                served.submit(images(1)[0], FOREVER_MS).result(**WAIT)
        bench.of("0.5").before = lambda batch: None
        assert served.ready and served.submit(images(1)[0], FOREVER_MS).result(**WAIT).width == 0.5


# ---------------------------------------------------------------------------------------------------------- runs that hang


@pytest.mark.usefixtures("often")
def test_a_width_that_hangs_is_out_and_the_rest_serve(bundle: Path, bench: Bench) -> None:
    gate = Gate()
    with Runtime(bundle, hang_s=SHORT_S, policy="fixed:1") as served:
        bench.of("1").before = gate
        stuck = served.submit(images(1)[0], FOREVER_MS)
        gate.wait_for_a_run()
        waiting = [served.submit(images(1)[0], FOREVER_MS) for _ in range(3)]
        with pytest.raises(RunFailed, match=r"width 1: a run of 1 did not come back within .* s\. It is out"):
            stuck.result(**WAIT)
        assert [future.result(**WAIT).name for future in waiting] == ["0.5"] * 3
        assert served.ready and "did not come back" in served.stats().widths[2].out
        assert bench.of("1").closed == 0, "it runs still"
        gate.open()
        wait_until(lambda: bench.of("1").closed == 1)
        assert served.submit(images(1)[0], FOREVER_MS).result(**WAIT).name == "0.5"
        stats = served.stats()
        assert (stats.submitted, stats.answered, stats.failed) == (5, 4, 1), "what came back too late is no answer"
    assert [toy.closed for toy in bench.runners] == [1, 1, 1]


@pytest.mark.usefixtures("often")
def test_a_runtime_whose_last_width_hangs_refuses_and_closes(bundle: Path, bench: Bench) -> None:
    gate = Gate()
    served = Runtime(bundle, hang_s=SHORT_S, widths=[0.5])
    bench.of("0.5").before = gate
    stuck = served.submit(images(1)[0], FOREVER_MS)
    gate.wait_for_a_run()
    waiting = [served.submit(images(1)[0], FOREVER_MS) for _ in range(3)]
    with pytest.raises(RunFailed):
        stuck.result(**WAIT)
    for future in waiting:
        with pytest.raises(Closed, match=r"no width is left: 0\.5: a run of 1 did not come back"):
            future.result(**WAIT)
    assert not served.ready
    with pytest.raises(Closed, match="no width is left"):
        served.submit(images(1)[0], FOREVER_MS)
    served.close()
    stats = served.stats()
    assert (stats.submitted, stats.failed, stats.refused["closed"]) == (5, 1, 4)
    gate.open()
    wait_until(lambda: bench.of("0.5").closed == 1)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("drain", [True, False])
def test_close_ends_though_a_run_hangs(bundle: Path, bench: Bench, drain: bool) -> None:
    gate = Gate()
    served = Runtime(bundle, hang_s=SHORT_S, policy="fixed:1")
    bench.of("1").before = gate
    stuck = served.submit(images(1)[0], FOREVER_MS)
    gate.wait_for_a_run()
    waiting = [served.submit(images(1)[0], FOREVER_MS) for _ in range(3)]
    served.close(drain)
    with pytest.raises(RunFailed):
        stuck.result(**WAIT)
    for future in waiting:
        assert future.done()
        if drain:
            assert future.result().name == "0.5"
        else:
            assert isinstance(future.exception(), Closed)
    gate.open()
    wait_until(lambda: [toy.closed for toy in bench.runners] == [1, 1, 1])


# ---------------------------------------------------------------------------------------------------------------- closing


def test_close_serves_what_waits(bundle: Path, bench: Bench) -> None:
    served = Runtime(bundle, batches=[1, 4])
    with held(served, *bench.runners) as gate:
        futures = [served.submit(images(1, seed)[0], FOREVER_MS) for seed in range(9)]
        closing = threading.Thread(target=served.close)
        closing.start()
        wait_until(lambda: not served.ready)
        with pytest.raises(Closed, match="the runtime is closed"):
            served.submit(images(1)[0], FOREVER_MS)
        assert not any(future.done() for future in futures)
        gate.open()
        closing.join(PATIENCE_S)
    assert not closing.is_alive() and all(future.done() for future in futures)
    for seed, future in enumerate(futures):
        np.testing.assert_array_equal(future.result().output, logits(images(1, seed), "net_x1.onnx")[0])
    served.close()
    served.close(drain=False)
    assert [toy.closed for toy in bench.runners] == [1, 1, 1], "closed once"


def test_close_can_refuse_what_waits(bundle: Path, bench: Bench) -> None:
    served = Runtime(bundle)
    with held(served, *bench.runners) as gate:
        futures = [served.submit(images(1)[0], FOREVER_MS) for _ in range(9)]
        closing = threading.Thread(target=served.close, args=(False,))
        closing.start()
        for future in futures:
            with pytest.raises(Closed, match="the runtime was closed"):
                future.result(**WAIT)
        gate.open()
        closing.join(PATIENCE_S)
    stats = served.stats()
    assert (stats.submitted, stats.answered, stats.refused["closed"]) == (10, 1, 9), "what runs comes to its end"


@pytest.mark.skipif(os.name != "posix", reason="sends this process a signal")
@pytest.mark.parametrize("ends", [True, False])
def test_ctrl_c_ends_a_close_that_serves_what_waits(
    bundle: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    """What waits is refused, and no thread may come back from a run while the interpreter ends: it would crash."""
    monkeypatch.setattr(runtime, "STOPPING_S", PATIENCE_S if ends else 0.01)
    served = Runtime(bundle)
    lane = served._lane
    with held(served, *bench.runners) as gate:
        futures = [served.submit(images(1)[0], FOREVER_MS) for _ in range(9)]
        if ends:
            futures[-1].add_done_callback(lambda future: gate.open())
        join = lane.join

        def interrupted(timeout_s: float | None = None) -> bool:
            monkeypatch.setattr(lane, "join", join)
            os.kill(os.getpid(), signal.SIGINT)
            return join(timeout_s)

        monkeypatch.setattr(lane, "join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            served.close()
        assert all(isinstance(future.exception(timeout=0), Closed) for future in futures)
        assert lane.join(0) is ends and (lane._thread in left_behind()) is not ends
    assert lane.join(PATIENCE_S)
    served.close()
    assert accounted(served.stats()) == 10 and served.stats().answered == 1, "what ran came to its end"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_every_future_is_done_after_close_whatever_went_wrong(
    bundle: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the thread that computes is gone."""
    served = Runtime(bundle)
    monkeypatch.setattr(served._scheduler, "next", lambda now_s: 1 / 0)
    futures = [served.submit(images(1)[0], FOREVER_MS) for _ in range(3)]
    wait_until(lambda: served._lane.join(0))
    served.close()
    assert all(isinstance(future.exception(timeout=0), Closed) for future in futures)
    assert accounted(served.stats()) == served.stats().submitted == 3


def test_no_thread_is_left_after_close(bundle: Path, bench: Bench) -> None:
    before = set(threading.enumerate())
    for _ in range(3):
        with Runtime(bundle) as served:
            assert len(set(threading.enumerate()) - before) == 2
            served.submit(images(1)[0], FOREVER_MS).result(**WAIT)
    assert set(threading.enumerate()) == before


def test_close_from_a_callback_is_refused_with_words(bundle: Path, bench: Bench) -> None:
    errors: list[BaseException] = []

    def calls_close(future: Future[Answer]) -> None:
        try:
            served.close()
        except UserError as error:
            errors.append(error)

    with Runtime(bundle) as served:
        with held(served, *bench.runners):
            served.submit(images(1)[0], FOREVER_MS).add_done_callback(calls_close)
        wait_until(lambda: bool(errors))
        assert "on the thread that computes" in str(errors[0])
        assert served.ready


def test_a_callback_that_fails_harms_nobody(bundle: Path, bench: Bench) -> None:
    with Runtime(bundle) as served:
        with held(served, *bench.runners):
            served.submit(images(1)[0], FOREVER_MS).add_done_callback(lambda future: 1 / 0)
            other = served.submit(images(1)[0], FOREVER_MS)
        assert other.result(**WAIT).name == "1"


def test_a_future_that_somebody_else_ends_harms_nobody(bundle: Path, bench: Bench) -> None:
    with Runtime(bundle, batches=[1]) as served:
        with held(served, *bench.runners):
            stolen = served.submit(images(1)[0], FOREVER_MS / 2)
            other = served.submit(images(1)[0], FOREVER_MS)
            stolen.set_result("mine")  # type: ignore[arg-type]
        assert other.result(**WAIT).name == "1" and stolen.result() == "mine"  # type: ignore[comparison-overlap]


# ----------------------------------------------------------------------------------------------------- many at once


def submitted_by_threads(
    served: Runtime, threads: int, count: int, deadline_ms: float
) -> tuple[list[tuple[int, Future[Answer]]], Counter[str]]:
    """The futures of so many requests of so many threads, with the seeds of their images, and what was refused."""
    futures: list[tuple[int, Future[Answer]]] = []
    refusals: Counter[str] = Counter()
    lock, start = threading.Lock(), threading.Barrier(threads)

    def client(number: int) -> None:
        start.wait(PATIENCE_S)
        for index in range(count):
            seed = number * count + index
            try:
                future = served.submit(images(1 + seed % 3, seed), deadline_ms)
            except (QueueFull, Closed) as error:
                with lock:
                    refusals[type(error).__name__] += 1
            else:
                if seed % 7 == 0:
                    future.cancel()
                with lock:
                    futures.append((seed, future))

    clients = [threading.Thread(target=client, args=(number,)) for number in range(threads)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join(PATIENCE_S)
    return futures, refusals


@pytest.mark.parametrize("drain", [True, False])
@pytest.mark.parametrize(("queue", "deadline_ms"), [(10_000, FOREVER_MS), (20, FOREVER_MS), (10_000, 2.0)])
def test_nothing_is_lost_and_nothing_answered_twice(
    bundle: Path, bench: Bench, drain: bool, queue: int, deadline_ms: float
) -> None:
    """Eight threads submit, and one closes in between."""
    ends: Counter[int] = Counter()
    served = Runtime(bundle, queue=queue, batches=[1, 4])

    def close() -> None:
        wait_until(lambda: served.stats().submitted > 300)
        served.close(drain)

    closing = threading.Thread(target=close)
    closing.start()
    futures, refusals = submitted_by_threads(served, 8, 100, deadline_ms)
    closing.join(PATIENCE_S)
    assert not closing.is_alive()
    outcomes: Counter[str] = Counter()
    for seed, future in futures:
        assert future.done()
        future.add_done_callback(lambda _, seed=seed: ends.update([seed]))  # type: ignore[misc]
        try:
            answer = future.result()
        except (Late, Closed, CancelledError) as error:
            outcomes[type(error).__name__] += 1
        else:
            outcomes["answered"] += 1
            file = f"net_x{answer.name.replace('.', '_')}.onnx"
            np.testing.assert_array_equal(answer.output, logits(images(1 + seed % 3, seed), file))
    stats = served.stats()
    assert stats.submitted == accounted(stats) == len(futures) + refusals.total() == 800
    assert (stats.answered, stats.failed, stats.waiting) == (outcomes["answered"], 0, 0)
    assert stats.refused["late"] == outcomes["Late"]
    assert stats.refused["full"] == refusals["QueueFull"]
    assert stats.refused["closed"] == refusals["Closed"] + outcomes["Closed"]
    assert stats.cancelled == outcomes["CancelledError"]
    assert set(ends.values()) == {1}


def test_ten_thousand_requests_wait_and_are_served(bundle: Path, bench: Bench) -> None:
    with Runtime(bundle, queue=10_000) as served:
        image = images(1)[0]
        with held(served, *bench.runners):
            futures = [served.submit(image, FOREVER_MS - number) for number in range(10_000)]
            with pytest.raises(QueueFull, match="10000 images wait"):
                served.submit(image, FOREVER_MS)
            assert served.stats().waiting == 10_000
        assert {future.result(**WAIT).name for future in futures} <= {"0.25", "0.5", "1"}
        stats = served.stats()
        assert (stats.answered, stats.waiting) == (10_001, 0)
        assert max(toy.runs[-1] for toy in bench.runners) <= served.latencies.largest


def test_requests_whose_futures_are_cancelled_are_not_computed(bundle: Path, bench: Bench) -> None:
    with Runtime(bundle, queue=10, batches=[1, 8]) as served:
        with held(served, *bench.runners):
            first = [served.submit(images(2), FOREVER_MS) for _ in range(5)]
            with pytest.raises(QueueFull):
                served.submit(images(1)[0], FOREVER_MS)
            assert all(future.cancel() for future in first[1:])
            assert all(future.cancel() for future in first[1:]), "twice is once"
            assert served.stats().waiting == 2, "their place is free at once"
            second = served.submit(images(8), FOREVER_MS)
        assert (first[0].result(**WAIT).batch, second.result(**WAIT).batch) == (2, 8)
        assert not second.cancel(), "it is done"
        stats = served.stats()
        assert (stats.answered, stats.cancelled, stats.submitted) == (3, 4, 8)
        assert accounted(stats) == 8


def test_what_is_being_computed_cannot_be_cancelled(bundle: Path, bench: Bench) -> None:
    gate = Gate()
    with Runtime(bundle) as served:
        bench.of("1").before = gate
        future = served.submit(images(1)[0], FOREVER_MS)
        gate.wait_for_a_run()
        assert not future.cancel()
        gate.open()
        assert future.result(**WAIT).name == "1"


def test_memory_does_not_grow(bundle: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 20,000 requests, some of them cancelled, late or refused, nothing stays but the last events."""
    monkeypatch.setattr(books, "MOST_EVENTS", 100)
    image = np.zeros((3, 4, 4), np.float32)
    with Runtime(bundle, queue=50) as served:

        def serve(count: int) -> None:
            for _ in range(count // 100):
                futures = []
                for number in range(100):
                    try:
                        futures.append(served.submit(image.copy(), 1e-3 if number % 10 == 0 else FOREVER_MS))
                    except QueueFull:
                        continue
                    if number % 10 == 1:
                        futures[-1].cancel()
                for future in futures:
                    wait_until(future.done)
            for toy in bench.runners:
                toy.runs.clear()
            gc.collect()

        serve(2000)
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            threads = threading.active_count()
            serve(20_000)
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert grown < 200_000, "less than ten bytes a request"
        assert threading.active_count() == threads
        assert len(served.recent()) == 100


def test_images_of_cancelled_requests_are_let_go(bundle: Path, bench: Bench) -> None:
    with Runtime(bundle, queue=100) as served, held(served, *bench.runners):
        image = np.zeros((1, 3, 4, 4), np.float32)
        for _ in range(1000):
            served.submit(image.copy(), FOREVER_MS).cancel()
        assert len(served._scheduler.waiting._heap) < 100
        assert served.stats().waiting == 0


# ------------------------------------------------------------------------------------------------------ clocks and files


def test_steps_of_the_systems_clock_change_nothing(bundle: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: 1e9 * (-1) ** next(steps))
    with Runtime(bundle) as served:
        for _ in range(20):
            answer = served.submit(images(1)[0], FOREVER_MS).result(**WAIT)
            assert 0 <= answer.queued_ms < FOREVER_MS and 0 <= answer.computed_ms < FOREVER_MS and not answer.late
        assert all(0 <= event.at_s <= served.now() for event in served.recent())


@pytest.mark.usefixtures("often")
def test_a_bundle_that_changes_on_disk_is_served_as_it_was(
    bundle: Path, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    path = bundle / "manifest.json"
    content = path.read_text()
    with caplog.at_level(logging.WARNING), Runtime(bundle) as served:
        assert not served.stats().stale
        path.write_text(json.dumps({**json.loads(content), "more": 1}))
        (bundle / "net_x1.onnx").unlink()
        wait_until(lambda: served.stats().stale)
        assert served.submit(images(1)[0], FOREVER_MS).result(**WAIT).name == "1" and served.ready
        path.unlink()
        wait_until(lambda: served._on_disk._identity is None)
        assert served.stats().stale
        path.write_text(content)
        wait_until(lambda: not served.stats().stale)
    (record,) = caplog.records
    assert "was changed. What was opened is served; start again" in record.message
