"""`Runtime.infer` computes on the thread that asks where nothing else waits or runs, and is a request as any other."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimexport.target.serving import runtime as serving
from slimexport.target.serving.errors import Closed, Late, QueueFull, RequestError, RunFailed
from slimexport.target.serving.lane import Lane
from slimexport.target.serving.requests import Pending
from slimexport.target.serving.runtime import Runtime
from slimexport.target.serving.scheduling import Run
from slimtrain.base.errors import UserError
from tests.support.serving_helpers import FOREVER_MS, WAIT, Bench, Gate, held, images, logits, real_bundle, wait_until


def threads_of(bench: Bench) -> list[str]:
    """The name of the thread of every run from now on."""
    names: list[str] = []
    for runner in bench.runners:
        runner.before = lambda batch: names.append(threading.current_thread().name)
    return names


def apart(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """A call in a thread of its own, called `asks`, and what came of it."""
    came: list[Any] = []

    def work() -> None:
        try:
            came.append(call())
        except Exception as error:
            came.append(error)

    thread = threading.Thread(target=work, name="asks", daemon=True)
    thread.start()
    return thread, came


def test_an_answer_is_what_submit_gives(tmp_path: Path) -> None:
    with Runtime(real_bundle(tmp_path / "b"), slo_ms=FOREVER_MS) as runtime:
        for given in (images(1)[0], images(3)):
            answer, other = runtime.infer(given), runtime.submit(given).result(**WAIT)
            np.testing.assert_array_equal(answer.output, other.output)
            assert (answer.width, answer.name, answer.batch, answer.late) == (other.width, other.name, other.batch, False)
            assert 0 <= answer.queued_ms < FOREVER_MS and answer.computed_ms > 0
        stats = runtime.stats()
    assert (stats.submitted, stats.answered, stats.in_time, stats.waiting) == (4, 4, 4, 0)
    assert [event.outcome for event in runtime.recent()] == ["answered"] * 4


def test_it_runs_on_the_thread_that_asks_where_nothing_else_is_there(bundle: Path, bench: Bench) -> None:
    with Runtime(bundle, slo_ms=FOREVER_MS) as runtime:
        names = threads_of(bench)
        runtime.infer(images(1)[0])
        runtime.submit(images(1)[0]).result(**WAIT)
        runtime.infer(images(1)[0])
    here = threading.current_thread().name
    assert names == [here, "slimexport computes", here]


def test_behind_others_it_waits_and_shares_their_run(bundle: Path, bench: Bench) -> None:
    with Runtime(bundle, policy="fixed:1", slo_ms=FOREVER_MS) as runtime:
        batch = images(3)
        with held(runtime, bench.of("1")):
            asking = [apart(partial(runtime.infer, image)) for image in batch]
            wait_until(lambda: runtime.stats().waiting == 3)
        for thread, _ in asking:
            thread.join(**WAIT)
        for (_, (answer,)), image in zip(asking, batch, strict=True):
            assert answer.batch == 3
            np.testing.assert_array_equal(answer.output, logits(image[None], "net_x1.onnx")[0])


def test_what_comes_while_it_runs_is_served_afterwards(bundle: Path, bench: Bench) -> None:
    gate = Gate()
    with Runtime(bundle, policy="fixed:1", slo_ms=FOREVER_MS) as runtime:
        bench.of("1").before = gate
        thread, came = apart(lambda: runtime.infer(images(1)[0]))
        gate.wait_for_a_run()
        waiting = [runtime.submit(image) for image in images(3)]
        running = bench.of("1").runs[-1:]
        assert running == [1] and not any(future.done() for future in waiting), "one run at a time"
        gate.open()
        thread.join(**WAIT)
        assert came[0].batch == 1
        assert [future.result(**WAIT).batch for future in waiting] == [3, 3, 3]


def test_close_waits_for_it_and_for_what_waits_behind_it(bundle: Path, bench: Bench) -> None:
    gate = Gate()
    runtime = Runtime(bundle, policy="fixed:1", slo_ms=FOREVER_MS)
    bench.of("1").before = gate
    thread, came = apart(lambda: runtime.infer(images(1)[0]))
    gate.wait_for_a_run()
    behind = runtime.submit(images(1)[0])
    closing, _ = apart(runtime.close)
    wait_until(lambda: not runtime.ready)
    assert [toy.closed for toy in bench.runners] == [0, 0, 0] and closing.is_alive()
    gate.open()
    for waited in (thread, closing):
        waited.join(**WAIT)
        assert not waited.is_alive()
    assert came[0].name == "1" and behind.result(**WAIT).name == "1"
    assert [toy.closed for toy in bench.runners] == [1, 1, 1]
    with pytest.raises(Closed):
        runtime.infer(images(1)[0])


def test_it_raises_what_a_request_would(bundle: Path, bench: Bench) -> None:
    with Runtime(bundle, queue=1, policy="fixed:1", slo_ms=FOREVER_MS) as runtime:
        with pytest.raises(RequestError, match="an input of shape"):
            runtime.infer(np.zeros((1, 2, 3), np.float32))
        with pytest.raises(RequestError, match="deadline_ms"):
            runtime.infer(images(1)[0], 0)
        with pytest.raises(Late, match="no width ends in the rest"):
            runtime.infer(images(1)[0], 1e-6)
        with held(runtime, bench.of("1")):
            runtime.submit(images(1)[0])
            with pytest.raises(QueueFull, match=r"1 images wait, 1 may"):
                runtime.infer(images(1)[0])
        stats = runtime.stats()
    assert (stats.refused["late"], stats.refused["full"]) == (1, 1)


def test_a_run_that_fails_is_told_and_three_take_the_width_out(bundle: Path, bench: Bench) -> None:
    with Runtime(bundle, policy="fixed:1", slo_ms=FOREVER_MS) as runtime:

        def fail(batch: Any) -> None:
            raise MemoryError("no room")

        bench.of("1").before = fail
        for _ in range(3):
            with pytest.raises(RunFailed, match=r"width 1: the run failed \(no room\)"):
                runtime.infer(images(1)[0])
        wait_until(lambda: bench.of("1").closed == 1)
        assert runtime.infer(images(1)[0]).name == "0.5"
        stats = runtime.stats()
    assert (stats.failed, stats.answered) == (3, 1) and "3 runs in a row failed" in stats.widths[2].out


def test_ctrl_c_is_raised_and_the_runtime_serves_on(bundle: Path, bench: Bench) -> None:
    with Runtime(bundle, policy="fixed:1", slo_ms=FOREVER_MS) as runtime:

        def interrupt(batch: Any) -> None:
            raise KeyboardInterrupt

        toy, before = bench.of("1"), bench.of("1").before
        for _ in range(4):
            toy.before = interrupt
            with pytest.raises(KeyboardInterrupt):
                runtime.infer(images(1)[0])
            toy.before = before
        assert runtime.infer(images(1)[0]).name == runtime.submit(images(1)[0]).result(**WAIT).name == "1"
        stats = runtime.stats()
    assert (stats.submitted, stats.failed, stats.answered) == (6, 4, 2)
    assert not any(state.out for state in stats.widths), "Ctrl-C is no failure of the width"


def test_ctrl_c_within_our_own_lines_leaves_no_run_behind(bundle: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with Runtime(bundle, policy="fixed:1", slo_ms=FOREVER_MS) as runtime:

        def interrupt(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(serving, "parts", interrupt)
            with pytest.raises(KeyboardInterrupt):
                runtime.infer(images(1)[0])
        with monkeypatch.context() as patched:
            patched.setattr(runtime, "_compute", interrupt)
            with pytest.raises(KeyboardInterrupt):
                runtime.infer(images(1)[0])
        assert runtime.submit(images(1)[0]).result(**WAIT).name == "1"
        stats = runtime.stats()
    assert (stats.submitted, stats.failed, stats.answered) == (3, 2, 1)


def test_one_that_hangs_holds_its_own_thread_alone(bundle: Path, bench: Bench) -> None:
    gate = Gate()
    with Runtime(bundle, hang_s=0.2, policy="fixed:1", slo_ms=FOREVER_MS) as runtime:
        bench.of("1").before = gate
        thread, came = apart(lambda: runtime.infer(images(1)[0]))
        gate.wait_for_a_run()
        behind = runtime.submit(images(1)[0])
        assert behind.result(**WAIT).name == "0.5"
        assert thread.is_alive() and "did not come back" in runtime.stats().widths[2].out
        assert runtime.infer(images(1)[0]).name == "0.5"
        gate.open()
        thread.join(**WAIT)
        assert isinstance(came[0], RunFailed) and bench.of("1").closed == 1
        stats = runtime.stats()
    assert (stats.submitted, stats.answered, stats.failed) == (3, 2, 1)
    assert [one.name for one in threading.enumerate() if one.name == "slimexport computes"] == []


def test_latencies_follow_what_it_computes(bundle: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with Runtime(bundle, policy="fixed:1", slo_ms=FOREVER_MS) as runtime:
        learned: list[float] = []
        ran = runtime._scheduler.ran

        def note(run: Run, ms: float) -> None:
            learned.append(ms)
            ran(run, ms)

        monkeypatch.setattr(runtime._scheduler, "ran", note)
        took = [runtime.infer(images(1)[0]).computed_ms for _ in range(2 * serving.LEARN_OF)]
        wait_until(lambda: len(learned) == len(took))
        assert learned == took
        runtime.infer(images(1)[0])
        runtime.submit(images(1)[0]).result(**WAIT)
    assert len(learned) == len(took) + 2, "with the next on the runtime's own thread, or at the end"


def test_what_a_trial_took_is_known_at_once(bundle: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all was refused one is served: the next ones go by what that took."""
    with Runtime(bundle, slo_ms=FOREVER_MS) as runtime:
        learned: list[bool] = []
        monkeypatch.setattr(runtime._scheduler, "refuses", lambda request, now: setattr(request, "trial", True))
        monkeypatch.setattr(runtime._scheduler, "hopeless", lambda request, now: True)
        monkeypatch.setattr(runtime._scheduler, "ran", lambda run, ms: learned.append(run.trial))
        assert runtime.infer(images(1)[0]).name == "0.25"
        wait_until(lambda: learned == [True])


def test_many_threads_that_ask_and_submit_get_their_own_answers(bundle: Path, bench: Bench) -> None:
    batch = images(200, seed=5)
    running = threading.Lock()

    def alone(_: Any) -> None:
        assert running.acquire(blocking=False), "two runs at once"
        running.release()

    with Runtime(bundle, slo_ms=FOREVER_MS) as runtime:
        for runner in bench.runners:
            runner.before = alone

        def ask(number: int) -> Any:
            return runtime.infer(batch[number]) if number % 3 else runtime.submit(batch[number]).result(**WAIT)

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, range(len(batch))))
        stats = runtime.stats()
    assert (stats.submitted, stats.answered, stats.failed) == (200, 200, 0)
    for image, answer in zip(batch, answers, strict=True):
        file = f"net_x{answer.name.replace('.', '_')}.onnx"
        np.testing.assert_allclose(answer.output, logits(image[None], file)[0], rtol=1e-5)


def test_only_failures_in_a_row_take_a_width_out(bundle: Path, bench: Bench) -> None:
    with Runtime(bundle, policy="fixed:1", slo_ms=FOREVER_MS) as runtime:
        toy, give = bench.of("1"), bench.of("1").give
        for number in range(9):
            toy.give = give if number % 2 else lambda batch: 1 / 0
            if number % 2:
                assert runtime.infer(images(1)[0]).name == "1"
            else:
                with pytest.raises(RunFailed):
                    runtime.infer(images(1)[0])
        assert not any(state.out for state in runtime.stats().widths)


@pytest.mark.parametrize(("within_ms", "error"), [(FOREVER_MS, RunFailed), (1e-6, Late)])
def test_what_failed_or_was_refused_holds_no_images(
    bundle: Path, bench: Bench, within_ms: float, error: type[Exception]
) -> None:
    kept: list[weakref.ref[Any]] = []
    gc.disable()
    try:
        with Runtime(bundle, widths=[1.0], slo_ms=FOREVER_MS) as runtime:
            bench.of("1").before = lambda batch: 1 / 0
            for number in range(20):
                image = images(1, seed=number)[0]
                kept.append(weakref.ref(image.base))  # which is what a view of a view holds
                with pytest.raises(error):
                    runtime.infer(image, within_ms)
            del image
            assert sum(reference() is not None for reference in kept) <= 1
    finally:
        gc.enable()


@pytest.mark.parametrize("raised", [SystemExit(7), KeyboardInterrupt()])
def test_what_a_signal_raises_is_no_failure_of_a_run(bundle: Path, bench: Bench, raised: BaseException) -> None:
    with Runtime(bundle, policy="fixed:1", slo_ms=FOREVER_MS) as runtime:

        def leave(batch: Any) -> None:
            raise raised

        bench.of("1").before = leave
        for _ in range(4):
            with pytest.raises(type(raised)):
                runtime.infer(images(1)[0])
        assert not any(state.out for state in runtime.stats().widths)


def test_what_waits_is_served_though_who_ran_was_interrupted_before_it_said_so(
    bundle: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    with Runtime(bundle, policy="fixed:1", slo_ms=FOREVER_MS) as runtime:
        bench.of("1").before = gate
        monkeypatch.setattr(runtime, "_hand_back", lambda lane, job: None)
        thread, came = apart(partial(runtime.infer, images(1)[0]))
        gate.wait_for_a_run()
        behind = runtime.submit(images(1)[0])
        wait_until(lambda: runtime._lane._waits)
        gate.open()
        thread.join(**WAIT)
        assert came[0].name == "1" and behind.result(**WAIT).name == "1"


def test_a_callback_cannot_wait_for_what_it_holds_up(bundle: Path, bench: Bench) -> None:
    came: list[BaseException] = []
    gate = Gate()
    with Runtime(bundle, slo_ms=FOREVER_MS) as runtime:

        def call_back(_: object) -> None:
            try:
                runtime.infer(images(1)[0])
            except UserError as error:
                came.append(error)

        for runner in bench.runners:
            runner.before = gate
        future = runtime.submit(images(1)[0])
        gate.wait_for_a_run()
        future.add_done_callback(call_back)
        gate.open()
        future.result(**WAIT)
        wait_until(lambda: bool(came))
    assert "infer was called on the thread that computes" in str(came[0])


def test_close_by_a_signals_handler_within_a_run_is_refused(bundle: Path, bench: Bench) -> None:
    with Runtime(bundle, policy="fixed:1", slo_ms=FOREVER_MS) as runtime:
        bench.of("1").before = lambda batch: runtime.close()
        with pytest.raises(RunFailed, match="close was called on the thread that computes"):
            runtime.infer(images(1)[0])
        bench.of("1").before = lambda batch: None
        assert runtime.infer(images(1)[0]).name == "1"


def test_ctrl_c_while_it_waits_takes_the_request_back(bundle: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with Runtime(bundle, policy="fixed:1", slo_ms=FOREVER_MS) as runtime:

        def interrupt(self: Pending, timeout: float | None = None) -> None:
            raise KeyboardInterrupt

        with held(runtime, bench.of("1")), monkeypatch.context() as patched:
            patched.setattr(Pending, "result", interrupt)
            with pytest.raises(KeyboardInterrupt):
                runtime.infer(images(1)[0])
            assert runtime.stats().waiting == 0 and runtime.stats().cancelled == 1


def test_an_interpreter_that_ends_lets_no_other_thread_begin(bundle: Path, bench: Bench) -> None:
    with Runtime(bundle, slo_ms=FOREVER_MS) as runtime:
        names = threads_of(bench)
        runtime._lane._let_exit()
        runtime.infer(images(1)[0])
    assert names == ["slimexport computes"]


def test_a_run_that_comes_back_as_it_is_given_up_is_told_so(bundle: Path, bench: Bench) -> None:
    with Runtime(bundle, policy="fixed:1", slo_ms=FOREVER_MS) as runtime:

        def give_up(batch: Any) -> None:
            with runtime._lock:
                runtime._lane.give_up()
                runtime._take_out(2, "a run of 1 did not come back within 0.0 s")
                other = Lane(runtime._next_job, runtime._compute)
                other.start()
                runtime._lane = other

        bench.of("1").before = give_up
        with pytest.raises(RunFailed, match=r"width 1: a run of 1 did not come back within 0\.0 s\. It is out"):
            runtime.infer(images(1)[0])
        assert runtime.infer(images(1)[0]).name == "0.5" and bench.of("1").closed == 1
