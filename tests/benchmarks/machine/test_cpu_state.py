"""What other processes took, from counters whose values are laid out in a folder; and, roughly, on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.machine.cpu_sensors import clocks_mhz, cpu_temperature_c, temperatures_c
from benchmarks.machine.cpu_state import SHORTEST_S, Counters, between, read_counters
from tests.support.fake_machine import CPUS, lay, process, stat_line

ALONE = Counters(at=100.0, busy_s=50.0, steal_s=1.0, own_s=20.0, voluntary=3, involuntary=4, thermal=5, quota=6)


def read(root: Path, at: float, pid: int = 10) -> Counters:
    return read_counters(root, pid, lambda: at)


def test_two_threads_of_our_own_are_no_other_load(tmp_path: Path) -> None:
    lay(tmp_path, {"proc/stat": stat_line(user=1000, system=100), **process(10, (400, 50, 0, 0))})
    before = read(tmp_path, 5.0)
    lay(tmp_path, {"proc/stat": stat_line(user=1190, system=110), **process(10, (590, 60, 0, 0))})
    assert between(before, read(tmp_path, 6.0))["other_load"] == 0


def test_what_strangers_use_is_other_load(tmp_path: Path) -> None:
    lay(tmp_path, {"proc/stat": stat_line(user=1000), **process(10, (400, 0, 0, 0)), **process(77, (0, 0, 0, 0))})
    before = read(tmp_path, 5.0)
    # 2 s: 3.5 core-seconds of user, nice, system, irq and softirq time, 2 of them ours, 0.6 stolen
    busy = stat_line(user=1200, nice=50, system=70, irq=20, softirq=10, steal=60)
    lay(tmp_path, {"proc/stat": busy, **process(10, (500, 100, 0, 0)), **process(77, (150, 0, 0, 0))})
    changes = between(before, read(tmp_path, 7.0))
    assert changes["other_load"] == pytest.approx(0.75)
    assert changes["steal"] == pytest.approx(0.3)


def test_children_and_their_children_are_ours_whether_they_live_or_ended(tmp_path: Path) -> None:
    lay(tmp_path, {"proc/stat": stat_line(), **process(10, (0, 0, 0, 0), {10: (), 11: (20,)})})
    lay(tmp_path, {**process(20, (30, 0, 0, 0), {20: (30, 31)}), **process(30, (40, 0, 0, 0)), **process(31, (0, 0, 0, 0))})
    before = read(tmp_path, 0.0)
    assert before.own_s == pytest.approx(0.7)
    # 30 worked 0.1 s more and was waited for by 20; 31 lives, vanished from /proc's list of its parent's thread 21
    lay(tmp_path, {"proc/stat": stat_line(user=100), **process(20, (40, 0, 50, 0), {20: (), 21: (31,)})})
    lay(tmp_path, process(31, (10, 70, 0, 0)))
    after = read(tmp_path, 1.0)
    assert after.own_s == pytest.approx(0.4 + 0.5 + 0.8)
    assert between(before, after)["other_load"] == 0


def test_a_child_that_vanishes_while_it_is_read_is_passed_over(tmp_path: Path) -> None:
    lay(tmp_path, {"proc/stat": stat_line(), **process(10, (7, 0, 0, 0), {10: (20, 10)})})
    assert read(tmp_path, 0.0).own_s == pytest.approx(0.07)


def test_own_time_that_exceeds_the_busy_time_leaves_no_other_load() -> None:
    after = replace(ALONE, at=101.0, busy_s=51.0, own_s=21.3)
    assert between(ALONE, after)["other_load"] == 0


def test_own_time_that_falls_does_not_add_to_the_others() -> None:
    """As when a child with its time is handed over to another process."""
    after = replace(ALONE, at=101.0, busy_s=51.0, own_s=15.0)
    assert between(ALONE, after)["other_load"] == 1


def test_over_a_very_short_time_no_load_is_told() -> None:
    short = between(ALONE, replace(ALONE, at=100 + SHORTEST_S * 0.99, busy_s=50.1))
    assert not {"other_load", "steal"} & set(short)
    assert short["throttle"] == []
    assert {"other_load", "steal"} <= set(between(ALONE, replace(ALONE, at=100 + SHORTEST_S * 1.01)))


def test_counts_are_differences() -> None:
    changes = between(ALONE, replace(ALONE, at=101.0, voluntary=13, involuntary=7))
    assert (changes["voluntary_switches"], changes["involuntary_switches"]) == (10, 3)


@pytest.mark.parametrize(
    ("changed", "names"),
    [({}, []), ({"thermal": 6}, ["cpu_thermal"]), ({"quota": 9}, ["cpu_quota"]), ({"thermal": 6, "quota": 7}, None)],
)
def test_what_slowed_the_cpu_down_is_named(changed: dict[str, int], names: list[str] | None) -> None:
    changes = between(ALONE, replace(ALONE, at=101.0, **changed))
    assert changes["throttle"] == (["cpu_thermal", "cpu_quota"] if names is None else names)


def test_only_what_could_be_read_is_told() -> None:
    assert between(Counters(at=1.0), Counters(at=9.0)) == {}
    assert between(replace(ALONE, own_s=None), replace(ALONE, at=102.0)).keys() == {
        "steal",
        "voluntary_switches",
        "involuntary_switches",
        "throttle",
    }


@pytest.mark.parametrize("content", ["", "cpu 1 2 3", "cpu a b c d e f g h i j", "intr 1 2 3 4 5 6 7 8 9", "\0\xff"])
def test_a_malformed_stat_file_tells_nothing(tmp_path: Path, content: str) -> None:
    lay(tmp_path, {"proc/stat": content, "proc/10/stat": content})
    counters = read(tmp_path, 0.0)
    assert (counters.busy_s, counters.steal_s, counters.own_s) == (None, None, None)


def test_throttle_counters_of_cores_add_up_and_a_package_counts_once(tmp_path: Path) -> None:
    counts = {0: (1, 7, 0), 1: (2, 7, 0), 2: (4, 100, 1), 3: (0, 100, 1)}
    for cpu, (core, package, socket) in counts.items():
        folder = f"{CPUS}/cpu{cpu}"
        lay(tmp_path, {f"{folder}/thermal_throttle/core_throttle_count": core})
        lay(tmp_path, {f"{folder}/thermal_throttle/package_throttle_count": package})
        lay(tmp_path, {f"{folder}/topology/physical_package_id": socket})
    assert read(tmp_path, 0.0).thermal == 1 + 2 + 4 + 7 + 100


SPIN = "import time; end = time.monotonic() + {}\nwhile time.monotonic() < end: pass"
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


def over(seconds: float) -> dict[str, float]:
    before = read_counters()
    time.sleep(seconds)
    return between(before, read_counters())


@needs_proc
def test_our_own_time_here_is_that_of_threads_and_children() -> None:
    """Against the clock of the process and what its child says of itself."""
    before, begun = read_counters(), time.process_time()
    end = time.monotonic() + 0.3

    def work() -> None:
        while time.monotonic() < end:
            pass

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    code = SPIN.format(0.3) + "\nprint(time.process_time())"
    of_child = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    for thread in threads:
        thread.join()
    own, after = time.process_time() - begun, read_counters()
    assert before.own_s is not None and after.own_s is not None
    assert after.own_s - before.own_s == pytest.approx(own + of_child, abs=0.1)


@needs_proc
def test_a_busy_child_is_ours_while_it_runs() -> None:
    with subprocess.Popen([sys.executable, "-c", SPIN.format(60)]) as child:
        try:
            readings = []
            for _ in range(3):
                readings.append(read_counters())
                time.sleep(0.2)
        finally:
            child.kill()
    gained = [later.own_s - former.own_s for former, later in pairwise(readings) if later.own_s and former.own_s]
    assert max(gained) > 0.02  # shared with whatever else runs here, but not nothing


@needs_proc
def test_a_busy_stranger_is_not_ours() -> None:
    """A process whose parent ended is a child of process 1: its time shows in the machine's, not in ours."""
    quiet = "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL"
    code = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {SPIN.format(60)!r}], {quiet}).pid)"
    stranger = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    try:
        before = read_counters()
        time.sleep(0.5)
        after = read_counters()
        changes = between(before, after)
    finally:
        os.kill(int(stranger.stdout), 9)
    assert before.own_s is not None and after.own_s is not None
    assert after.own_s - before.own_s < 0.2
    assert changes["other_load"] > 0.1  # 1 on an idle machine


def test_nothing_is_read_from_an_empty_machine(tmp_path: Path) -> None:
    assert (clocks_mhz([0], tmp_path), temperatures_c(tmp_path), cpu_temperature_c(tmp_path)) == ([], {}, None)
    counters = read_counters(tmp_path)
    assert (counters.busy_s, counters.steal_s, counters.own_s, counters.thermal, counters.quota) == (None,) * 5
