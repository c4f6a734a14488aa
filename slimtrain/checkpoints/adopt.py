"""The weights a run starts from: another checkpoint's."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from slimtrain.base.errors import CheckpointError
from slimtrain.base.text import count, some
from slimtrain.checkpoints.checkpoint import Checkpoint
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.spec import NetworkSpec
from slimtrain.models.width_spec import WidthSpec
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.slimmable.plan_positions import take

log = logging.getLogger(__name__)

WIDTH_KEYS = {"us": "width_range", "s": "switches", "autoslim": "channel_lists"}  # of configurations


# (channels of a checkpoint's images, of the run's): what is done to the first convolutions
_START = "the first convolution begins "
CONVERSIONS = {
    (3, 1): _START + "with the sum of its weights for red, green and blue: images are gray",
    (1, 3): _START + "with a third of its weights for gray in each color",
    (3, 4): _START + "without weights for the fourth channel, as it was for the others",
}


def for_channels(weight: Tensor, channels: int) -> Tensor:
    """The weight [out, own channels, k, k] of a first convolution for images of other `channels`: a pair of `CONVERSIONS`.

    Where normalization is equal, it computes of gray images what the other did of three equal channels, or the reverse; and of
    four channels the same as of the first three.
    """
    if channels == 1:
        return weight.sum(1, keepdim=True)
    if channels == 3:
        return weight.repeat(1, 3, 1, 1) / 3
    return torch.cat([weight, torch.zeros_like(weight[:, :1])], 1)


@torch.no_grad()
def adopt(network: SlimmableNetwork, checkpoint: Checkpoint, *, reset_classifier: bool = False) -> None:
    """Copy `checkpoint`'s weights into `network`, and the statistics of the plans that both know.

    Shapes must agree: the same architecture at the same widest width, for S and AutoSlim networks the same switches. A network
    of one width, an S network with one switch, is a start for every family: each plan begins with the leading channels of its
    norms; so do the switches of a user's AutoSlim network, where the checkpoint is the universally slimmable one of that. Of
    images with other channels the first convolutions are taken over as `for_channels` says, on which a line is logged. With
    `reset_classifier` the classifier is left as it is. Raises CheckpointError where something does not fit.
    """
    spec, theirs = network.spec, checkpoint.spec
    name = checkpoint.file
    if _lists_of_one_module(spec, theirs):
        return adopt_lists(network, checkpoint.network)
    alone = _architecture(spec) == _architecture(theirs) and len(theirs.plans) == 1 and spec.widest == theirs.plans[0]
    if spec.name != theirs.name and not alone:
        raise CheckpointError(
            f"{name}: holds a {theirs.name}, the configuration trains a {spec.name}. Set "
            f"network={theirs.name}, or take another file."
        )
    if isinstance(spec, NetworkSpec) and isinstance(theirs, NetworkSpec) and spec.stem_stride != theirs.stem_stride:
        raise CheckpointError(
            f"{name}: has stem stride {theirs.stem_stride}, the configuration {spec.stem_stride}. Set "
            f"stem_stride={theirs.stem_stride}, or take another file."
        )
    if not alone and (spec.widest != theirs.widest or (spec.family != "us" and set(spec.plans) != set(theirs.plans))):
        raise CheckpointError(
            f"{name}: has {theirs.describe_widths()}, the configuration {spec.describe_widths()}. Expected the same: set "
            f"{WIDTH_KEYS[spec.family]}, or take another file."
        )
    if spec.classes != theirs.classes and not reset_classifier:
        raise CheckpointError(
            f"{name}: has {theirs.classes} classes, the data has {spec.classes}. To train a new classifier on its features "
            "set reset_classifier=true."
        )
    source, conversion = checkpoint.network, (theirs.in_channels, spec.in_channels)
    theirs_by_name = dict(source.named_parameters())
    if spec.in_channels != theirs.in_channels:
        if conversion not in CONVERSIONS:
            raise CheckpointError(
                f"{name}: is for images of {count(theirs.in_channels, 'channel')}, the configuration for {spec.in_channels}. "
                f"Set in_channels={theirs.in_channels}, or take another file."
            )
        log.info("%s: %s", name, CONVERSIONS[conversion])
    of_norms = {id(parameter) for norm in network.norms.values() for parameter in norm.parameters()} if alone else set()
    traced = isinstance(spec, GraphSpec)
    resized = _resized(network, source, name, reset_classifier) if traced else set()
    for path, parameter in network.named_parameters():
        classifies = path in resized if traced else reset_classifier and path.startswith("classifier.")
        skipped = ".bn." in path or id(parameter) in of_norms or classifies
        if not skipped:
            weight = theirs_by_name[path]
            parameter.copy_(weight if weight.shape == parameter.shape else for_channels(weight, spec.in_channels))
    for plan in spec.plans:
        if alone:
            _adopt_scales(network, source, plan, source.spec.plans[0])
        if plan in source.known_plans and source.has_statistics(plan):
            adopt_norms(network, source, plan)


def _resized(network: SlimmableNetwork, source: SlimmableNetwork, name: str, reset_classifier: bool) -> set[str]:
    """The parameters of a user's module that another number of classes makes different, in their first dimension.
    CheckpointError where others differ but by the channels of images, and where these do and the classifier is kept."""
    own, theirs = ({key: p.shape for key, p in part.named_parameters()} for part in (network, source))
    channels = source.spec.in_channels, network.spec.in_channels
    differing = {
        key
        for key, shape in own.items()
        if key in theirs
        and shape != theirs[key]
        and not (len(shape) == 4 and (theirs[key][1], shape[1]) == channels and theirs[key][2:] == shape[2:])
    }
    wrong = [key for key in sorted(differing) if not reset_classifier or own[key][1:] != theirs[key][1:]]
    if network.spec.family == source.spec.family:  # of others norms are called otherwise
        wrong += sorted(own.keys() ^ theirs.keys())
    if wrong:
        raise CheckpointError(
            f"{name}: holds another {network.spec.name} than the module is now: {some(wrong)} differ. Take the module that it "
            "was made of, or a file of this one."
        )
    return differing


def _lists_of_one_module(spec: WidthSpec, theirs: WidthSpec) -> bool:
    """Whether an AutoSlim network is that of the module whose universally slimmable one the checkpoint holds."""
    if not isinstance(spec, GraphSpec) or not isinstance(theirs, GraphSpec):
        return False
    alike = (spec.model, spec.graph, spec.groups.sizes) == (theirs.model, theirs.graph, theirs.groups.sizes)
    return alike and (spec.family, theirs.family) == ("autoslim", "us")


@torch.no_grad()
def adopt_lists(network: SlimmableNetwork, source: SlimmableNetwork) -> None:
    """Give an AutoSlim network of a user's module what the universally slimmable `source` of the same graph has at its plans:
    weights, scales and shifts, and statistics, where it has some."""
    body, theirs = network.body, source.body
    for name in body.places:
        body.stored(name).copy_(theirs.stored(name))
    for plan in network.spec.plans:
        _adopt_scales(network, source, plan, plan)
        if plan in source.known_plans and source.has_statistics(plan):
            adopt_norms(network, source, plan)


def _adopt_scales(network: SlimmableNetwork, source: SlimmableNetwork, plan: ChannelPlan, theirs: ChannelPlan) -> None:
    """Scales and shifts of `plan`: the leading ones of the plan that `source` has."""
    with network.at(plan), source.at(theirs):
        for path, norm in network.norms.items():
            for own, other in zip(norm.scale_and_shift(), source.norms[path].scale_and_shift(), strict=True):
                own.copy_(other if len(other) == len(own) else take(other, 0, norm.kept))


@torch.no_grad()
def adopt_norms(network: SlimmableNetwork, source: SlimmableNetwork, plan: ChannelPlan) -> None:
    """Copy scales, shifts and statistics of a `plan` that both know; they become those that the layout of `network` stores."""
    with network.at(plan), source.at(plan):
        for path, norm in network.norms.items():
            theirs = source.norms[path]
            for own, other in zip(norm.scale_and_shift(), theirs.scale_and_shift(), strict=True):
                own.copy_(other)
            stored = norm.stored()
            assert stored is not None and stored.running_mean is not None and stored.running_var is not None
            for own, other in zip((stored.running_mean, stored.running_var), theirs.statistics(), strict=True):
                own.copy_(other)


def _architecture(spec: WidthSpec) -> str:
    """What a network is without its family."""
    return spec.name.removeprefix(f"{spec.family}_")
