"""The demonstration's load: a Poisson process held against its definition on a clock of the test's own, and what it sends."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette", reason="needs the extra serve")

from slimexport.target.arrays import Array
from slimexport.target.serving.answer import Answer
from slimexport.target.serving.errors import Closed, QueueFull, RequestError
from slimexport.target.serving.http.demo import IMAGES, MOST_BEHIND_S, Arrivals, Demo, capacity
from slimexport.target.serving.policy import Latencies
from slimexport.target.serving.runtime import Runtime
from tests.support import http_serving
from tests.support.bundle_helpers import manifest

LIMIT_S = 60.0
TABLE = Latencies(("0.25", "1"), (1, 2, 4), ((1.0, 1.5, 2.0), (4.0, 5.0, 12.0)))


class Recorder:
    """Stands for a runtime: notes what it is given, answers nothing, and refuses as a test says."""

    def __init__(self, table: Latencies = TABLE) -> None:
        self.manifest = manifest(image_size=4)
        self.slo_ms = 50.0
        self.latencies = table
        self.images: list[Array] = []
        self.refusal: Exception | None = None
        self.enough, self.wanted = threading.Event(), 1

    def submit(self, image: Array) -> Future[Answer]:
        self.images.append(image)
        if len(self.images) >= self.wanted:
            self.enough.set()
        if self.refusal:
            raise self.refusal
        return Future()

    def wait_for(self, more: int) -> None:
        self.enough.clear()
        self.wanted = len(self.images) + more
        assert self.enough.wait(LIMIT_S)


def demo_of(recorder: Any, **options: Any) -> Demo:
    return Demo(recorder, **options)


# -------------------------------------------------------------------------------------------------------- the arrivals


def test_the_capacity_is_the_most_images_a_second_of_any_batch() -> None:
    assert capacity(TABLE, 0) == pytest.approx(4 / 2e-3)
    assert capacity(TABLE, 1) == pytest.approx(2 / 5e-3)


def test_counts_of_arrivals_are_poisson_s_however_often_one_looks() -> None:
    arrivals = Arrivals(200.0, 0.0, seed=1)
    counts = np.array([arrivals.due(0.05 * look) for look in range(1, 4001)])
    assert counts.mean() == pytest.approx(10.0, rel=0.03)
    assert counts.var() == pytest.approx(10.0, rel=0.1)  # a Poisson count's variance is its mean; of even gaps it is near 0
    assert abs(np.corrcoef(counts[:-1], counts[1:])[0, 1]) < 0.05


def test_the_wait_is_until_the_next_one_and_not_longer() -> None:
    arrivals = Arrivals(10.0, 5.0, seed=2)
    wait_s = arrivals.wait_s(5.0)
    assert wait_s is not None
    assert arrivals.due(5.0 + wait_s - 1e-9) == 0
    assert arrivals.due(5.0 + wait_s + 1e-9) == 1


def test_another_rate_counts_from_when_it_is_set() -> None:
    arrivals = Arrivals(1e-6, 0.0, seed=3)
    assert arrivals.due(100.0) == 0
    arrivals.change(1000.0, 100.0)
    assert arrivals.due(100.5) == pytest.approx(500, rel=0.2)
    arrivals.change(0.0, 100.5)
    assert arrivals.due(1e9) == 0
    assert arrivals.wait_s(1e9) is None


def test_a_process_that_stood_still_does_not_send_all_that_it_missed() -> None:
    arrivals = Arrivals(100.0, 0.0, seed=4)
    assert arrivals.due(3600.0) == pytest.approx(100 * MOST_BEHIND_S, rel=0.4)


# ------------------------------------------------------------------------------------------------------------ the demo


def test_it_sends_noise_of_the_input_s_shape_until_it_is_closed() -> None:
    recorder = Recorder()
    with demo_of(recorder, load=4.0) as demo:
        assert demo.rate == pytest.approx(4.0 * 400)
        recorder.wait_for(2 * IMAGES)
    sent = len(recorder.images)
    assert {(image.shape, image.dtype) for image in recorder.images} == {((3, 4, 4), np.dtype(np.float32))}
    assert len({image.tobytes() for image in recorder.images}) == IMAGES
    demo.close()
    assert len(recorder.images) == sent
    assert not any(thread.name == "slimexport demo" for thread in threading.enumerate())


def test_a_full_queue_does_not_end_it_and_a_closed_runtime_does() -> None:
    recorder = Recorder()
    recorder.refusal = QueueFull("full")
    with demo_of(recorder, load=4.0) as demo:
        recorder.wait_for(5)
        recorder.refusal = Closed("closed")
        demo._thread.join(LIMIT_S)
        assert not demo._thread.is_alive()


def test_a_load_of_nothing_sends_nothing_until_it_is_raised() -> None:
    recorder = Recorder()
    with demo_of(recorder, load=0.0) as demo:
        assert recorder.images == []
        demo.change(load=4.0)
        recorder.wait_for(3)


def test_the_load_is_of_what_the_widest_takes_at_the_start() -> None:
    recorder = Recorder()
    demo = demo_of(recorder, load=0.5)
    assert demo.rate == pytest.approx(200.0)
    recorder.latencies = Latencies(TABLE.widths, TABLE.batches, (TABLE.ms[0], tuple(2 * ms for ms in TABLE.ms[1])))
    demo.change(load=1.0)
    assert demo.rate == pytest.approx(400.0)


def test_the_deadline_is_the_runtime_s() -> None:
    recorder = Recorder()
    demo = demo_of(recorder)
    demo.change(slo_ms=20)
    assert (recorder.slo_ms, demo.load) == (20.0, 0.6)


@pytest.mark.parametrize(
    "values",
    [{"load": -0.1}, {"load": 4.1}, {"load": float("nan")}, {"load": True}, {"load": "1"}, {"slo_ms": 0}, {"slo_ms": 201}],
)
def test_values_beyond_the_sliders_are_refused_and_nothing_changes(values: dict[str, Any]) -> None:
    recorder = Recorder()
    demo = demo_of(recorder, load=1.0)
    with pytest.raises(RequestError, match=f"{next(iter(values))} .*expected a number from"):
        demo.change(**{"load": 2.0, "slo_ms": 30.0, **values})
    assert (demo.load, recorder.slo_ms) == (1.0, 50.0)
    assert demo.rate == pytest.approx(400.0)


def test_a_runtime_answers_what_it_sends(tmp_path: Path) -> None:
    bundle = http_serving.write_bundle(tmp_path)
    with Runtime(bundle, slo_ms=10_000) as runtime, Demo(runtime, load=0.01) as demo:
        answered = threading.Event()
        real = runtime.submit

        def submit(image: Array) -> Future[Answer]:
            future = real(image)
            future.add_done_callback(lambda done: answered.set() if not done.exception() else None)
            return future

        demo.runtime = SimpleNamespace(submit=submit)  # type: ignore[assignment]
        assert answered.wait(LIMIT_S)
    assert runtime.stats().answered >= 1
