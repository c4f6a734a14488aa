"""The weights a run starts from: another checkpoint's."""

from __future__ import annotations

import torch

from slimtrain.base.errors import CheckpointError
from slimtrain.checkpoints.checkpoint import Checkpoint
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.network import SlimmableNetwork

WIDTH_KEYS = {"us": "width_range", "s": "switches", "autoslim": "channel_lists"}  # of configurations


@torch.no_grad()
def adopt(network: SlimmableNetwork, checkpoint: Checkpoint, *, reset_classifier: bool = False) -> None:
    """Copy `checkpoint`'s weights into `network`, and the statistics of the plans that both know.

    Shapes must agree: the same architecture at the same widest width, for S and AutoSlim networks the same switches.
    With `reset_classifier` the classifier is left as it is. Raises CheckpointError where something does not fit.
    """
    spec, theirs = network.spec, checkpoint.spec
    name = checkpoint.file
    if (spec.name, type(spec)) != (theirs.name, type(theirs)):
        raise CheckpointError(
            f"{name}: holds a {theirs.name}, the configuration trains a {spec.name}. Set "
            f"network={theirs.name}, or take another file."
        )
    if isinstance(spec, NetworkSpec) and isinstance(theirs, NetworkSpec) and spec.stem_stride != theirs.stem_stride:
        raise CheckpointError(
            f"{name}: has stem stride {theirs.stem_stride}, the configuration {spec.stem_stride}. Set "
            f"stem_stride={theirs.stem_stride}, or take another file."
        )
    if spec.widest != theirs.widest or (spec.family != "us" and set(spec.plans) != set(theirs.plans)):
        raise CheckpointError(
            f"{name}: has {theirs.describe_widths()}, the configuration {spec.describe_widths()}. Expected the same: set "
            f"{WIDTH_KEYS[spec.family]}, or take another file."
        )
    if spec.classes != theirs.classes and not reset_classifier:
        raise CheckpointError(
            f"{name}: has {theirs.classes} classes, the data has {spec.classes}. To train a new classifier on its features "
            "set reset_classifier=true."
        )
    source = checkpoint.network
    for path, parameter in network.named_parameters():
        if ".bn." in path or (reset_classifier and path.startswith("classifier.")):
            continue
        parameter.copy_(source.get_parameter(path))
    for plan in spec.plans:
        if plan in source.known_plans and source.has_statistics(plan):
            _adopt_norms(network, source, plan)


def _adopt_norms(network: SlimmableNetwork, source: SlimmableNetwork, plan: ChannelPlan) -> None:
    with network.at(plan), source.at(plan):
        for path, norm in network.norms.items():
            theirs = source.norms[path]
            for own, other in zip(norm.scale_and_shift(), theirs.scale_and_shift(), strict=True):
                own.copy_(other)
            stored = norm.stored()
            assert stored is not None and stored.running_mean is not None and stored.running_var is not None
            for own, other in zip((stored.running_mean, stored.running_var), theirs.statistics(), strict=True):
                own.copy_(other)
