"""The weights that a detector's training starts from: a classifier's in its backbone, or another detector's.

Slimmable networks, ours and published ones, bring the norms of every width that both have. An ordinary network's weights
(torchvision's, timm's) have one width: their channels are put into the order of importance, as those of any network that is
made slimmable, and norms of narrower widths begin with the leading channels' scales and shifts, without statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from slimtrain.base.errors import CheckpointError, UserError
from slimtrain.base.text import some
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.checkpoints.files.shards import checkpoint_sha256
from slimtrain.checkpoints.identify import is_published_detector
from slimtrain.checkpoints.layout import check_values
from slimtrain.checkpoints.own_layout import is_own
from slimtrain.checkpoints.reading import read_content
from slimtrain.checkpoints.skeleton import ALIKE, likeness
from slimtrain.checkpoints.weights import find_weights
from slimtrain.detection.foreign_weights import classifier_names, is_without_eps, ordinary_weights
from slimtrain.detection.freezing import BODY
from slimtrain.detection.published import published_detector
from slimtrain.graph.policy import ORDERS
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.channels import ChannelPlan, width_label
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.slimmable.norms import RUNNING
from slimtrain.slimmable.plan_positions import take
from slimtrain.tracing.slimmed import load_tensors, ordered

# The layers that classes decide on, and heads that a detector of fewer kinds lacks: what may be left out of a detector's.
LAST = ("_predictor.", "classification_head.cls_logits.", "classification_head.module_list.")
HEADS = ("roi_heads.mask_", "roi_heads.keypoint_")
Names = Callable[[str], str]


def load_pretrained(network: SlimmableNetwork, path: str | Path, order: str = ORDERS[0], weights: str | None = None) -> str:
    """Give a slimmable detector the weights in a file: a slimmable classifier's of its backbone (published, or ours), a
    classifier's or detector's state dict of torchvision or timm, or a slimmable detector's (published, or ours). What was
    loaded, and what begins anew, as a line.

    All of the backbone is loaded, and of a detector's neck and heads whatever fits: all, all but the layers of other classes,
    or nothing. `order`: of an ordinary network's channels. `weights`: which of several sets in the file. CheckpointError where
    the backbone does not fit, UserError where norms are frozen that it has no statistics for.
    """
    path = Path(path)
    name = path.name
    content = read_content(path)
    if is_own(content):
        return _from_slimmable(network, open_checkpoint(path, weights=weights).network, name)
    state = find_weights(content, name, weights).state
    if is_published_detector(state):
        return _from_slimmable(network, published_detector(state, name).network, name)
    if likeness(state)[1] >= ALIKE:
        return _from_slimmable(network, open_checkpoint(path, weights=weights).network, name)
    check_values(state, name)
    without_eps = is_without_eps(checkpoint_sha256(path))
    line = _from_ordinary(network, ordinary_weights(network, state, without_eps), order, name)
    return f"{line}; its norms have no eps, which scales make up for" if without_eps else line


def same_name(name: str) -> str:
    return name


# ------------------------------------------------------------------------------------------------------ slimmable networks


@torch.no_grad()
def _from_slimmable(network: SlimmableNetwork, source: SlimmableNetwork, name: str) -> str:
    spec = source.spec
    detects = isinstance(spec, GraphSpec) and spec.detector is not None
    names = same_name if detects else classifier_names(source, name)
    shapes = {key: tuple(source.body.stored(key).shape) for key in source.body.places}
    shapes |= {path: _widest_shape(source, path) for path in source.norms}
    wanted = {
        key: tuple(network.body.stored(key).shape) for key in network.body.places if key not in network.spec.graph.constants
    }
    wanted |= {path: _widest_shape(network, path) for path in network.norms}
    taken, left = _fitting({key: shapes.get(names(key)) for key in wanted}, wanted, detects, name)
    for key in taken - network.norms.keys():
        network.body.stored(key).copy_(source.body.stored(names(key)))
    paths = {path: names(path) for path in network.norms if path in taken}
    begun = [plan for plan in network.spec.plans if not _norms_at(network, source, plan, paths)]
    _check_frozen(network, begun, name, paths)
    return (
        f"{name}: {spec.name}'s weights {_into(left, detects)}{_without_statistics(begun)}{_begins_anew(left, wanted.keys())}"
    )


def _widest_shape(network: SlimmableNetwork, path: str) -> tuple[int, ...]:
    return (network.spec.widest.size(network.norms[path].dim),)


def _norms_at(network: SlimmableNetwork, source: SlimmableNetwork, plan: ChannelPlan, paths: Mapping[str, str]) -> bool:
    """Give norms (path -> the source's) scales and shifts of the same width, with its statistics, or else the widest's leading
    ones. Whether there were statistics. A universally slimmable network has one scale and shift for all widths: the widest's.
    """
    shared = network.spec.family == "us" and plan != network.spec.widest
    theirs = None if shared and source.spec.family != "us" else _same_plan(network, source, plan, paths)
    with network.at(plan), source.at(theirs or max(source.spec.plans, key=lambda known: sum(known.channels.values()))):
        for own, path in paths.items():
            norm, other = network.norms[own], source.norms[path]
            for tensor, given in zip(norm.scale_and_shift(), other.scale_and_shift(), strict=True):
                if not shared:
                    tensor.copy_(given if len(given) == len(tensor) else take(given, 0, norm.kept))
            for tensor, given in zip(norm.statistics(), other.statistics(), strict=True):
                if theirs is not None:
                    tensor.copy_(given)
    return theirs is not None or not paths


def _same_plan(
    network: SlimmableNetwork, source: SlimmableNetwork, plan: ChannelPlan, paths: Mapping[str, str]
) -> ChannelPlan | None:
    """The source's plan of the same width and with the same channels in every norm, if there is one with statistics."""
    for known in source.known_plans:
        if known.width == plan.width and source.has_statistics(known):
            pairs = ((network.norms[own].dim, source.norms[path].dim) for own, path in paths.items())
            return known if all(plan.size(own) == known.size(theirs) for own, theirs in pairs) else None
    return None


# ------------------------------------------------------------------------------------------------------- ordinary networks


@torch.no_grad()
def _from_ordinary(network: SlimmableNetwork, given: Mapping[str, Tensor], order: str, name: str) -> str:
    """`given`: under the network's names for them."""
    spec = network.spec
    assert isinstance(spec, GraphSpec)
    own = _tensors(network)
    detects = any(not key.startswith(BODY) for key in given)
    wanted = {key: tuple(tensor.shape) for key, tensor in own.items() if key not in spec.graph.constants}
    taken, left = _fitting({key: tuple(given[key].shape) if key in given else None for key in wanted}, wanted, detects, name)
    tensors = {key: given[key].to(tensor.dtype) if key in taken else tensor for key, tensor in own.items()}
    load_tensors(network, ordered(spec.graph, spec.groups, tensors, order))
    begun = [plan for plan in spec.plans if plan != spec.widest] if network.norms else []
    _check_frozen(network, begun, name, network.norms)
    kind = "a detector's" if detects else "an ordinary network's"
    return f"{name}: {kind} weights {_into(left, detects)}{_without_statistics(begun)}{_begins_anew(left, wanted.keys())}"


def _tensors(network: SlimmableNetwork) -> dict[str, Tensor]:
    """What the network's module would store at its widest, by the module's names."""
    spec, body = network.spec, network.body
    tensors = {key: body.stored(key) for key in body.places}
    widest = next((plan for plan in spec.plans if plan == spec.widest), spec.widest)
    with network.at(widest):
        for norm in body.of_nodes.values():
            module = network.norms[norm.path]
            entries = dict(zip(("weight", "bias", *RUNNING), (*module.scale_and_shift(), *module.statistics()), strict=True))
            tensors |= {stored.name: entries[entry] for entry, stored in norm.stored.items()}
    return {key: tensor.detach() for key, tensor in tensors.items()}


# --------------------------------------------------------------------------------------------------------- what fits, and says


def _fitting(
    given: Mapping[str, tuple[int, ...] | None], wanted: Mapping[str, tuple[int, ...]], detects: bool, name: str
) -> tuple[set[str], set[str]]:
    """What to take, and what begins anew. CheckpointError where something of the backbone is missing or has another shape."""
    missing = [key for key in wanted if given[key] is None]
    wrong = [key for key, shape in wanted.items() if given[key] not in (None, shape)]
    bad = [key for key in (*missing, *wrong) if key.startswith(BODY)]
    if bad:
        shown = [f"{key} is {list(given[key] or ())}, expected {list(wanted[key])}" for key in wrong if key in bad]
        lacking = [key for key in missing if key in bad]
        parts = [f"missing: {some(lacking)}"] * bool(lacking) + [f"wrong shape: {some(shown)}"] * bool(shown)
        raise CheckpointError(
            f"{name}: does not fit the detector's backbone. {'; '.join(parts)}. Expected weights of the same network (keys "
            "detector.backbone, depths, width, bottleneck), or of a detector on it."
        )
    rest = {key for key in wanted if not key.startswith(BODY)}
    if not detects:
        return wanted.keys() - rest, rest
    left = {*missing, *wrong}
    if any(not (any(part in key for part in LAST) or key.startswith(HEADS)) for key in left):
        left = rest
    return wanted.keys() - left, left


def _into(left: set[str], detects: bool) -> str:
    whole = any(key.startswith("backbone.fpn.") or key.startswith("backbone.extra.") for key in left) or not detects
    return "in the backbone" if whole else "in backbone, neck and heads"


def _without_statistics(begun: Sequence[ChannelPlan]) -> str:
    return f"; norms of {_widths(begun)} begin with its leading scales and shifts, without statistics" if begun else ""


def _widths(plans: Sequence[ChannelPlan]) -> str:
    return ", ".join(width_label(plan.width or 0) for plan in plans)


def _begins_anew(left: set[str], wanted: Iterable[str]) -> str:
    if left >= {key for key in wanted if not key.startswith(BODY)}:
        return "; neck and heads begin anew"
    return f"; begins anew: {some(sorted(left))}" if left else ""


def _check_frozen(network: SlimmableNetwork, begun: Sequence[ChannelPlan], name: str, paths: Iterable[str]) -> None:
    frozen = [path for path in paths if network.norms[path].frozen]
    if frozen and begun:
        raise UserError(
            f"{name}: has no statistics of {_widths(begun)}, and norms are frozen there: {some(frozen)}. Expected a slimmable "
            "network's file with these widths, or norms: switchable and frozen_stages: -1."
        )
