"""The error of candidates: by definition, shared work, statistics, processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from slimtrain.base.errors import UserError
from slimtrain.config.config import STATISTICS
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.spec import NetworkSpec
from slimtrain.search.evaluator import Chunk, Evaluator, TensorChunks
from slimtrain.search.greedy import CandidateScore
from slimtrain.search.prefix import SharedPrefix
from slimtrain.search.slimming import Slimming
from slimtrain.training.distributed import Processes
from tests.support.run_helpers import ALONE, calibrated_network, differences, noise
from tests.support.search_toys import (
    RESNET,
    SIZE,
    SPECS,
    V1,
    V2,
    brute_force,
    brute_force_calibrated,
    evaluator,
    images,
    known_chunks,
    small_network,
)
from tests.support.slimtrain_processes import in_processes


def after(slimming: Slimming, steps: int) -> ChannelPlan:
    """The plan some steps on."""
    plan = slimming.start
    for i in range(steps):
        choices = slimming.steps(plan)
        plan = choices[i * 5 % len(choices)]
    return plan


# ------------------------------------------------------------------------------------------------------ by definition


@pytest.mark.parametrize("name", SPECS)
def test_errors_are_those_of_dense_networks_from_the_image_on(name: str) -> None:
    network = small_network(SPECS[name])
    chunks = known_chunks(network)
    slimming = Slimming(SPECS[name])
    current = after(slimming, 2)
    candidates = slimming.steps(current)[::6]
    scores = Evaluator(network, chunks, ALONE)(current, candidates)
    for plan, score in zip(candidates, scores, strict=True):
        expected = brute_force(network, plan, chunks)
        assert (score.error, score.images) == (expected.error, 20)
        assert score.loss == pytest.approx(expected.loss, rel=1e-4)
    assert len({score.loss for score in scores}) == len(scores)


@pytest.mark.parametrize("spec", [V1, V2])
def test_calibrated_errors_are_those_of_torchs_own_average(spec: NetworkSpec) -> None:
    network = small_network(spec)
    chunks, calibration = known_chunks(network), TensorChunks([(batch, torch.zeros(0)) for batch in images(3, 12, 90)])
    slimming = Slimming(spec)
    current = after(slimming, 1)
    candidates = slimming.steps(current)[::5]
    scores = Evaluator(network, chunks, ALONE, "calibrated", calibration)(current, candidates)
    for plan, score in zip(candidates, scores, strict=True):
        expected = brute_force_calibrated(network, plan, chunks, calibration)
        assert score.error == expected.error
        assert score.loss == pytest.approx(expected.loss, rel=1e-4)


def test_the_network_itself_can_be_measured() -> None:
    network = small_network()
    start = network.spec.widest
    (score,) = evaluator(network)(start, [start])
    assert score.error == 0  # its own answers are the labels
    assert score.loss == pytest.approx(brute_force(network, start, known_chunks(network)).loss, rel=1e-5)


def test_every_image_counts_once_however_chunks_differ_in_size() -> None:
    network = small_network()
    chunks: list[Chunk] = [(noise(count, SIZE, count), torch.zeros(count, dtype=torch.int64)) for count in (4, 9, 7)]
    (score,) = Evaluator(network, TensorChunks(chunks), ALONE)(network.spec.widest, [network.spec.widest])
    parts = [brute_force(network, network.spec.widest, TensorChunks([chunk])) for chunk in chunks]
    assert score.images == 20
    assert score.error == pytest.approx(sum(part.error * part.images for part in parts) / 20)
    assert score.loss == pytest.approx(sum(part.loss * part.images for part in parts) / 20)


# -------------------------------------------------------------------------------------------------------- shared work


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("statistics", STATISTICS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_sharing_changes_no_bit(name: str, statistics: str, channels_last: bool) -> None:
    spec = SPECS[name]
    network = small_network(spec)
    if channels_last:
        network.to(memory_format=torch.channels_last)
    chunks = known_chunks(network, count=6)
    slimming = Slimming(spec)
    current = after(slimming, 3)
    candidates = [*slimming.steps(current)[:: 12 if spec == RESNET else 5], current]
    shared = Evaluator(network, chunks, ALONE, statistics, chunks, channels_last=channels_last)
    apart = dataclasses.replace(shared, reuse=False, keep_memory=False)
    assert shared(current, candidates) == apart(current, candidates)


def test_what_candidates_share_is_computed_once() -> None:
    """Calls of every norm: as many as candidates that differ by then, and once more where the current plan passes."""
    network = small_network(V2)
    slimming = Slimming(V2)
    candidates = slimming.steps(slimming.start)
    prefix = SharedPrefix(network)
    firsts = [prefix.first_difference(slimming.start, plan) for plan in candidates]
    calls: dict[str, int] = {}
    for name, module in network.norms.items():
        module.register_forward_hook(lambda m, i, o, name=name: calls.update({name: calls.get(name, 0) + 1}))
    evaluator = Evaluator(network, TensorChunks([(noise(6, SIZE), torch.zeros(6, dtype=torch.int64))]), ALONE)
    evaluator(slimming.start, candidates)
    order, expected = network.body.order, []
    for index, node in enumerate(order.graph.nodes):
        if node.kind == "batch_norm":
            (stage,) = (i for i, span in enumerate(order.spans, 1) if span.begin <= index < span.end)
            expected.append(sum(first <= stage for first in firsts) + (stage < max(firsts)))
    assert list(calls.values()) == expected
    assert sum(expected) < 0.7 * len(expected) * len(candidates)


# ------------------------------------------------------------------------------------------- the network stays as it is


@pytest.mark.parametrize("statistics", STATISTICS)
@pytest.mark.parametrize("fails", [False, True])
def test_the_network_is_left_as_it_was(statistics: str, fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = after(Slimming(V1), 2)
    network = calibrated_network(V1, mixed).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    calibrated = {plan: {k: (a.clone(), b.clone()) for k, (a, b) in s.items()} for plan, s in network.calibrated.items()}
    chunks = TensorChunks([(noise(8, SIZE), torch.zeros(8, dtype=torch.int64))])
    measure = Evaluator(network, chunks, ALONE, statistics, chunks)
    if fails:
        monkeypatch.setattr("slimtrain.search.evaluator._sums", lambda *values: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            measure(V1.widest, [V1.widest, mixed])
    else:
        measure(V1.widest, [V1.widest, mixed])
    assert differences(before, dict(network.state_dict())) == []
    assert list(calibrated) == list(network.calibrated)
    for plan, kept in calibrated.items():
        for path, pair in kept.items():
            assert all(torch.equal(a, b) for a, b in zip(pair, network.calibrated[plan][path], strict=True))
    assert network.training
    assert network.active == V1.widest
    assert all(norm.averaging is None for norm in network.norms.values())


def test_calibrated_statistics_of_the_checkpoint_play_no_part() -> None:
    plain, calibrated = small_network(), calibrated_network(V1, after(Slimming(V1), 1))
    plans = [V1.widest, after(Slimming(V1), 1)]
    chunks = known_chunks(plain)
    assert Evaluator(plain, chunks, ALONE)(V1.widest, plans) == Evaluator(calibrated, chunks, ALONE)(V1.widest, plans)


# ------------------------------------------------------------------------------------------------------- several processes


def measured_here(processes: Processes) -> list[list[CandidateScore]]:
    network = small_network(V1)
    network.synchronize(True)  # as a training run before leaves it
    chunks = known_chunks(network, 3, 6)
    slimming = Slimming(V1)
    plans = slimming.steps(slimming.start)
    scores = []
    for statistics in STATISTICS:
        measure = Evaluator(network, chunks, processes, statistics, known_chunks(network, 2, 8))
        scores += [measure(slimming.start, asked) for asked in (plans, [slimming.start], plans[:2])]
    return scores


@pytest.mark.parametrize("world", [2, 3])
def test_any_number_of_processes_gives_the_same_figures(world: int) -> None:
    assert in_processes(world, measured_here) == [measured_here(ALONE)] * world


# ------------------------------------------------------------------------------------------------------------ bad input


class Empty:
    """Chunks of which nothing can be read."""

    def __len__(self) -> int:
        return 2

    def read(self, numbers: Sequence[int]) -> Any:
        return iter(())

    def identity(self) -> dict[str, Any]:
        return {}


def test_bad_input() -> None:
    network = small_network()
    chunks = known_chunks(network)
    with pytest.raises(UserError, match=r"no held-out images.*search_holdout"):
        Evaluator(network, TensorChunks([]), ALONE)
    with pytest.raises(UserError, match=r"statistics is 'running', expected batch or calibrated"):
        Evaluator(network, chunks, ALONE, "running")
    for nothing in (None, TensorChunks([])):
        with pytest.raises(UserError, match=r"no images to calibrate with"):
            Evaluator(network, chunks, ALONE, "calibrated", nothing)
    with pytest.raises(UserError, match=r"none of the held-out images can be read"):
        Evaluator(network, Empty(), ALONE)(V1.widest, [V1.widest])
    single = TensorChunks([(noise(1, 16), torch.zeros(1, dtype=torch.int64))])
    with pytest.raises(UserError, match=r"one value per channel, which has no variance. Raise search_batch"):
        Evaluator(network, single, ALONE)(V1.widest, [V1.widest])


def test_what_a_result_depends_on_is_told() -> None:
    network = small_network()
    chunks, other = known_chunks(network), known_chunks(network, 3)
    identity = Evaluator(network, chunks, ALONE).identity()
    assert identity["statistics"] == "batch"
    assert identity == Evaluator(network, known_chunks(network), ALONE, calibration=other).identity()
    assert identity["images_sha256"] != Evaluator(network, other, ALONE).identity()["images_sha256"]
    calibrated = Evaluator(network, chunks, ALONE, "calibrated", other).identity()
    assert calibrated["calibration_images_sha256"] == other.identity()["images_sha256"]
    relabeled = TensorChunks([(batch, labels.flip(0)) for batch, labels in chunks.chunks])
    assert relabeled.identity() != chunks.identity()


def test_bf16_is_used_where_asked_for() -> None:
    network = small_network()
    (exact,), (rough,) = (evaluator(network, amp=amp)(V1.widest, [V1.plan(0.125)]) for amp in ("none", "bf16"))
    assert exact.loss != rough.loss
    assert rough.loss == pytest.approx(exact.loss, rel=0.05)
