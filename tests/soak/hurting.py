"""Commands that are killed, or whose disk fails, at every moment that there is: one of old and new is there whole, the next
run goes on, and nothing stays under hidden names."""

from __future__ import annotations

import errno
import signal
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.soak.outcomes import REFUSED, RIGHT, WRONG, Outcome
from tests.soak.processes import FAIL, HALF, SIGNAL_AFTER, SIGNAL_BEFORE, Ended, Job, Processes
from tests.soak.scenarios import Scenario, hidden

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)
LOCK = ".lock"  # which the next run takes over
FULL, INTERRUPTED, NO_SPACE, BAD = (errno.ENOSPC,), 130, 3, 2


@dataclass(frozen=True)
class Usual:
    """What a scenario does where nothing hurts it: the essence before and after, its calls and seconds."""

    before: Any
    after: Any
    calls: int
    seconds: float


class Place:
    """Where a scenario is run: a folder made anew for each."""

    def __init__(self, scenario: Scenario, originals: Path, runner: Processes, scratch: Path) -> None:
        self.scenario, self.originals, self.runner, self.scratch = scenario, originals, runner, scratch

    def usual(self) -> Usual:
        """Measured twice: what differs between two runs cannot be judged."""
        runs = []
        for _ in range(2):
            with tempfile.TemporaryDirectory(dir=self.scratch) as name:
                folder = Path(name)
                self.scenario.prepare(folder, self.originals)
                before = self.scenario.essence(folder)
                ended = self.runner.run(Job(self.scenario.words, name))
                assert ended.code == 0, f"{self.scenario.name}: {ended}"
                assert not hidden(folder), hidden(folder)
                runs.append(Usual(before, self.scenario.essence(folder), ended.calls, ended.seconds))
        first, second = runs
        assert first.after == second.after, f"{self.scenario.name}: two runs differ"
        return second

    def hurt(self, job: Job, usual: Usual) -> tuple[Ended, str]:
        """How a run that is hurt ended, and what is wrong with what it left, or with the run after it."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as name:
            folder = Path(name)
            self.scenario.prepare(folder, self.originals)
            ended = self.runner.run(Job(**{**vars(job), "folder": name}))
            if ended.hung:
                return ended, "hang"
            if wrong := self.scenario.state(folder, usual.before, usual.after):
                return ended, f"left: {wrong}"
            if ended.code == 0 and self.scenario.essence(folder) != usual.after:
                return ended, "exit code 0, and its work is not done"
            if left := [name for name in hidden(folder) if ended.code >= 0 and not excused(name, ended, job)]:
                return ended, f"left hidden: {left}"
            there = self.scenario.once and self.scenario.essence(folder) == usual.after
            then = self.runner.run(Job(self.scenario.words, name))
            if then.code != (BAD if there else 0):
                said = " ".join(then.said.split())[-300:]
                return ended, f"the next run ends with {then.code}: {said}"
            if self.scenario.essence(folder) != usual.after:
                return ended, "the next run ends with something else"
            if left := hidden(folder):
                return ended, f"left hidden after the next run: {left}"
        return ended, ""


def excused(name: str, ended: Ended, job: Job) -> bool:
    """Whether something hidden may be left for the next run to settle, whose end is looked at: a lock, which it takes over;
    and, on a disk that refuses every call from one on, where nothing can be moved back, what the command tells of."""
    return name.endswith(LOCK) or (job.lasting and f"{Path(name).name}: holds " in ended.said)


def kill_jobs(scenario: Scenario, usual: Usual, moments: int, seed: int) -> Iterator[tuple[str, Job]]:
    """So many moments to be killed at: half of them spread over the time that it takes, half at calls that write."""
    draw = Random(f"{seed} {scenario.name}")
    by_time = moments // 2
    for number in range(moments):
        what = SIGNALS[number % len(SIGNALS)]
        if number < by_time:
            after_s = usual.seconds * (number + draw.random()) / by_time
            yield f"{what.name} after {after_s:.3f} s", Job(scenario.words, "", value=what, after_s=after_s)
        else:
            at, action = draw.randint(1, usual.calls), draw.choice((SIGNAL_BEFORE, SIGNAL_AFTER))
            when = "before" if action == SIGNAL_BEFORE else "after"
            yield f"{what.name} {when} call {at}", Job(scenario.words, "", at, action, what)


def fault_jobs(scenario: Scenario, usual: Usual, most: int | None) -> Iterator[tuple[str, Job]]:
    """Every call that writes fails in every way: alone, with all after it (a full disk), and behind half a write."""
    jobs = []
    for at in range(1, usual.calls + 1):
        for number in ERRORS:
            for action, lasting in ((FAIL, False), (FAIL, True), (HALF, False)):
                if not lasting or number in FULL:
                    how = "half a write, then " if action == HALF else "all after too, " if lasting else ""
                    jobs.append(
                        (
                            f"{errno.errorcode[number]} at call {at}, {how}",
                            Job(scenario.words, "", at, action, number, lasting),
                        )
                    )
    step = 1 if most is None else max(1, len(jobs) // most)
    yield from (jobs[::step] if most is None else jobs[step // 2 :: step][:most])


def judged_kill(ended: Ended, wrong: str, job: Job) -> tuple[str, str]:
    """Outcome and what is wrong of a run that got a signal. A command that starts, and has written nothing, leaves Ctrl-C to
    Python and click: once it is at work a KeyboardInterrupt is a message, so that a traceback of one is from before."""
    if wrong:
        return WRONG, wrong
    if not ended.calls and ended.code == 1 and ended.said.rstrip().endswith(("KeyboardInterrupt", "Aborted!")):
        return REFUSED, ""
    if "Traceback" in ended.said:
        return WRONG, "traceback"
    expected = (0, -job.value) if job.value == signal.SIGKILL else (0, INTERRUPTED, -job.value)
    if ended.code not in expected:
        return WRONG, f"{signal.Signals(job.value).name}: exit code {ended.code}"
    if ended.code == INTERRUPTED and "interrupted" not in ended.said:
        return WRONG, "interrupted, and does not say so"
    return (RIGHT if ended.code == 0 else REFUSED), ""


def judged_fault(ended: Ended, wrong: str, job: Job) -> tuple[str, str]:
    """Outcome and what is wrong of a run whose disk failed."""
    if wrong:
        return WRONG, wrong
    if "Traceback" in ended.said:
        return WRONG, "traceback"
    if ended.code == 0:
        return RIGHT, ""  # what failed was of no account, and its work is done
    expected = NO_SPACE if job.value in FULL else BAD
    if ended.code != expected:
        return WRONG, f"{errno.errorcode[job.value]}: exit code {ended.code}, expected {expected}"
    if not ended.said.strip():
        return WRONG, "no message"
    return REFUSED, ""


def hurt_all(place: Place, jobs: Sequence[tuple[str, Job]], usual: Usual, kills: bool, kind: str) -> Iterator[Outcome]:
    """Outcomes of so many runs."""
    for number, (damage, job) in enumerate(jobs):
        ended, wrong = place.hurt(job, usual)
        outcome, what = (judged_kill if kills else judged_fault)(ended, wrong, job)
        said = ended.said[-1500:] if outcome == WRONG else ended.said[-200:]
        yield Outcome(kind, number, outcome, what, f"code {ended.code}: {said}", damage, ended.seconds)
