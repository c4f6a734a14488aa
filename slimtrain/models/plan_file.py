"""Plan files: a channel plan group by group, as YAML. No torch.

What the search finds is written so, what `--channels` and `train --plans` read. A plan of a universally slimmable network
is one of its AutoSlim sibling too: the groups are the same, but for those that the sibling ties (`tied`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from slimtrain.base.errors import UserError, WidthError, nearest
from slimtrain.base.files import RUN, write_atomically
from slimtrain.base.image_size import ImageSize, as_image_size, plain_size
from slimtrain.base.untrusted.quoting import quoted, shortened
from slimtrain.base.yaml_file import load_yaml
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.spec import IMAGE_CHANNELS, NetworkSpec
from slimtrain.models.width_spec import WidthSpec

PLAN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
MOST_NAME = 100  # letters, which become part of files' names
QUOTES = "'\""
SIBLINGS = ("us", "autoslim")


class PlanCost(Protocol):
    """What a plan costs at one image size, as `slimtrain.costs.cost.Cost` tells it: MACs, and parameters once norms are
    folded."""

    @property
    def macs(self) -> int: ...

    @property
    def params(self) -> int: ...


@dataclass(frozen=True)
class WrittenMacs:
    """Multiply-accumulates, and the images that they are for."""

    macs: int
    image_size: ImageSize
    in_channels: int


def write_plan_file(
    path: Path, spec: WidthSpec, plan: ChannelPlan, image_size: ImageSize, cost: PlanCost, /, **facts: Any
) -> None:
    """Write a plan of `spec` at once: network, name, channels, its `cost` for images of `image_size`, then `facts`,
    plain values. UserError where it cannot be written."""
    assert PLAN_NAME.fullmatch(plan.name), plan.name
    content = {
        "network": spec.name,
        "name": plan.name,
        "macs": cost.macs,
        "params": cost.params,
        "image_size": plain_size(image_size),
        **({} if spec.in_channels == IMAGE_CHANNELS else {"in_channels": spec.in_channels}),
        **facts,
        "channels": dict(plan.channels),
    }
    write_atomically(path, yaml.safe_dump(content, sort_keys=False).encode(), RUN)


def read_plan_file(path: Path, spec: WidthSpec) -> ChannelPlan:
    """A plan from a YAML file: group to channels, either at the top or under `channels:` beside `network:` and
    `name:`. UserError or WidthError where it is not one of this network's."""
    name, channels, sibling = read_channels(path, spec.name, tuple(spec.widest.channels), f"the checkpoint is a {spec.name}")
    if sibling and spec.family == "autoslim" and isinstance(spec, NetworkSpec):
        channels = tied(path, channels, spec)
    return spec.plan_from_channels(name, channels)


def read_channels(path: Path, network: str, groups: Collection[str], ours: str) -> tuple[str, dict[str, Any], bool]:
    """A plan file's name and channels, as they are, and whether it was made for the sibling of the `network` of this name.

    `groups` are the network's, none where they are not known yet; `ours` is what a message says of it. UserError where the
    file is no plan, or none for this architecture.
    """
    content = load_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a YAML mapping of channel groups to channels.")
    name, channels, sibling = path.stem, content, False
    if "channels" in content:
        channels = content["channels"]
        name = shortened(str(content.get("name", name)), MOST_NAME + 1)
        planned_network = content.get("network", network)
        family, _, own = network.partition("_")
        related = [f"{sibling}_{own}" for sibling in SIBLINGS] if family in SIBLINGS else []
        sibling = planned_network != network
        if sibling and planned_network not in related:
            raise WidthError(f"{path}: is a plan for {quoted(planned_network).strip(QUOTES)}, {ours}.")
        if not isinstance(channels, dict):
            raise UserError(f"{path}: `channels` is {quoted(channels)}, expected a mapping of channel groups to channels.")
    elif groups and not content.keys() & set(groups):
        first = shortened(str(next(iter(content), "")))
        raise WidthError(
            f"{path}: names no channel group of {network}{nearest(first, groups)}. Its groups are {', '.join(groups)}."
        )
    if not PLAN_NAME.fullmatch(name) or len(name) > MOST_NAME:
        raise UserError(
            f"{path}: the plan's name {quoted(name)} goes into file names: letters, digits, - and _ only, {MOST_NAME} at most."
        )
    return name, channels, sibling


def written_macs(path: Path) -> WrittenMacs | None:
    """The MACs that a plan file's writer added to it; None where they are not told."""
    content = load_yaml(path)
    macs = content.get("macs") if isinstance(content, dict) else None
    try:
        size = as_image_size(content["image_size"])
    except (KeyError, TypeError, ValueError):
        return None
    if not isinstance(macs, int) or isinstance(macs, bool) or macs < 1:
        return None
    in_channels = content.get("in_channels", IMAGE_CHANNELS)
    return WrittenMacs(macs, size, in_channels) if type(in_channels) is int and in_channels > 0 else None


def tied(path: Path, channels: Mapping[str, Any], spec: NetworkSpec) -> dict[str, Any]:
    """Channels of a US network's groups as those of its AutoSlim sibling `spec`, in which some of them may be one.

    WidthError where these have different counts.
    """
    untied = us_groups(spec.architecture)
    names = dict(zip(untied, spec.wiring.groups, strict=True))
    merged: dict[str, Any] = {}
    for group, count in channels.items():
        name = names.get(group, group)
        if merged.setdefault(name, count) != count:
            raise WidthError(
                f"{path}: group {group} has {quoted(count)} channels and {name} {quoted(merged[name])}: this {spec.name} "
                "sums them, they have the same number."
            )
    return merged


def us_groups(architecture: str) -> tuple[str, ...]:
    """The group of every entry of the architecture's channel list, as its US network has them, whatever its range."""
    return NetworkSpec(architecture, "us", (1.0,), width_range=(1.0, 1.0)).wiring.groups
