"""The greedy loop on a user's network, against every plan that it could go through, measured by hand."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from slimtrain.costs.cost_model import CostModel, cost_model
from slimtrain.costs.latency_table import write_latency_table
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.width_spec import WidthSpec
from slimtrain.search.evaluator import Evaluator
from slimtrain.search.greedy import CandidateScore, run_search
from slimtrain.search.slimming import Slimming
from tests.support.latency_tables import table_of
from tests.support.run_helpers import ALONE
from tests.support.search_toys import Recorded
from tests.support.traced_search import FULL, LADDERS, SIZE, by_hand, known, traced
from tests.support.user_networks import CLASSES

Place = tuple[int, ...]  # how far down its ladder every group is
CHUNKS = known()


def plan_at(place: Place) -> ChannelPlan:
    return ChannelPlan("p", {group: LADDERS[group][rung] for group, rung in zip(FULL, place, strict=True)})


@pytest.fixture(scope="module")
def scores() -> dict[Place, CandidateScore]:
    """Of all plans that steps lead to."""
    places = product(*(range(len(ladder)) for ladder in LADDERS.values()))
    return {place: by_hand(plan_at(place), CHUNKS) for place in places}


def layer_ms(name: str, inp: int, out: int) -> float:
    """What a layer takes: by its name, as MACs do not tell."""
    return 1e-6 * len(name) ** 3 * (2 + inp) * (5 + out)


def latency_by_hand(plan: ChannelPlan) -> float:
    """The sum over the module's layers, from its code."""
    stem, inner, gate, a, b = (plan.channels[group] for group in FULL)
    layers = {"stem.0": (3, stem), "block.0.0": (stem, inner), "block.1.0": (inner, stem), "fc1": (stem, gate)}
    layers |= {"fc2": (gate, stem), "a.0": (stem, a), "b.0": (stem, b), "head": (a + b, CLASSES)}
    return 0.25 + 1.5 * (sum(layer_ms(name, *sizes) for name, sizes in layers.items()) + 1e-3 * (a + b))


def latency(spec: WidthSpec, path: Path) -> CostModel:
    """The same out of a table's file: the concatenation is a layer too."""
    table = table_of(spec, lambda layer, inp, out: 1e-3 * inp if layer.single else layer_ms(layer.name, inp, out), size=SIZE)
    write_latency_table(path, table)
    return cost_model("latency", spec, SIZE, path, "a CPU")


@pytest.mark.parametrize(
    ("kind", "criterion"), [("macs", "error"), ("macs", "error-per-cost"), ("latency", "error-per-cost"), ("latency", "error")]
)
def test_every_step_is_the_one_of_brute_force(
    kind: str, criterion: str, scores: dict[Place, CandidateScore], tmp_path: Path
) -> None:
    network = traced()
    cost = cost_model("macs", network.spec, SIZE)
    known_cost: Callable[[ChannelPlan], float] = cost
    if kind == "latency":
        cost, known_cost = latency(network.spec, tmp_path / "t.json"), latency_by_hand

    def rule(before: Place, after: Place) -> tuple[float, float]:
        first = scores[after].error
        if criterion == "error-per-cost":
            rise, saved = first - scores[before].error, known_cost(plan_at(before)) - known_cost(plan_at(after))
            first = rise / saved if rise > 0 else rise * saved
        return first, scores[after].loss

    place: Place = (0,) * len(FULL)
    expected = []
    while any(rung + 1 < len(ladder) for rung, ladder in zip(place, LADDERS.values(), strict=True)):
        downs = [(*place[:i], place[i] + 1, *place[i + 1 :]) for i in range(len(place))]
        here = place
        place = min((down for down in downs if down in scores), key=lambda down: rule(here, down))
        expected.append(place)
    slimming, trace = Slimming(network.spec, groups=2), Recorded()
    outcomes = run_search(
        network,
        slimming,
        cost,
        [cost(plan_at(expected[2])), cost(slimming.floor)],
        Evaluator(network, CHUNKS, ALONE),
        image_size=SIZE,
        criterion=criterion,
        trace=trace,
    )
    assert [step.cost_after for step in trace.steps] == pytest.approx([known_cost(plan_at(p)) for p in expected], rel=1e-12)
    groups = list(FULL)
    went = [(step.group, step.channels_before, step.channels_after) for step in trace.steps]
    steps = zip([(0,) * len(FULL), *expected], expected, strict=False)
    changes = [next((i, a, b) for i, (a, b) in enumerate(zip(*pair, strict=True)) if a != b) for pair in steps]
    assert went == [(groups[i], LADDERS[groups[i]][a], LADDERS[groups[i]][b]) for i, a, b in changes]
    assert [step.error_after for step in trace.steps] == [scores[place].error for place in expected]
    assert [step.loss_after for step in trace.steps] == pytest.approx([scores[p].loss for p in expected], rel=1e-4)
    assert len({step.error_after for step in trace.steps}) > 2  # not by losses alone
    assert outcomes[0].plan == plan_at(expected[2]) and outcomes[1].plan == slimming.floor == plan_at(expected[-1])
