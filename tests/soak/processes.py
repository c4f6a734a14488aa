"""Commands begun by forking a process that has loaded everything: a second for each in place of five. What it is loaded before
(`shim.c`) counts the calls that write below a folder, and lets one fail or end the process.

The forking process runs this module (`python -m tests.soak.processes`): a job as a line of JSON in, what came of it out.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

NOTHING, FAIL, HALF, SIGNAL_BEFORE, SIGNAL_AFTER = range(5)  # as in shim.c
HANG_S = 180.0
SHIM = Path(__file__).with_name("shim.c")
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Job:
    """`python -m` these words in a folder. The call of number `at`, of those that write below it, meets `action` with `value`
    (an error's or a signal's number); `lasting`: those after it fail too. Or the signal `value` comes after `after_s`."""

    words: Sequence[str]
    folder: str
    at: int = 0
    action: int = NOTHING
    value: int = 0
    lasting: bool = False
    after_s: float | None = None


@dataclass(frozen=True)
class Ended:
    """How a job ended: its exit code, below 0 the signal that ended it; what it said on both streams; how many calls wrote."""

    code: int
    said: str
    calls: int
    seconds: float
    hung: bool


def compiled_shim(folder: Path) -> Path | None:
    """The shared object of `shim.c`; None where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    path = folder / "shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-w", str(SHIM), "-o", str(path), "-ldl"], check=True)
    return path


class Processes:
    """Runs jobs one after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, job: Job) -> Ended:
        """A job from beginning to end."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(asdict(job)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the process that forks has ended"
        return Ended(**json.loads(line))


@contextmanager
def processes(shim: Path, modules: Sequence[str]) -> Iterator[Processes]:
    """What runs jobs, for a block, with these modules loaded."""
    environment = {**os.environ, "LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "tests.soak.processes", *modules]
    with subprocess.Popen(
        words, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Processes(process)
        finally:
            assert process.stdin
            process.stdin.close()
            process.wait()


# ------------------------------------------------------------------------------------------- in the process that forks


def _serve(modules: Sequence[str]) -> None:
    for name in modules:
        __import__(name)
    shim = ctypes.CDLL(None)
    answers = os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_RDWR)
    jobs = os.fdopen(os.dup(0), "r")
    for descriptor in (0, 1):
        os.dup2(null, descriptor)
    while line := jobs.readline():  # an iterator would read ahead
        job = Job(**json.loads(line))
        ended = _run(job, shim)
        answers.write(json.dumps(asdict(ended)) + "\n")
        answers.flush()


def _run(job: Job, shim: Any) -> Ended:
    reading, writing = os.pipe()
    began = time.monotonic()
    pid = os.fork()
    if not pid:
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        os.closerange(3, 256)
        _become(job, shim)
    os.close(writing)
    os.set_blocking(reading, False)
    said, code, hung, sent = b"", None, False, False
    while code is None:
        said += _read(reading)
        now = time.monotonic() - began
        if job.after_s is not None and not sent and now >= job.after_s:
            os.kill(pid, job.value)
            sent = True
        if now > HANG_S and not hung:
            hung = True
            os.kill(pid, signal.SIGKILL)
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
        else:
            time.sleep(0.001)
    said += _read(reading)
    os.close(reading)
    return Ended(code, said.decode("utf-8", "replace")[-4000:], shim.soak_count(), time.monotonic() - began, hung)


def _read(descriptor: int) -> bytes:
    with contextlib.suppress(BlockingIOError):
        return os.read(descriptor, 1 << 16)
    return b""


def _become(job: Job, shim: Any) -> None:
    """In the forked process: the command, to its end."""
    code: Any = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have it ignored by what they start in the background
        os.chdir(job.folder)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False, buffering=1)
        sys.argv = list(job.words)
        shim.soak_arm(job.folder.encode(), job.at, job.action, job.value, int(job.lasting))
        runpy.run_module(job.words[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as error:
        code = error.code
        if isinstance(code, str):
            sys.stderr.write(code + "\n")
            code = 1
    except BaseException:  # as the interpreter does
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code or 0)


if __name__ == "__main__":
    _serve(sys.argv[1:])
