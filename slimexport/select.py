"""Which plans to export: by width or switch, by budget of multiply-accumulates, or group by group from a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from slimtrain.base.errors import BudgetError, WidthError
from slimtrain.checkpoints.checkpoint import Checkpoint, missing_statistics, untrained_checkpoint
from slimtrain.costs.cost import CostCounter, format_macs
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.plan_file import read_plan_file
from slimtrain.models.published import RANDOM, random_spec
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.network import SlimmableNetwork

STEPS_PER_UNIT = 1000  # budgets are met to a thousandth of a width


@dataclass(frozen=True)
class Untrained:
    """What choosing asks of a network, for one that was not built: its stored plans, all of which have statistics."""

    spec: NetworkSpec

    @property
    def known_plans(self) -> list[ChannelPlan]:
        return list(self.spec.plans)

    def has_statistics(self, plan: ChannelPlan) -> bool:
        return plan in self.spec.plans


def without_weights(source: str | Path) -> Checkpoint | None:
    """`random:NETWORK` as a checkpoint whose network was not built, to choose and count plans of; None for a file."""
    if not isinstance(source, str) or not source.startswith(RANDOM):
        return None
    return untrained_checkpoint(source, cast("SlimmableNetwork", Untrained(random_spec(source))))


def select_plans(
    checkpoint: Checkpoint,
    widths: Sequence[float] | Literal["all"] | None,
    budgets: Sequence[int],
    files: Sequence[str | Path],
    count: CostCounter,
    *,
    calibrating: bool,
) -> list[ChannelPlan]:
    """The plans asked for, each once: `widths` first (all that have statistics, if nothing is asked for), then budgets,
    then plan files.

    `calibrating` says that plans without statistics will get some. Raises WidthError for a width that the network
    does not have or that has no statistics, BudgetError for a budget that even the narrowest width breaks.
    """
    network, spec = checkpoint.network, checkpoint.spec
    plans = []
    if widths == "all" or (widths is None and not budgets and not files):
        stored = [plan for plan in network.known_plans if calibrating or network.has_statistics(plan)]
        plans += sorted(stored or spec.plans, key=lambda plan: plan.width or 0)
    else:
        plans += [spec.plan(width) for width in widths or ()]
    plans += [widest_within(network, budget, count, calibrating=calibrating) for budget in budgets]
    plans += [read_plan_file(Path(path), spec) for path in files]
    if not plans:
        raise WidthError("no widths: the list is empty. Give some, or all.")
    chosen: dict[str, ChannelPlan] = {}
    for plan in plans:
        if chosen.setdefault(plan.name, plan) != plan:
            raise WidthError(f"two plans are called {plan.name}. Give the plan file another `name:`.")
        if not calibrating and not network.has_statistics(plan):
            raise missing_statistics(network, plan, checkpoint.file)
    return list(chosen.values())


def widest_within(network: SlimmableNetwork, budget: int, count: CostCounter, *, calibrating: bool) -> ChannelPlan:
    """The widest width, or the largest switch, of at most `budget` multiply-accumulates.

    Without calibration only widths with statistics are candidates. Raises BudgetError where none fits.
    """
    spec = network.spec
    stored = [plan for plan in network.known_plans if calibrating or network.has_statistics(plan)]
    candidates = dict.fromkeys(stored or spec.plans)  # of several widths with the same channels the first name stays
    if calibrating and spec.family == "us":
        low, high = (round(end * STEPS_PER_UNIT) for end in spec.range)
        for divisor in (50, 25, 10, 5, 1):  # rounder widths first, so that they give plans their names
            steps = [step for step in range(low, high + 1) if step % divisor == 0]
            candidates.update(
                dict.fromkeys(
                    spec.plan(s / STEPS_PER_UNIT) for s in steps if spec.range[0] <= s / STEPS_PER_UNIT <= spec.range[1]
                )
            )
    costs = {plan: count(plan).macs for plan in candidates}
    fitting = [plan for plan, macs in costs.items() if macs <= budget]
    if not fitting:
        least = min(costs, key=lambda plan: costs[plan])
        raise BudgetError(
            f"no width meets {format_macs(budget)} MACs: the smallest, {least.name}, takes {format_macs(costs[least])}. "
            "Raise the budget or lower --image-size."
        )
    if spec.family == "autoslim":
        return max(fitting, key=lambda plan: costs[plan])
    return max(fitting, key=lambda plan: plan.width or 0)
