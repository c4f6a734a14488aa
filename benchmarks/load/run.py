"""What `python -m benchmarks load` does, once its options are read: open, draw the trace, compare, write."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.cells.records import RESULTS, claim_folder
from benchmarks.cells.shares import TOP1
from benchmarks.load import plots
from benchmarks.load.accuracies import PUBLISHED
from benchmarks.load.capacity import capacity_of
from benchmarks.load.comparing import PolicyRun, compare
from benchmarks.load.over_http import is_url
from benchmarks.load.records import LoadRecords
from benchmarks.load.services import AS_SERVED, LocalService, RemoteService, checked_policies, names_of, width_of
from benchmarks.load.traces import CV2, KINDS, Trace, draw, read_trace
from benchmarks.load.wording import console, notes
from benchmarks.machine.environment import command_line, environment
from benchmarks.report.plots.style import device_name
from slimexport.target.serving.policy import DEFAULT
from slimtrain.base.errors import UserError
from slimtrain.base.files import write_atomically
from slimtrain.base.text import count, duration

LOAD, SECONDS = 1.2, 30.0  # where nothing else is asked for
OUTPUT, FOLDER = Path("measured"), "load"
MOST_SLO_MS = 60_000.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """What the options say. `load` is of the capacity of the widest network, `rate` in requests per second."""

    target: str
    slo_ms: float = 50.0
    trace: str = "bursty"
    load: float | None = None
    rate: float | None = None
    cv2: float = CV2
    seconds: float | None = None
    seed: int = 0
    policies: str | None = None
    repeats: int = 1
    images: int = 1
    widths: str | None = None
    precision: str = "fp32"
    backend: str | None = None
    threads: int | None = None
    late: str = "refuse"
    queue: int = 1000
    profile: Path | None = None

    def __post_init__(self) -> None:
        if not 0 < self.slo_ms <= MOST_SLO_MS:
            raise UserError(f"--slo-ms {self.slo_ms:g}: expected milliseconds above 0, at most a minute, as in 50.")
        for name, value in (("load", self.load), ("rate", self.rate)):
            if value is not None and not 0 < value < float("inf"):
                raise UserError(f"--{name} {value:g}: expected a number above 0.")
        if self.load is not None and self.rate is not None:
            raise UserError("--load and --rate both say how much is sent. Give one of them.")
        if self.remote:
            self._check_remote()

    @property
    def remote(self) -> bool:
        return is_url(self.target)

    def _check_remote(self) -> None:
        of_a_bundle = {"policies": self.policies, "widths": self.widths, "backend": self.backend, "threads": self.threads}
        given = [
            name for name, value in {**of_a_bundle, "profile": self.profile, "load": self.load}.items() if value is not None
        ]
        if given:
            raise UserError(
                f"--{given[0]}: cannot be chosen for {self.target}, whose server has its own. Start that with it"
                f"{', and give --rate, in requests per second' if given[0] == 'load' else ''}."
            )
        if self.rate is None and self.trace in KINDS:
            raise UserError(f"{self.target}: how fast its networks are is not known. Give --rate, in requests per second.")


@dataclass(frozen=True)
class Compared:
    """What a run gave. `capacity`: images per second of the widest, where it was measured; `accuracies`: where those are from,
    and of which kind they are, TOP1 or AP."""

    runs: tuple[PolicyRun, ...]
    trace: Trace
    labels: tuple[str, ...]
    name: str
    capacity: float | None
    accuracies: str | None
    accuracy_kind: str
    environment: Mapping[str, Any]
    settings: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """What `--json` writes."""
        return {
            "policies": [run.figures.as_dict() for run in self.runs],
            "trace": self.trace.as_dict(),
            "capacity": self.capacity,
            "accuracies": self.accuracies,
            "accuracy_kind": self.accuracy_kind,
            "settings": self.settings,
            "environment": self.environment,
        }


def opened(asked: Asked) -> tuple[LocalService | RemoteService, list[str]]:
    """The service, and the policies that are compared on it. UserError."""
    if asked.remote:
        return RemoteService(asked.target, asked.slo_ms, asked.seed, asked.images), [AS_SERVED]
    policies = checked_policies(asked.policies or DEFAULT)
    widths = None if asked.widths is None else [width_of(text) for text in names_of(asked.widths)]
    options = {name: getattr(asked, name) for name in ("precision", "backend", "threads", "late", "queue")}
    if asked.profile is not None:
        options["profile"] = asked.profile
    return LocalService(Path(asked.target), widths, asked.slo_ms, asked.seed, asked.images, **options), policies


def trace_of(asked: Asked, capacity: float | None) -> Trace:
    """The trace that is asked for, where the widest network has a capacity, in images per second. UserError."""
    rate, capacity = asked.rate, None if capacity is None else capacity / asked.images
    if asked.trace not in KINDS:
        if asked.load is not None and capacity is not None:
            rate = asked.load * capacity
        return read_trace(Path(asked.trace), asked.seconds, rate)
    if rate is None:
        assert capacity is not None
        rate = (LOAD if asked.load is None else asked.load) * capacity
    return draw(asked.trace, rate, SECONDS if asked.seconds is None else asked.seconds, asked.seed, asked.cv2)


def measure(asked: Asked, path: Path | None, say: Say, command: str) -> Compared:
    """Compare the policies; raw samples go to `path`, a results.jsonl, as they come. UserError, and KeyboardInterrupt."""
    before = environment()
    if asked.trace not in KINDS:
        read_trace(Path(asked.trace), asked.seconds)  # refused before anything is opened
    service, policies = opened(asked)
    capacity = capacity_of(service.opened.widest_ms) if isinstance(service, LocalService) else None
    trace = trace_of(asked, capacity)
    settings = _settings(asked, service, capacity, trace)
    if isinstance(service, LocalService):
        name, kind = service.opened.network, service.opened.accuracy_kind
    else:
        name, kind = service.model.name, TOP1  # as published
    say(_expected(trace, asked, len(policies), capacity))
    began = time.monotonic()

    def run(records: LoadRecords | None) -> list[PolicyRun]:
        on_round = None if records is None else records.round
        runs = compare(service.play, policies, trace, asked.slo_ms, lambda: service.facts[0], asked.repeats, on_round)
        if records is not None:
            for of_policy in runs:
                records.policy(of_policy.figures)
            records.end(environment(), time.monotonic() - began)
        return runs

    if path is None:
        runs = run(None)
    else:
        with LoadRecords(path) as records:
            records.run(command, before, settings)
            runs = run(records)
    facts, accuracies = service.facts
    labels = _labels(runs, [fact.label for fact in facts])
    return Compared(tuple(runs), trace, labels, name, capacity, accuracies, kind, before, settings)


def _labels(runs: Sequence[PolicyRun], known: Sequence[str]) -> tuple[str, ...]:
    """The widths that answered, from the narrowest, as far as their labels tell; those of no number as they are known."""
    used = {label for run in runs for label in run.whole.labels}
    order = {label: place for place, label in enumerate(known)}

    def size(label: str) -> tuple[float, int]:
        width = width_of(label)
        return (width, 0) if isinstance(width, float) else (float("inf"), order.get(label, len(order)))

    return tuple(sorted(used, key=size))


def _settings(asked: Asked, service: LocalService | RemoteService, capacity: float | None, trace: Trace) -> dict[str, Any]:
    options = {**asdict(asked), "profile": None if asked.profile is None else asked.profile.name}
    options["target"] = asked.target if asked.remote else Path(asked.target).resolve().name
    of_service = asdict(service.opened) if isinstance(service, LocalService) else asdict(service.model)
    return {"options": options, "service": of_service, "capacity": capacity, "trace": trace.as_dict()}


def _expected(trace: Trace, asked: Asked, policies: int, capacity: float | None) -> str:
    share = (
        "" if capacity is None else f", {_share(trace, asked, capacity):.2f} of the widest's {capacity:.0f} images per second"
    )
    runs = count(policies * asked.repeats, "run")
    return (
        f"{trace.kind}: {count(len(trace), 'request')} at {trace.rate:.1f} per second{share}; {runs} of "
        f"{duration(trace.seconds)}, and the opening"
    )


def _share(trace: Trace, asked: Asked, capacity: float) -> float:
    """What was drawn, of the capacity."""
    return trace.rate * asked.images / capacity


def load(asked: Asked, as_json: Path | None, output_dir: Path | None, with_plots: bool) -> int:
    """Measure, write and print; the exit code: 1 where requests were lost, doubled or failed. UserError."""
    say = functools.partial(click.echo, err=True)
    folder = output_dir or OUTPUT / _name(asked) / FOLDER
    needed = [] if asked.remote else [Path(asked.target)]
    needed += [path for path in (asked.profile, None if asked.trace in KINDS else Path(asked.trace)) if path is not None]
    with claim_folder(folder, needed) as moved:
        if moved is not None:
            say(f"{folder} held an earlier run, which is now {moved}")
        compared = measure(asked, folder / RESULTS, say, command_line())
        written = [RESULTS, *_plot(compared, asked, folder, with_plots, say)]
    of_policies = [run.figures for run in compared.runs]
    click.echo(console(of_policies, compared.accuracy_kind))
    if compared.accuracies == PUBLISHED:
        say("accuracies are the published ones, not measured here")
    for line in notes(of_policies):
        say(line)
    if as_json is not None:
        write_atomically(as_json, (json.dumps(compared.as_dict(), indent=1) + "\n").encode())
        written.append(str(as_json))
    say(f"{folder}: {', '.join(written)}")
    return int(any(of.failed + of.lost + of.doubled for of in of_policies))


def _name(asked: Asked) -> str:
    return asked.target.rstrip("/").rpartition("/")[2] if asked.remote else Path(asked.target).resolve().name


def _plot(compared: Compared, asked: Asked, folder: Path, with_plots: bool, say: Say) -> list[str]:
    """The picture's name, if it was drawn."""
    if not with_plots:
        return []
    capacity = compared.capacity
    share = "" if capacity is None else f" ({_share(compared.trace, asked, capacity):.2f} of the widest's capacity)"
    first = f"{compared.name} under load: {compared.trace.kind}, {compared.trace.rate:.0f} requests per second{share}"
    second = f"deadline {asked.slo_ms:g} ms, on {device_name(str(compared.environment.get('cpu') or 'this machine'))}"
    try:
        runs, heading = compared.runs, (first, second)
        drawn = plots.draw(
            runs, compared.labels, asked.slo_ms, compared.trace.seconds, heading, folder, compared.accuracy_kind
        )
        return [drawn.name]
    except UserError as error:
        say(f"no plots: {error}")
        return []
