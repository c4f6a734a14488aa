"""Policies on the same trace with the same images, one after the other, in this run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.cells.cell import Array
from benchmarks.load.book import Samples, joined
from benchmarks.load.figures import PolicyFigures, WidthFacts, figures
from benchmarks.load.traces import Trace

Play = Callable[[str, Array], Samples]  # of a policy and the times of a trace: what became of each request
OnRound = Callable[[str, int, Samples], None]


@dataclass(frozen=True)
class PolicyRun:
    """What a policy did, all its rounds together."""

    policy: str
    whole: Samples
    figures: PolicyFigures


def order(policies: Sequence[str], number: int) -> list[str]:
    """Forth in one round, back in the next: a drift of the machine reaches all alike."""
    return list(policies if number % 2 == 0 else reversed(policies))


def compare(
    play: Play,
    policies: Sequence[str],
    trace: Trace,
    slo_ms: float,
    facts: Callable[[], Sequence[WidthFacts]],
    repeats: int = 1,
    on_round: OnRound | None = None,
) -> list[PolicyRun]:
    """Run every policy `repeats` times; what came of each, in the order of `policies`. `facts` is asked at the end what is
    known of the widths that answered. Ctrl-C passes through: `on_round` has had what was finished."""
    rounds: dict[str, list[Samples]] = {policy: [] for policy in policies}
    for number in range(repeats):
        for policy in order(policies, number):
            samples = play(policy, trace.times_s)
            rounds[policy].append(samples)
            if on_round is not None:
                on_round(policy, number, samples)
    runs = []
    for policy, parts in rounds.items():
        whole = joined(parts)
        runs.append(PolicyRun(policy, whole, figures(policy, parts, whole, slo_ms, trace.seconds, facts())))
    return runs
