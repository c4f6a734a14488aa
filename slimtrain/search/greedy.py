"""AutoSlim's greedy search (arXiv 1903.11728, sec. 3): shrink the group whose shrinking hurts least, again and again, and keep
the network that first meets each target. No torch: what a plan costs and how well it does are functions that are passed in.
"""

from __future__ import annotations

import hashlib
import logging
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from slimtrain.base.errors import UserError
from slimtrain.base.image_size import ImageSize
from slimtrain.config.config import CRITERIA
from slimtrain.costs.cost import CostCounter
from slimtrain.costs.cost_model import CostModel, format_cost, target_name
from slimtrain.models.channels import ChannelPlan
from slimtrain.search.slimming import Slimming, changed_groups, check_targets
from slimtrain.search.trace import Candidate, SearchStep, Trace

if TYPE_CHECKING:
    from slimtrain.models.width_spec import WidthSpec
    from slimtrain.slimmable.network import SlimmableNetwork

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CandidateScore:
    """How a plan does on held-out images: its error (a classifier's top-1 error in percent, a detector's missing precision in
    percent, or its loss), its mean loss (of a classifier the cross entropy), and the number of images."""

    error: float
    loss: float
    images: int


class CandidateEvaluator(Protocol):
    """What scores plans, as `slimtrain.search.evaluator.Evaluator`."""

    def __call__(self, current: ChannelPlan, candidates: Sequence[ChannelPlan]) -> list[CandidateScore]:
        """The candidates' scores, in their order; `current` is the plan that they are steps from."""
        ...

    @property
    def percent(self) -> bool:
        """Whether errors are percents; else they are losses."""
        ...

    def identity(self) -> dict[str, Any]:
        """What the scores depend on, in plain values."""
        ...


@dataclass(frozen=True)
class SearchOutcome:
    """The first plan at or below a target, after `step` steps. `cost` in the search's unit; MACs without pools; `error` and
    `loss` as of `CandidateScore`, on the held-out `images` that could be read."""

    target: float
    plan: ChannelPlan
    cost: float
    macs: int
    params: int
    error: float
    loss: float
    images: int
    step: int


@dataclass(frozen=True)
class Option:
    """A plan that a step can go to, with its figures."""

    plan: ChannelPlan
    cost: float
    error: float
    loss: float
    images: int = 0


def run_search(
    network: SlimmableNetwork,
    slimming: Slimming,
    cost: CostModel,
    targets: Sequence[float],
    evaluator: CandidateEvaluator,
    *,
    image_size: ImageSize,
    criterion: str = "error",
    seed: int = 0,
    trace: Trace | None = None,
    say: Callable[[str], None] = lambda line: None,
    counted: WidthSpec | None = None,
) -> list[SearchOutcome]:
    """Slim `network` from its widest plan on, until all `targets` of `cost` are met; an outcome for each, descending.

    Steps that `trace` has from a killed search are not measured again; every process sees its folder. `say` takes a line per
    step. `image_size` is that of the MACs reported, `counted` the network that they are of where it is not that itself: a
    detector with as many regions as it has.

    Raises UserError for a target out of reach, an unknown criterion, a network whose loss is no number, and a trace of
    another search.
    """
    if criterion not in CRITERIA:
        raise UserError(f"criterion is {criterion!r}, expected {' or '.join(CRITERIA)}.")
    if network.spec != slimming.spec:
        raise ValueError(f"the network is a {network.spec}, what is slimmed a {slimming.spec}")
    check_targets(cost, slimming, targets)
    for a, b in slimming.inseparable:
        log.warning("%s and %s are equally wide: a list with equal counts is read as a network that ties them", a, b)
    if trace is not None:
        trace.begin({**search_identity(network, slimming, cost, targets, criterion, seed), **evaluator.identity()})
    search = _Search(slimming, cost, evaluator, criterion, seed, CostCounter(counted or slimming.spec, image_size), trace, say)
    return search.run(sorted(set(targets), reverse=True))


def search_identity(
    network: SlimmableNetwork, slimming: Slimming, cost: CostModel, targets: Sequence[float], criterion: str, seed: int
) -> dict[str, Any]:
    """What tells this search from others, in plain values; the evaluator adds its own."""
    digest = hashlib.sha256()
    for key, value in network.named_parameters():  # statistics play no part: candidates bring their own
        digest.update(f"{key} {tuple(value.shape)}".encode())
        digest.update(value.detach().float().contiguous().cpu().numpy().tobytes())
    return {
        "network": network.spec.name,
        "width_range": list(network.spec.range),
        "weights_sha256": digest.hexdigest(),
        "groups": slimming.groups,
        "divisor": slimming.divisor,
        "floor": slimming.floor_width,
        "cost": cost.name,
        "cost_at_start": cost(slimming.start),
        "cost_at_floor": cost(slimming.floor),
        "targets": sorted(set(targets), reverse=True),
        "criterion": criterion,
        "seed": seed,
    }


def choose(current: Option, options: Sequence[Option], criterion: str, order: Sequence[str]) -> Option:
    """The option that `criterion` prefers.

    `error`: the lowest error, the published rule. `error-per-cost`: the smallest increase of the error per unit of cost
    saved; an error that does not rise is better the more it falls and the more is saved, and what saves nothing comes last.
    Ties go to the lower loss, then to the larger saving, then to the group that comes first in `order`. An option whose
    loss is no number is never chosen; UserError where there is no other.
    """
    usable = [option for option in options if math.isfinite(option.loss) and math.isfinite(option.error)]
    if not usable:
        raise UserError(
            "the loss of every candidate is infinite or not a number: activations overflow. Check the checkpoint, or search "
            "with --set search_amp=none."
        )
    rank = {group: i for i, group in enumerate(order)}

    def key(option: Option) -> tuple[float, ...]:
        saved, increase = current.cost - option.cost, option.error - current.error
        first: tuple[float, ...] = (option.error,)
        if criterion == "error-per-cost":
            first = (0, increase / saved if increase > 0 else increase * saved) if saved > 0 else (1, option.error)
        (group,) = changed_groups(current.plan, option.plan)
        return (*first, option.loss, -saved, rank[group])

    return min(usable, key=key)


class _Search:
    def __init__(
        self,
        slimming: Slimming,
        cost: CostModel,
        evaluator: CandidateEvaluator,
        criterion: str,
        seed: int,
        counter: CostCounter,
        trace: Trace | None,
        say: Callable[[str], None],
    ) -> None:
        self.slimming, self.cost, self.evaluator, self.criterion, self.seed = slimming, cost, evaluator, criterion, seed
        self.counter, self.trace, self.say = counter, trace, say

    def run(self, targets: Sequence[float]) -> list[SearchOutcome]:
        """`targets` descend."""
        done = [] if self.trace is None else list(self.trace.steps)
        if done:
            self.say(f"going on after {len(done)} steps, at {format_cost(done[-1].cost_after, self.cost)}")
        current = self._start(done[:1])
        outcomes: list[SearchOutcome] = []
        number = 0
        while True:
            open_targets = targets[len(outcomes) :]
            outcomes += [self._outcome(target, current, number) for target in open_targets if current.cost <= target]
            if len(outcomes) == len(targets):
                return outcomes
            number += 1
            current = self._replayed(current, done[number - 1]) if number <= len(done) else self._step(current, number)

    def _start(self, first: Sequence[SearchStep]) -> Option:
        plan = self.slimming.start
        if first:
            return Option(plan, self.cost(plan), first[0].error_before, first[0].loss_before, first[0].images)
        (score,) = self.evaluator(plan, [plan])
        if not math.isfinite(score.loss):
            raise UserError(
                f"the network's loss at its widest is {score.loss}: its weights are no numbers, or activations overflow. "
                "Check the checkpoint, or search with --set search_amp=none."
            )
        self.say(
            f"the widest: {format_cost(self.cost(plan), self.cost)}, {self._figures(score.error, score.loss)} "
            f"on {score.images} images"
        )
        return Option(plan, self.cost(plan), score.error, score.loss, score.images)

    def _step(self, current: Option, number: int) -> Option:
        """Score all candidates and go to one."""
        began = time.perf_counter()
        plans = self.slimming.steps(current.plan)
        scores = self.evaluator(current.plan, plans)
        options = [Option(plan, self.cost(plan), s.error, s.loss, s.images) for plan, s in zip(plans, scores, strict=True)]
        order = list(current.plan.channels)
        random.Random(f"{self.seed}:{number}").shuffle(order)  # noqa: S311 (no secret)
        chosen = choose(current, options, self.criterion, order)
        step = self._line(number, current, chosen, len(options), round(time.perf_counter() - began, 3))
        if self.trace is not None:
            self.trace.add(step, [self._candidate(number, current, option, option is chosen) for option in options])
        self.say(
            f"step {number}: {step.group} {step.channels_before} to {step.channels_after}, "
            f"{format_cost(step.cost_after, self.cost)}, {self._figures(step.error_after, step.loss_after)} "
            f"({step.candidates} candidates, {step.seconds:.1f} s)"
        )
        return chosen

    def _replayed(self, current: Option, step: SearchStep) -> Option:
        """The option that a step of the trace went to; UserError where it does not follow from the steps before."""
        plans = self.slimming.steps(current.plan)
        for plan in plans:
            option = Option(plan, self.cost(plan), step.error_after, step.loss_after, step.images)
            if self._line(step.step, current, option, len(plans), step.seconds) == step:
                return option
        raise UserError(
            f"step {step.step} of the trace does not follow from the steps before it. The file was changed: begin anew in "
            "another output_dir."
        )

    def _error(self, error: float) -> str:
        return f"error {error:.2f} %" if self.evaluator.percent else f"loss {error:.4f}"

    def _figures(self, error: float, loss: float) -> str:
        return f"{self._error(error)}, loss {loss:.4f}" if self.evaluator.percent else self._error(error)

    def _line(self, number: int, before: Option, after: Option, candidates: int, seconds: float) -> SearchStep:
        """The trace's line of a step."""
        (group,) = changed_groups(before.plan, after.plan)
        cost = self.counter(after.plan)
        return SearchStep(
            number,
            group,
            before.plan.channels[group],
            after.plan.channels[group],
            before.cost,
            after.cost,
            cost.macs,
            cost.params,
            before.error,
            after.error,
            before.loss,
            after.loss,
            after.images,
            candidates,
            seconds,
        )

    def _candidate(self, number: int, before: Option, option: Option, chosen: bool) -> Candidate:
        (group,) = changed_groups(before.plan, option.plan)
        counts = before.plan.channels[group], option.plan.channels[group]
        return Candidate(number, group, *counts, option.cost, option.error, option.loss, int(chosen))

    def _outcome(self, target: float, option: Option, step: int) -> SearchOutcome:
        cost = self.counter(option.plan)
        plan = ChannelPlan(target_name(target, self.cost), option.plan.channels)
        self.say(
            f"target {format_cost(target, self.cost)} met after {step} steps: {format_cost(option.cost, self.cost)}, "
            f"{self._error(option.error)}"
        )
        return SearchOutcome(target, plan, option.cost, cost.macs, cost.params, option.error, option.loss, option.images, step)
