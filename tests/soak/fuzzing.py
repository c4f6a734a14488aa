"""Damaged files in worker processes with limits: 10 s of a CPU and 2 GiB more than a file's own size for each.

A case follows from seed, kind and number, so that any can be tried again by itself; but for bytes of a legacy checkpoint, in
which torch writes where its tensors were: `--keep` has the very files.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from random import Random
from typing import Any

from tests.soak.kinds.kind import Case, Kind
from tests.soak.kinds.registry import KINDS
from tests.soak.originals import write_originals
from tests.soak.outcomes import CODES, REFUSED, RIGHT, ROOT, WRONG, Outcome, of_error

MORE_BYTES = 2 << 30
CPU_S, WALL_S = 10.0, 120.0
STARTS_S = 30.0  # of a command of its own: what importing torch may take on a busy machine
FRESH_AFTER = 400  # cases of a worker: what libraries leak is not to add up to the limit
MOST_DRAWS = 20
KEPT = 3  # wrong files of a kind and cause that are kept
FORK = multiprocessing.get_context("fork")


def preload() -> None:
    """What workers need, loaded once before they are forked; nothing is computed: threads do not survive a fork."""
    import onnx
    import onnxruntime
    import torch

    import benchmarks.report.document
    import slimexport.exporter
    import slimtrain.training.run
    import tests.support.run_helpers

    torch.set_num_threads(1)
    assert onnx and onnxruntime and benchmarks and slimexport and slimtrain and tests


def make_originals(folder: Path, light: bool = False) -> None:
    """Whole files, written by a process of its own, as computing starts threads."""
    process = FORK.Process(target=_quietly_written, args=(folder, light))
    process.start()
    process.join()
    assert process.exitcode == 0, f"the whole files could not be made: {process.exitcode}"


def _quietly_written(folder: Path, light: bool) -> None:
    silence(keep_errors=True)
    write_originals(folder, light)


def silence(keep_errors: bool = False) -> None:
    """Nothing to read, and what is printed goes nowhere."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1) if keep_errors else (0, 1, 2):
        os.dup2(null, descriptor)


def case_of(kind: Kind, seed: int, number: int, folder: Path) -> Case:
    """The damaged file of a number, in an empty folder. What cannot be written, as nesting that its writer refuses, is drawn
    again."""
    for attempt in itertools.count():
        place = folder / str(attempt)
        place.mkdir()
        try:
            with limited(MORE_BYTES):
                return kind.damage(Random(f"{seed} {kind.name} {number} {attempt}"), place)
        except Exception:
            assert attempt < MOST_DRAWS, f"{kind.name} {number}: nothing can be written"
            shutil.rmtree(place)
    raise AssertionError


def own_bytes() -> int:
    """What this process has mapped."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


@contextlib.contextmanager
def limited(more: int) -> Iterator[None]:
    """At most so many bytes more than are mapped now."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (own_bytes() + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def size_of(path: Path) -> int:
    """The bytes of a file, or of all in a folder; of a pipe or a device none."""
    files = [path] if path.is_file() else path.rglob("*") if path.is_dir() else []
    return sum(file.stat().st_size for file in files if file.is_file())


def judged(kind: Kind, case: Case, number: int) -> Outcome:
    """What comes of a case, in this process."""
    began = time.process_time()
    try:
        with limited(MORE_BYTES + size_of(case.path)):
            kind.judge(case)
    except BaseException as error:  # whatever it is: it is what is asked
        outcome, what = of_error(error)
        message = str(error)[:2000]
    else:
        outcome, what, message = RIGHT, "", ""
    return Outcome(kind.name, number, outcome, what, message, case.damage, time.process_time() - began)


def _work(kind: Kind, originals: Path, seed: int, numbers: Sequence[int], pipe: Connection) -> None:
    """A worker: says when it begins with a case, and what came of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    silence()
    kind.open(originals)
    with tempfile.TemporaryDirectory(dir=originals.parent) as name:
        for number in numbers:
            folder = Path(name) / str(number)
            folder.mkdir()
            case = case_of(kind, seed, number, folder)
            pipe.send((number, case.damage))
            pipe.send(judged(kind, case, number))
            shutil.rmtree(folder, ignore_errors=True)
    pipe.send(None)


class Worker:
    """A process with its share of a kind's numbers, begun anew behind a case that it did not survive."""

    def __init__(self, kind: Kind, originals: Path, seed: int, numbers: Sequence[int]) -> None:
        self.kind, self.originals, self.seed, self.numbers = kind, originals, seed, list(numbers)
        self.case: tuple[int, str] | None = None
        self._start()

    def _start(self) -> None:
        self.pipe, end = FORK.Pipe()
        share = self.numbers[:FRESH_AFTER]
        self.process = FORK.Process(target=_work, args=(self.kind, self.originals, self.seed, share, end), daemon=True)
        self.process.start()
        end.close()
        self.case, self.began, self.cpu = None, time.monotonic(), 0.0

    def outcomes(self) -> Iterator[Outcome]:
        """What has come since it was asked last."""
        try:
            while self.pipe.poll():
                said = self.pipe.recv()
                if isinstance(said, Outcome):
                    self.numbers.remove(said.number)
                    self.case = None
                    yield said
                elif said is None:
                    self.process.join()
                    if self.numbers:
                        self._start()
                    return
                else:
                    self.case, self.began, self.cpu = said, time.monotonic(), cpu_s(self.process.pid)
        except EOFError:
            self.process.join()
            yield self._lost(f"killed by signal {-(self.process.exitcode or 0)}" if self.case else "worker")
            return
        if self.case and (cpu_s(self.process.pid) - self.cpu > CPU_S or time.monotonic() - self.began > WALL_S):
            self.process.kill()
            self.process.join()
            yield self._lost("hang")

    def _lost(self, what: str) -> Outcome:
        """The case that a worker did not survive; the rest goes on in another."""
        assert self.case, f"{self.kind.name}: a worker ended before or between cases, at {self.numbers[:1]}"
        number, damage = self.case
        self.numbers.remove(number)
        if self.numbers:
            self._start()
        return Outcome(self.kind.name, number, WRONG, what, "", damage)

    @property
    def ended(self) -> bool:
        """Whether all is done."""
        return not self.numbers


def cpu_s(pid: int | None) -> float:
    """The seconds of a CPU that a process has had."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def fuzz(name: str, originals: Path, seed: int, numbers: Sequence[int], workers: int) -> Iterator[Outcome]:
    """Outcomes of so many damaged files of a kind, as they come."""
    shares = [numbers[i::workers] for i in range(workers)]
    running = [Worker(KINDS[name], originals, seed, share) for share in shares if share]
    try:
        while running := [worker for worker in running if not worker.ended]:
            wait([worker.pipe for worker in running], timeout=0.2)
            for worker in running:
                yield from worker.outcomes()
    finally:
        for worker in running:
            worker.process.kill()


def keep(outcome: Outcome, originals: Path, seed: int, folder: Path) -> None:
    """Have the file of a wrong case below `folder`."""
    kind = KINDS[outcome.kind]
    place = folder / f"{outcome.kind.replace(' ', '_')}-{outcome.number}"
    if not place.exists():
        place.mkdir(parents=True)
        FORK.Process(target=_keep, args=(kind, originals, seed, outcome.number, place)).start()


def _keep(kind: Kind, originals: Path, seed: int, number: int, place: Path) -> None:
    silence()
    kind.open(originals)
    case_of(kind, seed, number, place)


def cases_for_commands(
    name: str, originals: Path, seed: int, numbers: Sequence[int], place: Path
) -> list[tuple[int, str, list[str]]]:
    """Cases of a kind as files below `place`: number, damage and the words of the command that reads it. Made by a
    process of its own: opening a kind computes."""
    pipe, end = FORK.Pipe()
    process = FORK.Process(target=_write_cases, args=(KINDS[name], originals, seed, numbers, place, end))
    process.start()
    end.close()
    cases: list[tuple[int, str, list[str]]] = pipe.recv()
    process.join()
    return cases


def _write_cases(kind: Kind, originals: Path, seed: int, numbers: Sequence[int], place: Path, pipe: Connection) -> None:
    silence(keep_errors=True)
    kind.open(originals)
    cases = []
    for number in numbers:
        folder, work = place / str(number) / "case", place / str(number) / "work"
        folder.mkdir(parents=True)
        work.mkdir()
        case = case_of(kind, seed, number, folder)
        cases.append((number, case.damage, kind.command(case, work)))
    pipe.send(cases)


def by_command(name: str, number: int, damage: str, command: Sequence[str], folder: Path) -> Outcome:
    """What the command makes of a case, in a process of its own whose time is limited."""
    limit = f'ulimit -t {int(CPU_S + STARTS_S)}; exec "$@"'
    words = ["/bin/sh", "-c", limit, "sh", sys.executable, "-m", *command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    null = subprocess.DEVNULL
    try:
        done = subprocess.run(words, cwd=folder, env=environment, stdin=null, capture_output=True, timeout=WALL_S, check=False)
    except subprocess.TimeoutExpired:
        return Outcome(name, number, WRONG, "command: hang", "", damage)
    said = done.stderr.decode("utf-8", "replace")
    if done.returncode not in (0, *CODES) or "Traceback" in said or (done.returncode and not said.strip()):
        return Outcome(name, number, WRONG, f"command: exit code {done.returncode}", said[-2000:], damage)
    return Outcome(name, number, REFUSED if done.returncode else RIGHT, "", said[-300:], damage)


def replay(name: str, number: int, seed: int, folder: Path) -> Any:
    """A case again in this process, its file in `folder`: what the reader raises passes through."""
    with tempfile.TemporaryDirectory() as place:
        originals = Path(place) / "originals"
        originals.mkdir()
        make_originals(originals)
        kind = KINDS[name]
        kind.open(originals)
        case = case_of(kind, seed, number, folder)
        print(f"{case.path}: {case.damage}", flush=True)
        with limited(MORE_BYTES + size_of(case.path)):
            kind.judge(case)
