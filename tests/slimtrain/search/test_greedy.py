"""The greedy loop: its choice at every step, ties, targets, and what it cannot do."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest

from slimtrain.base.errors import UserError
from slimtrain.costs.cost import CostCounter
from slimtrain.costs.cost_model import CostModel, cost_model
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.spec import NetworkSpec
from slimtrain.search.evaluator import Evaluator, TensorChunks
from slimtrain.search.greedy import CandidateScore, Option, SearchOutcome, choose, run_search
from slimtrain.search.slimming import Slimming, changed_groups
from slimtrain.search.trace import SearchStep
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.run_helpers import ALONE
from tests.support.search_toys import RESNET, V1, V2, Recorded, ScoredBy, brute_force, evaluator, known_chunks, small_network

SIZE = 32


def chosen_plans(slimming: Slimming, steps: list[SearchStep]) -> list[ChannelPlan]:
    """The plans that a trace went through, from the widest on."""
    plans = [slimming.start]
    for step in steps:
        assert plans[-1].channels[step.group] == step.channels_before
        plans.append(ChannelPlan("p", {**plans[-1].channels, step.group: step.channels_after}))
    return plans


# ------------------------------------------------------------------------------------------------------- brute force


def brute_choice(
    measured: Callable[[ChannelPlan], CandidateScore], cost: CostModel, slimming: Slimming, plan: ChannelPlan, criterion: str
) -> ChannelPlan:
    """The next plan by the rule, every candidate evaluated by itself. Losses differ, so that no tie goes further."""
    before, spent = measured(plan), cost(plan)
    best: tuple[float, float] | None = None
    best_plan = plan
    for candidate in slimming.steps(plan):
        score = measured(candidate)
        rule = score.error
        if criterion == "error-per-cost":
            saved = spent - cost(candidate)
            assert saved > 0
            rise = score.error - before.error
            rule = rise / saved if rise > 0 else rise * saved
        if best is None or (rule, score.loss) < best:
            best, best_plan = (rule, score.loss), candidate
    return best_plan


@cache
def setting(spec: NetworkSpec) -> tuple[SlimmableNetwork, TensorChunks]:
    network = small_network(spec)
    return network, known_chunks(network, 2, 12)


@cache
def by_definition(spec: NetworkSpec, plan: ChannelPlan) -> CandidateScore:
    return brute_force(setting(spec)[0], plan, setting(spec)[1])


@pytest.mark.parametrize(("spec", "groups", "steps"), [(V1, 2, 12), (V2, 2, 4), (RESNET, 2, 1)])
@pytest.mark.parametrize("criterion", ["error", "error-per-cost"])
def test_every_step_is_the_one_of_brute_force(spec: NetworkSpec, groups: int, steps: int, criterion: str) -> None:
    network, chunks = setting(spec)
    slimming, cost = Slimming(spec, groups), cost_model("macs", spec, SIZE)
    measured = partial(by_definition, spec)
    plan, expected = slimming.start, []
    for _ in range(steps):
        plan = brute_choice(measured, cost, slimming, plan, criterion)
        expected.append(plan)
    trace = Recorded()
    target = cost(plan)
    outcomes = run_search(
        network, slimming, cost, [target], Evaluator(network, chunks, ALONE), image_size=SIZE, criterion=criterion, trace=trace
    )
    assert chosen_plans(slimming, trace.steps)[1:] == expected
    assert outcomes[0].plan == plan
    assert (outcomes[0].error, outcomes[0].step) == (measured(plan).error, steps)
    assert outcomes[0].loss == pytest.approx(measured(plan).loss, rel=1e-4)
    if spec != RESNET:
        assert len({step.error_after for step in trace.steps}) > 1  # not by losses alone


# ------------------------------------------------------------------------------------------------------------ the choice

PLAN = ChannelPlan("p", {"a": 32, "b": 32, "c": 32})
ORDER = ["a", "b", "c"]


def option(group: str, cost: float, error: float, loss: float = 1.0) -> Option:
    return Option(ChannelPlan(group, {**PLAN.channels, group: 16}), cost, error, loss)


@pytest.mark.parametrize(
    ("criterion", "options", "expected"),
    [
        ("error", [("a", 90, 12.0), ("b", 50, 11.5), ("c", 99, 11.0)], "c"),  # whatever is saved
        ("error", [("a", 90, 11.0, 2.0), ("b", 95, 11.0, 1.5), ("c", 50, 11.0, 1.9)], "b"),  # the lower loss
        ("error", [("a", 90, 11.0), ("b", 95, 11.0), ("c", 50, 11.0)], "c"),  # the larger saving
        ("error-per-cost", [("a", 90, 11.0), ("b", 50, 13.0), ("c", 99, 10.5)], "b"),  # 0.1, 0.06, 0.5 a unit
        ("error-per-cost", [("a", 90, 10.0, 2.0), ("b", 50, 10.0, 1.9), ("c", 99, 10.0, 1.8)], "c"),  # no rise: the loss
        ("error-per-cost", [("a", 90, 9.0), ("b", 50, 9.0), ("c", 50, 9.5)], "b"),  # the same fall, more saved
        ("error-per-cost", [("a", 90, 10.1), ("b", 99, 9.9), ("c", 10, 10.1)], "b"),  # a fall before any rise
        ("error-per-cost", [("a", 100, 5.0), ("b", 105, 4.0), ("c", 99, 90.0)], "c"),  # what saves nothing comes last
        ("error-per-cost", [("a", 100, 5.0), ("b", 105, 4.0)], "b"),  # of these the lowest error
        ("error", [("a", 100, 5.0), ("b", 105, 4.0), ("c", 99, 90.0)], "b"),
        ("error", [("a", 90, 1.0, math.nan), ("b", 90, 2.0, math.inf), ("c", 90, 99.0)], "c"),
        ("error-per-cost", [("a", 90, math.nan), ("b", 90, 20.0, -math.inf), ("c", 90, 99.0)], "c"),
    ],
)
def test_the_choice(criterion: str, options: list[tuple[str, float, float]], expected: str) -> None:
    candidates = [option(*values) for values in options]
    for order in (ORDER, ORDER[::-1]):
        for given in (candidates, candidates[::-1]):
            assert choose(Option(PLAN, 100, 10.0, 1.0), given, criterion, order).plan.name == expected


@pytest.mark.parametrize("criterion", ["error", "error-per-cost"])
def test_full_ties_go_by_the_order_drawn(criterion: str) -> None:
    options = [option(group, 90, 11.0) for group in ORDER]
    for order in (["a", "b", "c"], ["b", "a", "c"], ["c", "b", "a"]):
        assert choose(Option(PLAN, 100, 10.0, 1.0), options, criterion, order).plan.name == order[0]


def test_no_choice_among_losses_that_are_no_numbers() -> None:
    with pytest.raises(UserError, match="the loss of every candidate is infinite or not a number"):
        choose(Option(PLAN, 100, 10.0, 1.0), [option("a", 90, 10.0, math.nan)], "error", ORDER)


# -------------------------------------------------------------------------------------------------- seeds and targets


def flat(plan: ChannelPlan) -> tuple[float, float]:
    """Every plan as good as any other."""
    return 10.0, 1.0


@dataclasses.dataclass(frozen=True)
class Channels:
    """The same saving for groups of the same step."""

    name: str = "params"
    unit: str = "parameters"

    def __call__(self, plan: ChannelPlan) -> float:
        return float(sum(plan.channels.values()))


def order_of(seed: int) -> list[str]:
    slimming, trace = Slimming(V1), Recorded()
    cost = Channels()
    run_search(setting(V1)[0], slimming, cost, [cost(slimming.floor)], ScoredBy(flat), image_size=SIZE, seed=seed, trace=trace)
    return [step.group for step in trace.steps]


def test_ties_depend_on_the_seed_alone() -> None:
    first = order_of(0)
    assert first == order_of(0)
    others = [order_of(seed) for seed in range(1, 5)]
    assert all(sorted(other) == sorted(first) for other in others)
    assert len({tuple(order) for order in (first, *others)}) == 5
    saved = {"features.12": 24, "features.13": 24}  # the widest groups save most and go first
    assert {first[0], first[1]} == set(saved)


def test_targets_are_met_by_the_first_plan_at_or_below() -> None:
    slimming, trace, cost = Slimming(V1), Recorded(), cost_model("macs", V1, SIZE)
    start, floor = cost(slimming.start), cost(slimming.floor)
    targets = [floor, start, (start + floor) / 2, start - 1, start - 2]
    lines: list[str] = []
    measure = ScoredBy(lambda plan: (100 - sum(plan.channels.values()) / 100, 1.0))
    outcomes = run_search(small_network(), slimming, cost, targets, measure, image_size=SIZE, trace=trace, say=lines.append)
    assert [outcome.target for outcome in outcomes] == sorted(targets, reverse=True)
    plans = chosen_plans(slimming, trace.steps)
    assert plans[-1] == slimming.floor == outcomes[-1].plan
    counter = CostCounter(V1, SIZE)
    for outcome in outcomes:
        assert outcome.plan == plans[outcome.step]
        assert outcome.cost == cost(outcome.plan) <= outcome.target
        assert outcome.step == 0 or cost(plans[outcome.step - 1]) > outcome.target
        assert (outcome.macs, outcome.params) == (counter(outcome.plan).macs, counter(outcome.plan).params)
        assert outcome.error == 100 - sum(outcome.plan.channels.values()) / 100
    assert outcomes[0].step == 0
    assert outcomes[1].plan == outcomes[2].plan  # one step passed two targets
    assert measure.asked == len(trace.steps) + 1
    assert len(lines) == 1 + len(trace.steps) + len(targets)
    assert outcomes[0].plan.name == f"macs_{start / 1e6:.6f}".rstrip("0").replace(".", "_") + "M"


def test_steps_tell_what_was_done() -> None:
    slimming, trace, cost = Slimming(V1, 2), Recorded(), cost_model("params", V1, SIZE)
    measure = ScoredBy(lambda plan: (100 - sum(plan.channels.values()) / 100, sum(plan.channels.values()) / 7))
    run_search(setting(V1)[0], slimming, cost, [cost(slimming.floor)], measure, image_size=SIZE, trace=trace)
    plans = chosen_plans(slimming, trace.steps)
    for number, (step, before, after) in enumerate(zip(trace.steps, plans, plans[1:], strict=False), 1):
        assert (step.step, [step.group]) == (number, changed_groups(before, after))
        assert (step.cost_before, step.cost_after) == (cost(before), cost(after))
        assert (step.error_before, step.loss_before) == measure.function(before)
        assert (step.error_after, step.loss_after) == measure.function(after)
        assert (step.macs, step.params) == (CostCounter(V1, SIZE)(after).macs, step.cost_after)
        assert step.candidates == len(slimming.steps(before))
        assert step.seconds >= 0


def test_a_cost_that_rises_on_the_way_is_no_obstacle() -> None:
    """A latency table may find a narrower layer slower. Here all but the floor cost more than the start."""

    class Bumpy(Channels):
        def __call__(self, plan: ChannelPlan) -> float:
            return 1.0 if plan == slimming.floor else 10.0 - sum(plan.channels.values()) / 1e4 * (plan != slimming.start)

    slimming, trace = Slimming(V1, 1), Recorded()
    for criterion in ("error", "error-per-cost"):
        trace.steps.clear()
        (outcome,) = run_search(
            setting(V1)[0], slimming, Bumpy(), [2.0], ScoredBy(flat), image_size=SIZE, criterion=criterion, trace=trace
        )
        assert outcome.plan == slimming.floor


def test_two_searches_are_the_same() -> None:
    def search() -> list[SearchOutcome]:
        network = small_network(V2)
        slimming, cost = Slimming(V2, 2), cost_model("macs", V2, SIZE)
        targets = [0.8 * cost(slimming.start)]
        return run_search(network, slimming, cost, targets, evaluator(network), image_size=SIZE)

    assert search() == search()


# ------------------------------------------------------------------------------------------------------------ bad input


def run_by(function: Callable[[ChannelPlan], tuple[float, float]], target: float, **options: Any) -> list[SearchOutcome]:
    slimming, cost = Slimming(V1), cost_model("macs", V1, SIZE)
    return run_search(
        setting(V1)[0], slimming, cost, [target * cost(slimming.start)], ScoredBy(function), image_size=SIZE, **options
    )


def test_bad_input() -> None:
    with pytest.raises(UserError, match="criterion is 'mistake', expected error or error-per-cost"):
        run_by(flat, 0.9, criterion="mistake")
    with pytest.raises(UserError, match="above the network's own"):
        run_by(flat, 1.1)
    with pytest.raises(UserError, match="below what slimming reaches"):
        run_by(flat, 0.01)
    with pytest.raises(UserError, match="the network's loss at its widest is nan"):
        run_by(lambda plan: (50.0, math.nan), 0.9)
    with pytest.raises(UserError, match="the loss of every candidate"):
        run_by(lambda plan: (50.0, 1.0 if plan.channels == V1.widest.channels else math.nan), 0.9)
    slimming = Slimming(V2)
    with pytest.raises(ValueError, match="what is slimmed"):
        run_search(setting(V1)[0], slimming, cost_model("macs", V2, SIZE), [1.0], ScoredBy(flat), image_size=SIZE)


def test_a_network_of_nans() -> None:
    network = small_network()
    measure = evaluator(network)
    network.get_parameter("features.0.0.weight").data.fill_(math.nan)
    slimming, cost = Slimming(V1), cost_model("macs", V1, SIZE)
    with pytest.raises(UserError, match="loss at its widest is nan"):
        run_search(network, slimming, cost, [cost(slimming.floor)], measure, image_size=SIZE)


def test_equal_groups_at_the_widest_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    spec = NetworkSpec("mobilenet_v2", "us", (0.125, 0.25), 7, width_range=(0.125, 0.25))
    slimming, cost = Slimming(spec), cost_model("macs", spec, SIZE)
    run_search(small_network(spec), slimming, cost, [cost(slimming.start)], ScoredBy(flat), image_size=SIZE)
    assert "features.0 and features.1 are equally wide" in caplog.text
