"""Plan files: a channel plan group by group, as YAML. No torch."""

from __future__ import annotations

import re
from pathlib import Path

from slimtrain.channels import ChannelPlan
from slimtrain.errors import UserError, WidthError, nearest
from slimtrain.published_config import load_yaml
from slimtrain.spec import NetworkSpec

PLAN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def read_plan_file(path: Path, spec: NetworkSpec) -> ChannelPlan:
    """A plan from a YAML file: group to channels, either at the top or under `channels:` beside `network:` and
    `name:`. UserError or WidthError where it is not one of this network's."""
    content = load_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a YAML mapping of channel groups to channels.")
    name = path.stem
    channels = content
    if "channels" in content:
        channels = content["channels"]
        name = str(content.get("name", name))
        made_for = content.get("network", spec.name)
        if made_for != spec.name:
            raise WidthError(f"{path}: is a plan for {made_for}, the checkpoint is a {spec.name}.")
        if not isinstance(channels, dict):
            raise UserError(f"{path}: `channels` is {channels!r}, expected a mapping of channel groups to channels.")
    elif not content.keys() & spec.widest.channels.keys():
        first = str(next(iter(content), ""))
        raise WidthError(
            f"{path}: names no channel group of {spec.name}{nearest(first, spec.widest.channels)}. Its groups are "
            f"{', '.join(spec.widest.channels)}."
        )
    if not PLAN_NAME.fullmatch(name):
        raise UserError(f"{path}: the plan's name {name!r} goes into file names: letters, digits, - and _ only.")
    return spec.plan_from_channels(name, channels)
