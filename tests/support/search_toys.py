"""What the tests of the search's core share: small networks, images that they get right at the widest, dense counterparts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from slimtrain.models.channels import ChannelPlan
from slimtrain.models.spec import NetworkSpec
from slimtrain.search.evaluator import Chunk, Evaluator, TensorChunks
from slimtrain.search.greedy import CandidateScore
from slimtrain.search.trace import SearchStep, Trace
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.module_layers import DenseLayers
from tests.support.run_helpers import ALONE, network_of, noise
from tests.support.specs import spec_of

V1 = NetworkSpec("mobilenet_v1", "us", (0.125, 0.25), 10, width_range=(0.125, 0.25), stem_stride=1)
V2 = NetworkSpec("mobilenet_v2", "us", (0.25, 0.5), 7, width_range=(0.25, 0.5))
MNAS = NetworkSpec("mnasnet", "us", (0.25, 0.5), 7, width_range=(0.25, 0.5))
RESNET = NetworkSpec("resnet50", "us", (0.125, 0.25), 5, width_range=(0.125, 0.25))
SPECS = {spec.architecture: spec for spec in (V1, V2, MNAS, RESNET)}
SIZE = 32


def images(chunks: int = 2, count: int = 10, seed: int = 40) -> list[Tensor]:
    return [noise(count, SIZE, seed + i) for i in range(chunks)]


def known_chunks(network: SlimmableNetwork, chunks: int = 2, count: int = 10) -> TensorChunks:
    """Images with the classes that the widest plan gives them: slimming can only lose."""
    chunk_list: list[Chunk] = []
    for batch in images(chunks, count):
        with torch.inference_mode():
            chunk_list.append((batch, batch_logits(network, network.spec.widest, batch).argmax(1)))
    return TensorChunks(chunk_list)


def dense(network: SlimmableNetwork, plan: ChannelPlan) -> nn.Module:
    """Ordinary torch layers holding the leading corner of every weight."""
    with torch.device("meta"):  # no time for random weights
        network_of_plan = spec_of(network).build(DenseLayers(plan))
    assert isinstance(network_of_plan, nn.Module)
    network_of_plan.to_empty(device="cpu")
    for norm in network_of_plan.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_running_stats()
    with torch.no_grad():
        for key, value in network_of_plan.named_parameters():
            value.copy_(network.get_parameter(key)[tuple(slice(size) for size in value.shape)])
    return network_of_plan


def batch_logits(network: SlimmableNetwork, plan: ChannelPlan, batch: Tensor) -> Tensor:
    """By the dense network, every norm using the batch's statistics."""
    logits: Tensor = dense(network, plan).train()(batch)
    return logits


@torch.no_grad()
def brute_force(network: SlimmableNetwork, plan: ChannelPlan, chunks: TensorChunks) -> CandidateScore:
    """Error and loss of a plan from the image on, by its definition."""
    own = dense(network, plan).train()  # every norm uses the batch's statistics
    return measured([(own(batch).double(), labels) for batch, labels in chunks.chunks])


@torch.no_grad()
def brute_force_calibrated(
    network: SlimmableNetwork, plan: ChannelPlan, chunks: TensorChunks, calibration: TensorChunks
) -> CandidateScore:
    """As `brute_force`, with statistics that torch's own norms average over the calibration images."""
    dense_network = dense(network, plan)
    for norm in dense_network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None  # torch's cumulative average
    dense_network.train()
    for batch, _ in calibration.chunks:
        dense_network(batch)
    dense_network.eval()
    return measured([(dense_network(batch).double(), labels) for batch, labels in chunks.chunks])


def measured(logits_and_labels: Sequence[tuple[Tensor, Tensor]]) -> CandidateScore:
    logits, labels = torch.cat([a for a, _ in logits_and_labels]), torch.cat([b for _, b in logits_and_labels])
    chance = logits.softmax(1)[torch.arange(len(labels)), labels]
    wrong = sum(int(row.argmax()) != int(label) for row, label in zip(logits, labels, strict=True))
    return CandidateScore(100 * wrong / len(labels), float(-chance.log().mean()), len(labels))


def small_network(spec: NetworkSpec = V1, seed: int = 0) -> SlimmableNetwork:
    return network_of(spec, seed)


def evaluator(network: SlimmableNetwork, **options: Any) -> Evaluator:
    return Evaluator(network, known_chunks(network), ALONE, **{"channels_last": False, **options})


class ScoredBy:
    """Measures plans by a function, and counts what it was asked."""

    percent = True

    def __init__(self, function: Callable[[ChannelPlan], tuple[float, float]]) -> None:
        self.function, self.asked = function, 0

    def __call__(self, current: ChannelPlan, candidates: Sequence[ChannelPlan]) -> list[CandidateScore]:
        self.asked += 1
        return [CandidateScore(*self.function(plan), 100) for plan in candidates]

    def identity(self) -> dict[str, Any]:
        return {"told": True}


@dataclass(frozen=True)
class Priced:
    """A cost of any name and unit: all channels."""

    name: str = "macs"
    unit: str = "MACs"

    def __call__(self, plan: ChannelPlan) -> float:
        return float(sum(plan.channels.values()))


class Recorded(Trace):
    """A trace that is kept in memory."""

    def __init__(self) -> None:
        self.steps: list[SearchStep] = []
        self.write = False

    def begin(self, identity: object) -> None:
        self.identity = identity
