"""The figures beside a counted clock: every width that was measured by itself, and the policies on those that a runtime would
open."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from benchmarks.cells.backends import ONNXRUNTIME_CPU
from benchmarks.cells.records import read_records
from benchmarks.load.accuracies import published_widths
from benchmarks.load.figures import PolicyFigures, WidthFacts, figures
from benchmarks.load.simulation import Times, simulate, times_of
from benchmarks.load.traces import Trace, draw
from benchmarks.machine.environment import study_command
from benchmarks.studies.serving.questions import SETTINGS, answers, said, shown
from slimexport.target.manifest import Artifact
from slimexport.target.precision import EXACT
from slimexport.target.serving.choosing import Candidate, front, spread
from slimexport.target.serving.measuring import BATCHES
from slimexport.target.serving.policy import FIXED, POLICIES, Policy, fixed
from slimtrain.base.errors import UserError

NETWORK = "us_mobilenet_v1"
STALLS_PER_S, STALL_MS = 5.0, 3.0  # what sharing two cores with the sender is like


def simulated(results: Path, seconds: float, slo_ms: float, seed: int, network: str = NETWORK) -> dict[str, Any]:
    """Every judged and other trace on every policy; printed, and given as plain values. UserError for a file that lacks the
    network, or whose widths were not published."""
    times = times_of(read_records(results).results, network, ONNXRUNTIME_CPU, EXACT, BATCHES)
    facts = [fact for fact in published_widths(network) if fact.label in times.medians.widths]
    if len(facts) < len(times.medians.widths):
        raise UserError(f"{results}: not all widths of {network} in it were published. Give the results of published ones.")
    times = Times(times.medians, times.expected, times.ratios, STALLS_PER_S, STALL_MS)
    labels, capacity = opened(times, facts), times.capacity()
    alone: list[tuple[str, Policy, list[str]]] = [
        (f"{FIXED}:{label}", fixed(0), [label]) for label in reversed(times.medians.widths)
    ]
    adaptive: list[tuple[str, Policy, list[str]]] = [(name, policy, labels) for name, policy in POLICIES.items()]
    by_setting = {}
    for setting in SETTINGS:
        trace = draw(setting.kind, setting.load * capacity, seconds, seed, setting.cv2)
        by_setting[setting] = [
            _figures(name, times.of(widths), policy, trace, slo_ms, seed, facts)
            for name, policy, widths in (*alone, *adaptive)
        ]
    given = {name: answers(by_setting, name) for name in POLICIES}
    print(f"{network}, widths {', '.join(labels)} open, {capacity:.0f} images per second of the widest\n{shown(by_setting)}")
    for of_policy in given.values():
        print("\n".join(said(of_policy)))
    return {
        "command": study_command("benchmarks.studies.serving"),
        "network": network,
        "results": results.as_posix(),
        "open": labels,
        "capacity": capacity,
        "slo_ms": slo_ms,
        "stalls": {"per_s": STALLS_PER_S, "ms": STALL_MS},
        "answers": given,
        "traces": {setting.title: [row.as_dict() for row in rows] for setting, rows in by_setting.items()},
    }


def opened(times: Times, facts: list[WidthFacts]) -> list[str]:
    """The widths that a runtime opens by itself, by the times of one image and the published accuracies."""
    accuracy = {fact.label: fact.accuracy for fact in facts}
    candidates = [
        Candidate(cast(Artifact, label), row[0], accuracy[label])  # an artifact is only carried along
        for label, row in zip(times.medians.widths, times.medians.ms, strict=True)
    ]
    return [cast(str, candidate.artifact) for candidate in spread(front(candidates))]


def _figures(
    name: str, times: Times, policy: Policy, trace: Trace, slo_ms: float, seed: int, facts: list[WidthFacts]
) -> PolicyFigures:
    samples = simulate(trace.times_s, times, policy, slo_ms, seed)
    return figures(name, [samples], samples, slo_ms, trace.seconds, facts)
