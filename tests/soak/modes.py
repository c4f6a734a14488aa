"""The modes of `python -m tests.soak`: each gives classes with their figures."""

from __future__ import annotations

import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from slimtrain.base.errors import ResourceError, UserError
from tests.soak import exporting, fuzzing, guided
from tests.soak.hurting import Place, Usual, fault_jobs, hurt_all, kill_jobs
from tests.soak.kinds.registry import KINDS
from tests.soak.originals import LIGHT
from tests.soak.outcomes import RIGHT, WRONG, Outcome
from tests.soak.processes import Job, compiled_shim, processes
from tests.soak.results import class_of, readers
from tests.soak.scenarios import SCENARIOS

Class = dict[str, Any]
MEMORY = Path("/dev/shm")
OLD_OR_NEW = "the command did its work, and what it left is that of a run that nothing hurt"
TELLING = 100  # files of a kind, of which some are to be right
SHOWN = 20  # outcomes of an export's figures in the results


@dataclass(frozen=True)
class Asked:
    """What all modes are told. `keep`: where wrong files go."""

    seed: int = 0
    workers: int = 2
    keep: Path | None = None
    say: Callable[[str], None] = print
    first: int = 0  # number of a case, before which others have been tried


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder of temporary files: in memory where it can be, a disk is slower than what is tried."""
    with tempfile.TemporaryDirectory(prefix="soak-", dir=MEMORY if MEMORY.is_dir() else None) as name:
        yield Path(name)


@contextmanager
def prepared(light: bool = False) -> Iterator[tuple[Path, Path]]:
    """Whole files of every kind, or those that need no torch, and a folder for others."""
    with scratch() as folder:
        originals, place = folder / "originals", folder / "place"
        originals.mkdir()
        place.mkdir()
        fuzzing.make_originals(originals, light)
        yield originals, place


def fuzz(asked: Asked, kinds: Sequence[str], count: int, commands: int) -> Iterator[Class]:
    """`count` damaged files of each kind, and the first `commands` of them through the command line."""
    versions = [readers()]
    light = not commands and set(kinds) <= set(LIGHT)
    if not light:
        fuzzing.preload()
    with prepared(light) as (originals, place):
        for name in kinds:
            outcomes, kept = [], Counter[str]()
            for outcome in fuzzing.fuzz(name, originals, asked.seed, range(asked.first, asked.first + count), asked.workers):
                outcomes.append(outcome)
                if outcome.outcome == WRONG:
                    kept[outcome.what] += 1
                    if kept[outcome.what] == 1:
                        asked.say(f"wrong: {outcome.line}")
                    if asked.keep is not None and kept[outcome.what] <= fuzzing.KEPT:
                        fuzzing.keep(outcome, originals, asked.seed, asked.keep)
            if len(outcomes) >= TELLING and not any(one.outcome == RIGHT for one in outcomes):
                raise UserError(f"of {len(outcomes)} files of {name} all are refused: the one that they are made of is, too.")
            yield class_of(
                f"file: {name}",
                outcomes,
                KINDS[name].right,
                slowest_s=round(max(one.seconds for one in outcomes), 2),
                ranges=[[asked.first, asked.first + count]],
                readers=versions,
            )
            if ran := list(_commands(asked, name, originals, place, min(commands, count))):
                ranges = [[asked.first, asked.first + len(ran)]]
                yield class_of(f"command: {name}", ran, "exit code 0", ranges=ranges, readers=versions)


def _commands(asked: Asked, name: str, originals: Path, place: Path, count: int) -> Iterator[Outcome]:
    """The first cases of a kind through the command line."""
    numbers = range(asked.first, asked.first + count)
    with tempfile.TemporaryDirectory(dir=place) as folder:
        cases = fuzzing.cases_for_commands(name, originals, asked.seed, numbers, Path(folder)) if count else []
        with ThreadPoolExecutor(asked.workers) as pool:

            def run(case: tuple[int, str, list[str]]) -> Outcome:
                return fuzzing.by_command(name, *case, Path(folder) / str(case[0]) / "work")

            for outcome in pool.map(run, cases):
                if outcome.outcome == WRONG:
                    asked.say(f"wrong: {outcome.line}")
                yield outcome


def hurt(asked: Asked, kills: bool, names: Sequence[str], most: int | None) -> Iterator[Class]:
    """Scenarios killed at `most` moments, or with failing system calls: all of them, or `most`."""
    with prepared(all(SCENARIOS[name].light for name in names)) as (originals, place):
        shim = compiled_shim(place)
        if shim is None:
            raise ResourceError(
                "cc, a C compiler, is not there: it is needed to make system calls fail. Install gcc or clang."
            )
        for name in names:
            scenario = SCENARIOS[name]
            with ExitStack() as stack:
                runners = [stack.enter_context(processes(shim, scenario.modules)) for _ in range(asked.workers)]
                places = [Place(scenario, originals, runner, place) for runner in runners]
                usual = places[0].usual()
                if kills:
                    jobs = list(kill_jobs(scenario, usual, most or 0, asked.seed))
                else:
                    jobs = list(fault_jobs(scenario, usual, most))
                kind = f"{'killed' if kills else 'failing disk'}: {name}"
                outcomes = _shared(asked, places, jobs, usual, kills, kind)
            yield class_of(kind, outcomes, OLD_OR_NEW, calls=usual.calls, usual_s=round(usual.seconds, 2))


def _shared(
    asked: Asked, places: Sequence[Place], jobs: Sequence[tuple[str, Job]], usual: Usual, kills: bool, kind: str
) -> list[Outcome]:
    """The jobs, shared among places that work at once."""
    outcomes: list[Outcome] = []
    lock = threading.Lock()

    def work(number: int) -> None:
        for one in hurt_all(places[number], jobs[number :: len(places)], usual, kills, kind):
            with lock:
                outcomes.append(replace(one, number=one.number * len(places) + number))
                if one.outcome == WRONG:
                    asked.say(f"wrong: {one.line}")

    with ThreadPoolExecutor(len(places)) as pool:
        list(pool.map(work, range(len(places))))
    return outcomes


def exports(asked: Asked, count: int) -> Iterator[Class]:
    """So many exports in one process."""
    with prepared() as (originals, place):
        held = exporting.exports(count, originals, place)
    outcomes = list(exporting.judged(held))
    figures = [asdict(one) for one in held[:: max(1, len(held) // SHOWN)]]
    yield class_of(exporting.KIND, outcomes, "the bundle is the first one, and nothing has grown", held=figures)


def under_atheris(asked: Asked, kinds: Sequence[str], seconds: int) -> Iterator[Class]:
    """Kinds' readers for so many seconds each. ResourceError where atheris is not installed."""
    if reason := guided.missing():
        raise ResourceError(f"{reason}.")
    with prepared() as (originals, place):
        for name in kinds:
            figures, wrong = guided.guided(name, originals, seconds, asked.keep, place)
            for one in wrong:
                asked.say(f"wrong: {one.line}")
            counts = {key: figures.get(key, 0) for key in ("tried", "refused", "right")}
            yield {**class_of(f"guided: {name}", wrong, KINDS[name].right), **counts, "wrong": len(wrong), "seconds": seconds}
