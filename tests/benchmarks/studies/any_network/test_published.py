"""A published network and the one read off its module, at plans of the same sizes."""

from __future__ import annotations

import torch

from benchmarks.studies.any_network.published import same_plan, traced, training_step
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.costs.cost import CostCounter


def test_plans_of_the_same_sizes_compute_the_same() -> None:
    network = open_checkpoint("random:us_mobilenet_v2").network.eval()
    read = traced(network, 32).eval()
    plan = network.plan(0.5)
    same = same_plan(network, read, plan)
    assert CostCounter(read.spec, 32)(same).macs == CostCounter(network.spec, 32)(plan).macs
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), network.at(network.spec.widest), read.at(read.spec.widest):
        assert torch.allclose(read(images), network(images), atol=1e-4)


def test_a_step_of_both_is_timed_in_turn() -> None:
    row = training_step("us_mobilenet_v2", [0.6125], 2, 32, 1)
    assert {len(runs) for runs in row["runs"].values()} == {1} and row["widths"] == [1.0, 0.6125]
    assert all(seconds > 0 for seconds in row["seconds_per_step"].values()) and row["ratio"] > 0
