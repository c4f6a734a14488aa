"""What the tests of plan files share: the networks that a search slims, and published channel lists as plan files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from slimtrain.costs.cost import CostCounter
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.plan_file import write_plan_file
from slimtrain.models.published import published_spec
from slimtrain.models.spec import NetworkSpec

V2 = NetworkSpec("mobilenet_v2", "us", (0.15, 1.5), width_range=(0.15, 1.5))
AUTOSLIM = ("autoslim_mobilenet_v1", "autoslim_mobilenet_v2", "autoslim_mnasnet", "autoslim_resnet50")


def supernet(architecture: str, classes: int = 1000) -> NetworkSpec:
    return NetworkSpec(architecture, "us", (0.15, 1.5), classes, width_range=(0.15, 1.5))


def us_plan(architecture: str, name: str, channel_list: tuple[int, ...]) -> ChannelPlan:
    return supernet(architecture).wiring.plan(name, channel_list)


def write_published(folder: Path, network: str) -> list[str]:
    """The published channel lists as plan files of the US network, in no order by name; their names, ascending in MACs."""
    architecture = network.removeprefix("autoslim_")
    names = [f"plan_{10 - i}" for i in range(len(published_spec(network).channel_lists))]
    for name, channel_list in zip(names, published_spec(network).channel_lists, strict=True):
        plan = us_plan(architecture, name, channel_list)
        write_plan(folder / f"{name}.yml", supernet(architecture), plan, 224)
    return names


def edited(path: Path, **changes: Any) -> Path:
    """A plan file with other entries; None takes one out."""
    content = {**yaml.safe_load(path.read_text()), **changes}
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
    return path


def write_plan(path: Path, spec: NetworkSpec, plan: ChannelPlan, image_size: int, **facts: Any) -> None:
    """A plan file with its cost."""
    write_plan_file(path, spec, plan, image_size, CostCounter(spec, image_size)(plan), **facts)
