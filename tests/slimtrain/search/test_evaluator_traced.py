"""Candidates of a user's network: what they share is computed once, with the same bits, on any number of processes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from slimtrain.config.config import STATISTICS
from slimtrain.search.evaluator import Evaluator
from slimtrain.search.greedy import CandidateScore
from slimtrain.search.prefix import SharedPrefix
from slimtrain.search.slimming import Slimming
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.training.distributed import Processes
from tests.support.run_helpers import ALONE, noise
from tests.support.slimtrain_processes import in_processes
from tests.support.traced_search import FULL, SIZE, known, slimmable, traced
from tests.support.user_networks import network as user_network

SHARING = ("residual", "gate", "concatenation", "split", "transformer", "windows")


class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operators that torch runs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[str(func)] += 1
        return func(*args, **(kwargs or {}))


def convolutions(network: SlimmableNetwork, *, reuse: bool) -> int:
    """Those that scoring all first steps takes."""
    slimming, chunks = Slimming(network.spec, groups=2), known()
    measure = Evaluator(network, dataclasses.replace(chunks, chunks=chunks.chunks[:1]), ALONE, reuse=reuse)
    with Counting() as counting:
        measure(slimming.start, slimming.steps(slimming.start))
    return sum(number for name, number in counting.calls.items() if "conv" in name)


def test_what_candidates_share_is_computed_once() -> None:
    """Stem, two of the block, two of the gate, two that are concatenated: every one runs for each candidate that differs by
    then, and once more as long as the current plan goes on."""
    network = traced()
    first = {"stem.0": 0, "block.0.0": 1, "fc1": 3, "a.0": 5, "b.0": 6}
    assert list(first) == list(FULL)
    expected = [sum(began <= layer for began in first.values()) + (layer < max(first.values())) for layer in range(7)]
    assert expected == [2, 3, 3, 4, 4, 5, 5]
    assert convolutions(network, reuse=True) == sum(expected)
    assert convolutions(network, reuse=False) == 7 * len(first)


@pytest.mark.parametrize("name", SHARING)
@pytest.mark.parametrize("statistics", STATISTICS)
def test_sharing_changes_no_bit(name: str, statistics: str) -> None:
    network = slimmable(user_network(name))
    chunks = known(6)
    slimming = Slimming(network.spec, groups=3)
    current = slimming.steps(slimming.start)[-1]
    candidates = [*slimming.steps(current), current]
    shared = Evaluator(network, chunks, ALONE, statistics, chunks, channels_last=statistics == "batch")
    apart = dataclasses.replace(shared, reuse=False, keep_memory=False)
    assert shared(current, candidates) == apart(current, candidates)


@pytest.mark.parametrize("name", SHARING)
def test_a_sweep_gives_every_plan_s_own_logits(name: str) -> None:
    network = slimmable(user_network(name))
    prefix, slimming, batch = SharedPrefix(network), Slimming(network.spec, groups=2), noise(2, SIZE, 3)
    with torch.inference_mode(), network.averaging(1.0):
        swept = dict(prefix.sweep(slimming.start, slimming.steps(slimming.start), batch))
        for number, plan in enumerate(slimming.steps(slimming.start)):
            with network.at(plan):
                assert torch.equal(swept[number], network(batch))


def measured_here(processes: Processes, name: str) -> list[list[CandidateScore]]:
    network = slimmable(user_network(name))
    network.synchronize(True)  # as a training run before leaves it
    slimming = Slimming(network.spec, groups=2)
    plans = slimming.steps(slimming.start)
    measures = [Evaluator(network, known(6), processes, statistics, known(8)) for statistics in STATISTICS]
    return [measure(slimming.start, asked) for measure in measures for asked in (plans, [slimming.start])]


@pytest.mark.parametrize("name", ["split", "transformer"])  # the second has no statistics to exchange
def test_two_processes_give_the_same_figures(name: str) -> None:
    assert in_processes(2, measured_here, name) == [measured_here(ALONE, name)] * 2
