"""The script that compares ways to take a candidate's statistics: what it draws, counts and writes, not which way wins."""

from __future__ import annotations

import json
import sys
from itertools import combinations
from pathlib import Path

import pytest
import torch

from benchmarks.studies import search_statistics
from benchmarks.studies.rank_statistics import kendall, mean_interval, ranked
from benchmarks.studies.search_plans import plans_on_the_way, random_plans
from benchmarks.studies.search_rankings import add_differences, judged
from slimtrain.base.errors import UserError
from slimtrain.checkpoints.own_layout import own_content
from slimtrain.checkpoints.writing import save
from slimtrain.costs.cost import CostCounter
from slimtrain.models.spec import NetworkSpec
from slimtrain.search.greedy import CandidateScore
from slimtrain.search.slimming import Slimming, changed_groups
from slimtrain.search.trace import Candidate, SearchStep, Trace
from slimtrain.slimmable.network import SlimmableNetwork

RANGE = (0.15, 0.5)
SPEC = NetworkSpec("mobilenet_v1", "us", RANGE, 10, (), RANGE, stem_stride=1)
SLIMMING, COUNTER = Slimming(SPEC), CostCounter(SPEC, 16)
MACS = 1_000_000
CONFIG = """
network: us_mobilenet_v1
stem_stride: 1
data: fake
image_size: 16
batch_size: 8
workers: 0
epochs: 2
search_widths: [0.15, 0.5]
search_holdout: 8
"""


def steps_from_widest(count: int) -> list[SearchStep]:
    """A trace that always shrinks the last group that can."""
    plan, steps = SLIMMING.start, []
    for number in range(1, count + 1):
        after = SLIMMING.steps(plan)[-1]
        (group,) = changed_groups(plan, after)
        counts = plan.channels[group], after.channels[group]
        steps.append(SearchStep(number, group, *counts, 2.0, 1.0, 1, 1, 0.0, 0.0, 0.0, 0.0, 12, 1, 0.1))
        plan = after
    return steps


def test_kendalls_correlation_counts_pairs() -> None:
    x, y = [1.0, 2.0, 2.0, 4.0, 3.0], [2.0, 1.0, 3.0, 3.0, 5.0]
    signs = [((x[i] > x[j]) - (x[i] < x[j]), (y[i] > y[j]) - (y[i] < y[j])) for i, j in combinations(range(5), 2)]
    untied = sum(a != 0 for a, _ in signs) * sum(b != 0 for _, b in signs)
    assert kendall(x, y) == pytest.approx(sum(a * b for a, b in signs) / untied**0.5)
    assert kendall(x, x) == pytest.approx(1) and kendall(x, [-each for each in x]) == pytest.approx(-1)
    assert kendall([1.0, 1.0], [1.0, 2.0]) is None


def test_intervals_come_from_the_same_draws_for_all() -> None:
    truth = [float(i * i) for i in range(12)]
    noisy = [float((i * 7) % 12) for i in range(12)]
    found = ranked(truth, {"a": noisy, "same": noisy, "exact": truth, "flat": [1.0] * 12}, "a", resamples=100, seed=3)
    assert found["same"] == found["a"]
    assert found["a"].above == 0 and found["a"].above_interval == (0, 0) and found["a"].better == 0.5
    assert found["exact"].spearman == 1 and found["exact"].interval == (1, 1) and found["exact"].better == 1
    assert found["exact"].above == pytest.approx(1 - found["a"].spearman)
    assert found["flat"].spearman == 0 and found["flat"].interval == (0, 0)  # ranks nothing
    low, high = found["a"].interval
    assert low < found["a"].spearman < high
    again = ranked(truth, {"a": noisy}, "a", resamples=100, seed=3)
    assert again["a"] == found["a"]
    assert ranked(truth, {"a": noisy}, "a", resamples=100, seed=4)["a"].interval != found["a"].interval


def test_the_interval_of_a_mean() -> None:
    assert mean_interval([2.0, 2.0], resamples=10, seed=0) == (2, 2)
    low, high = mean_interval([0.0, 1.0, 2.0, 3.0], resamples=500, seed=0)
    assert 0 <= low < 1.5 < high <= 3


def test_random_plans_differ_and_cost_the_same() -> None:
    plans = random_plans(SLIMMING, COUNTER, 6, MACS, 0.03, 0)
    assert len(set(plans)) == len({plan.name for plan in plans}) == 6
    for plan in plans:
        assert abs(COUNTER(plan).macs - MACS) <= 0.03 * MACS
        assert len({round(count / SPEC.widest.channels[group], 1) for group, count in plan.channels.items()}) > 3
        for group, count in plan.channels.items():
            assert SLIMMING.floor.channels[group] <= count <= SLIMMING.start.channels[group]
            assert count % 8 == 0 or count in (SLIMMING.floor.channels[group], SLIMMING.start.channels[group])
    assert random_plans(SLIMMING, COUNTER, 6, MACS, 0.03, 0) == plans
    assert random_plans(SLIMMING, COUNTER, 6, MACS, 0.03, 1) != plans


def test_macs_that_no_plan_has_are_refused() -> None:
    with pytest.raises(UserError, match="only 0 of 2 different plans"):
        random_plans(SLIMMING, COUNTER, 2, 10 * COUNTER(SLIMMING.start).macs, 0.03, 0)


def test_plans_on_the_way_are_those_that_steps_began_from() -> None:
    steps = steps_from_widest(6)
    plans = plans_on_the_way(SLIMMING, steps, 3)
    assert plans[0] == SLIMMING.start and len(plans) == 3
    assert plans == plans_on_the_way(SLIMMING, steps, 6)[::2]
    assert all(step.channels_before == plan.channels[step.group] for step, plan in zip(steps[::2], plans, strict=True))
    assert len(plans_on_the_way(SLIMMING, steps, 100)) == 6
    with pytest.raises(UserError, match="step 1 of the trace is none"):
        plans_on_the_way(SLIMMING, [SearchStep(1, "features.0", 99, 98, 2.0, 1.0, 1, 1, 0.0, 0.0, 0.0, 0.0, 12, 1, 0.1)], 3)
    with pytest.raises(UserError, match="no steps"):
        plans_on_the_way(SLIMMING, [], 3)


def test_a_choice_is_judged_by_the_reference() -> None:
    ours = [[CandidateScore(1.0, 0.1, 9), CandidateScore(2.0, 0.2, 9), CandidateScore(3.0, 0.3, 9)]] * 2
    theirs = [
        [CandidateScore(10.0, 1.0, 9), CandidateScore(20.0, 2.0, 9), CandidateScore(30.0, 3.0, 9)],
        [CandidateScore(30.0, 3.0, 9), CandidateScore(20.0, 2.0, 9), CandidateScore(10.0, 1.0, 9)],
    ]
    found = judged(ours, theirs, [0, 0], resamples=10)
    assert found["agreement_error_steps"] == pytest.approx([1, -1]) and found["agreement_error"] == pytest.approx(0)
    assert found["regret_error_steps"] == [0, 20] and found["regret_error"] == 10
    assert found["regret_loss_steps"] == [0, 2]
    better = judged(ours, theirs, [0, 2], resamples=10)
    figures = {"a": {"reference": found}, "b": {"reference": better}}
    add_differences(figures, ["reference"], "a", 10)
    assert found["regret_error_above"] == 0 and better["regret_error_above"] == -10
    assert better["regret_error_above_interval"][0] >= -20 and better["agreement_error_above_interval"] == (0, 0)


def test_the_whole_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    config, folder, output = tmp_path / "tiny.yml", tmp_path / "search", tmp_path / "out.json"
    config.write_text(CONFIG)
    torch.manual_seed(0)
    settings = {"nonuniform": True, "data": "fake", "seed": 0, "holdout": 8}
    means = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    classes = [f"class {number}" for number in range(10)]
    save(own_content(SlimmableNetwork(SPEC), 16, *means, classes, settings=settings), folder / "supernet" / "us.pt")
    trace = Trace(folder)
    for step in steps_from_widest(2):
        trace.add(step, [Candidate(step.step, step.group, step.channels_before, step.channels_after, 1.0, 0.0, 0.0, 1)])
    words = ["--config", str(config), "--ckpt", str(folder / "supernet" / "us.pt"), "--json", str(output), "--plans", "3"]
    words += ["--macs", "1M", "--chunks", "8", "4", "--calibration", "0", "--steps", "1", "--epochs", "1"]
    monkeypatch.setattr(sys, "argv", ["script", *words, "--seeds", "1", "--resamples", "20", "--random-steps", "2"])
    search_statistics.main()
    text = output.read_text()
    result = json.loads(text)
    ways = ["batch 8", "batch 4", "calibrated all"]
    assert result["steps"]["steps"] == 1 and result["random_steps"]["steps"] == 2
    assert list(result["by_supernet"]) == list(result["steps"]["ways"]) == ways
    assert all(len(result["by_supernet"][way]["error"]) == 3 for way in ways)
    assert len(result["by_training"]["loss"]) == 1 and len(result["by_training"]["loss"][0]) == 3
    assert result["images"] == {"train": 24, "held_out": 8, "test": 16}
    assert list(result["ranking"]["error_to_loss"]) == [*ways, "parameters"]
    assert result["seeds_agree"] == {"error": None, "loss": None}
    assert "search/supernet/us.pt" in result["command"] and str(tmp_path) not in text
    shown = capsys.readouterr().out
    assert "trained alone" in shown and "1 steps on the way" in shown and "2 steps from random plans" in shown
    monkeypatch.setattr(sys, "argv", ["script", *words, "--seeds", "0", "--resamples", "20", "--steps", "0"])
    search_statistics.main()
    assert json.loads(output.read_text())["ranking"] == {}


def test_a_mistake_is_one_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["script", "--ckpt", "nowhere.pt"])
    with pytest.raises(SystemExit) as stopped:
        search_statistics.main()
    assert stopped.value.code == 2
    assert "nowhere.pt" in capsys.readouterr().err
