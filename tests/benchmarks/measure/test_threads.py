"""Threads: one per physical core, within affinity and quota, pinned where the system can, and said where it cannot."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.measure import threads
from benchmarks.measure.threads import Cpus, TooManyThreads, own_cpus, physical_cores, pin, pinned

HYPER = Cpus(cores=((0, 4), (1, 5), (2, 6), (3, 7)))
can_pin = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not pin threads")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """No test leaves its affinity or environment behind."""
    before = dict(os.environ)
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    yield
    if allowed is not None:
        for thread in threads._threads():
            os.sched_setaffinity(thread, allowed)
    os.environ.clear()
    os.environ.update(before)


def topology(root: Path, siblings: dict[int, str]) -> Path:
    for cpu, text in siblings.items():
        folder = root / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{text}\n")
    return root


def test_siblings_are_one_core(tmp_path: Path) -> None:
    root = topology(tmp_path, {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"})
    assert physical_cores([0, 1, 2, 3], root) == ((0, 2), (1, 3))
    assert physical_cores([1, 2, 3], root) == ((1, 3), (2,))  # of what this process may use


def test_without_a_topology_every_cpu_is_a_core(tmp_path: Path) -> None:
    assert physical_cores([0, 3], tmp_path) == ((0,), (3,))


@pytest.mark.parametrize(
    ("count", "expected"), [(1, [0]), (2, [0, 1]), (4, [0, 1, 2, 3]), (5, [0, 1, 2, 3, 4]), (8, list(range(8)))]
)
def test_different_cores_come_first(count: int, expected: list[int]) -> None:
    assert HYPER.choose(count) == expected


def test_siblings_that_are_neighbours_are_not_taken_both() -> None:
    assert Cpus(cores=((0, 1), (2, 3), (4, 5))).choose(2) == [0, 2]
    assert Cpus(cores=((0, 1), (2, 3), (4, 5))).choose(4) == [0, 1, 2, 4]


def test_uneven_cores_are_used_up_too() -> None:
    assert Cpus(cores=((0,), (1, 2), (3,))).choose(4) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("quota", "default", "most"), [(None, 4, 8), (8.0, 4, 8), (6.5, 4, 6), (2.0, 2, 2), (1.5, 1, 1), (0.3, 1, 1), (99.0, 4, 8)]
)
def test_a_quota_counts_like_missing_cores(quota: float | None, default: int, most: int) -> None:
    cpus = Cpus(HYPER.cores, quota)
    assert (cpus.default_threads, cpus.most_threads) == (default, most)


@pytest.mark.parametrize("count", [0, -1, 3])
def test_too_many_threads_or_none_are_refused_with_what_there_is(count: int) -> None:
    with pytest.raises(
        TooManyThreads, match=rf"^{count} threads: .*can run 2 at once.*quota of 2\.5.*Expected 1 to 2"
    ) as caught:
        pin(count, Cpus(HYPER.cores, 2.5))
    assert caught.value.exit_code == 2
    assert isinstance(caught.value, ValueError)


@can_pin
def test_all_threads_are_moved_and_later_ones_follow() -> None:
    before = os.sched_getaffinity(0)
    chosen = own_cpus().choose(1)
    stop, seen = threading.Event(), {}
    running = threading.Thread(target=stop.wait)
    running.start()

    def look() -> None:
        seen["later"] = os.sched_getaffinity(0)

    try:
        with pinned(1) as done:
            later = threading.Thread(target=look)
            later.start()
            later.join()
            assert running.native_id is not None
            seen["earlier"] = os.sched_getaffinity(running.native_id)
            seen["own"] = os.sched_getaffinity(0)
        assert running.native_id is not None
        assert os.sched_getaffinity(running.native_id) == before
    finally:
        stop.set()
        running.join()
    assert seen == {key: set(chosen) for key in ("later", "earlier", "own")}
    assert os.sched_getaffinity(0) == before
    assert (done["threads"], done["cpus"], done["pinned"]) == (1, chosen, True)
    assert "why" not in done
    assert done["logical_cpus"] == len(before)


@can_pin
def test_affinity_comes_back_after_a_failure() -> None:
    before = os.sched_getaffinity(0)
    with pytest.raises(KeyError), pinned(1):
        raise KeyError
    with pytest.raises(TooManyThreads), pinned(10**6):
        pass
    assert os.sched_getaffinity(0) == before


@can_pin
def test_a_default_is_one_thread_per_core() -> None:
    cpus = own_cpus()
    with pinned() as done:
        assert done["threads"] == cpus.default_threads == len(os.sched_getaffinity(0))


def test_where_a_system_cannot_pin_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sched_setaffinity", "sched_getaffinity"):
        monkeypatch.delattr(os, name, raising=False)
    with pinned(1) as done:
        assert (done["threads"], done["pinned"], done["cpus"]) == (1, False, None)
        assert done["why"] == f"{sys.platform} does not pin threads"
        assert done["logical_cpus"] == os.cpu_count()


@can_pin
def test_a_refusal_of_the_system_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: int, cpus: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(os, "sched_setaffinity", refuse)
        done = pin(1)
    assert (done["pinned"], done["why"]) == (False, "the system refuses it (Operation not permitted)")


@can_pin
def test_threads_that_end_meanwhile_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.sched_setaffinity

    def move(thread: int, cpus: Any) -> None:
        if thread == 1_999_999_999:
            raise ProcessLookupError(3, "No such process")
        real(thread, cpus)

    own = threads._threads()
    with monkeypatch.context() as patch:
        patch.setattr(os, "sched_setaffinity", move)
        patch.setattr(threads, "_threads", lambda: [1_999_999_999, *own])
        assert pin(1)["pinned"]


def test_libraries_that_are_not_loaded_yet_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setattr(threads, "sys", SimpleNamespace(modules={"numpy": None}, platform=sys.platform))
    with pinned(1):
        assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "1"
        assert "OPENBLAS_NUM_THREADS" not in os.environ  # numpy has read it already
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


def test_loaded_libraries_are_not_told_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setattr(threads, "sys", SimpleNamespace(modules={"torch": None}, platform=sys.platform))
    pin(1)
    assert os.environ["OMP_NUM_THREADS"] == "7"
