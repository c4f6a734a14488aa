"""A published network and the same one read off its dense module: what a further width costs, and a training step."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.studies.any_network.turns import in_turn
from slimexport import export
from slimexport.dense import dense_network
from slimexport.request import Writing
from slimexport.target.manifest import Manifest
from slimtrain.checkpoints.checkpoint import Checkpoint, open_checkpoint
from slimtrain.data.noise import noise_images
from slimtrain.graph.graph import Value
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.calibrate import calibrate
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.tracing.slimmed import make_slimmable

IMAGE_SIZE = 224
CALIBRATED_ON = 4  # images
NARROWEST = 0.25  # of what is exported, where the network itself goes no less far


def traced(network: SlimmableNetwork, image_size: int) -> SlimmableNetwork:
    """The network read off the dense module of a published one at its widest."""
    module = dense_network(network, network.spec.widest, fold=False)
    return make_slimmable(module, torch.zeros(2, 3, image_size, image_size), name=network.spec.name.removeprefix("us_"))


def same_plan(network: SlimmableNetwork, read: SlimmableNetwork, plan: ChannelPlan) -> ChannelPlan:
    """The plan of a traced network at which its tensors have the sizes that the published one's have at `plan`."""
    spec = read.spec
    assert isinstance(spec, GraphSpec) and isinstance(network.spec, NetworkSpec)
    published = network.spec.sizing(plan)
    sizes = {stored.name: published.shape(Value(stored.node)) for stored in published.graph.parameters}
    channels = {}
    for group in spec.groups.groups:
        parameter, dim, positions = group.dims[0]
        size = sizes[parameter][dim]
        assert isinstance(size, int)
        channels[group.name] = size // positions
    result = ChannelPlan(plan.name, channels)
    shapes = spec.sizing(result)
    for stored in spec.graph.parameters:
        assert shapes.shape(Value(stored.node)) == sizes[stored.name], stored.name
    return result


def _calibrated(network: SlimmableNetwork, plans: Sequence[ChannelPlan]) -> None:
    """Statistics for every plan that has none, of noise: without any the logits would be too much alike to prove a file."""
    missing = [plan for plan in plans if not network.has_statistics(plan)]
    calibrate(network, missing, [torch.from_numpy(noise_images(CALIBRATED_ON, IMAGE_SIZE, 0))])


def further_widths(name: str, count: int, rounds: int) -> dict[str, Any]:
    """Seconds of a further width, sliced, written and verified, of the published network and of the traced one: what an export
    of `count` widths takes longer than one of the widest, for each of the others. `macs`: of all of them, as a check that both
    are of the same size."""
    opened = open_checkpoint(f"random:{name}")
    read = Checkpoint(f"traced:{name}", None, traced(opened.network, IMAGE_SIZE).eval())
    narrowest = max(NARROWEST, (opened.spec.width_range or (NARROWEST, 1.0))[0])
    widths = [round(narrowest + (1 - narrowest) * step / (count - 1), 3) for step in range(count)]
    for checkpoint in (opened, read):
        _calibrated(checkpoint.network, [checkpoint.network.plan(width) for width in widths])
    with tempfile.TemporaryDirectory() as folder:

        def exported(checkpoint: Checkpoint, widths: Sequence[float]) -> Manifest:
            return export(checkpoint, widths=widths, output_dir=Path(folder) / "bundle", writing=Writing(overwrite=True))

        both = {"published": opened, "traced": read}
        macs = {
            side: sum(artifact.macs for artifact in exported(checkpoint, widths).artifacts)
            for side, checkpoint in both.items()
        }
        sides = in_turn(
            {
                f"{side}, {number}": partial(exported, checkpoint, widths[-number:])
                for number in (1, count)
                for side, checkpoint in both.items()
            },
            rounds,
        )
    seconds = {}
    for side in both:
        one, all_ = (min(run["processor_s"] for run in sides[f"{side}, {number}"]) for number in (1, count))
        seconds[side] = round((all_ - one) / (count - 1), 4)
    return {
        "network": name,
        "widths": widths,
        "runs": sides,
        "macs": macs,
        "seconds_per_width": seconds,
        "ratio": round(seconds["traced"] / seconds["published"], 2),
    }


def training_step(name: str, widths: Sequence[float], batch: int, image_size: int, rounds: int) -> dict[str, Any]:
    """Seconds of a step (every width forward and backward, then SGD) of the published network and of the traced one: at plans
    of the same sizes, on the same images, in turn. Statistics follow the widest plan alone."""
    network = open_checkpoint(f"random:{name}").network
    read = traced(network, image_size)
    plans = {"published": [network.spec.widest], "traced": [read.spec.widest]}
    for width in widths:
        channels = network.plan(width).channels
        plan = ChannelPlan(f"step_{width}", channels)
        assert plan not in network.spec.plans  # else its stored statistics would follow in one of both
        plans["published"].append(plan)
        plans["traced"].append(same_plan(network, read, plan))
    images = torch.randn(batch, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(batch) % network.spec.classes
    sides = {}
    for side, slimmable in {"published": network, "traced": read}.items():
        slimmable.train()
        optimizer = torch.optim.SGD(slimmable.parameters(), 0.01, momentum=0.9)
        sides[side] = partial(_step, slimmable, optimizer, plans[side], images, labels)
    runs = in_turn(sides, rounds)
    medians = {side: statistics.median(run["processor_s"] for run in of_side) for side, of_side in runs.items()}
    ratios = [a["processor_s"] / b["processor_s"] for a, b in zip(runs["traced"], runs["published"], strict=True)]
    return {
        "network": name,
        "widths": [1.0, *widths],
        "batch": batch,
        "image_size": image_size,
        "runs": runs,
        "seconds_per_step": {side: round(median, 4) for side, median in medians.items()},
        "ratio": round(statistics.median(ratios), 3),
    }


def _step(
    network: SlimmableNetwork, optimizer: torch.optim.Optimizer, plans: Sequence[ChannelPlan], images: Tensor, labels: Tensor
) -> None:
    optimizer.zero_grad()
    for plan in plans:
        with network.at(plan):
            loss = F.cross_entropy(network(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
