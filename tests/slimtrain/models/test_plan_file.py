"""Plan files written and read, for the network itself and for its sibling of the other family."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from slimtrain.base.errors import WidthError
from slimtrain.base.image_size import ImageSize
from slimtrain.costs.cost import CostCounter
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.plan_file import WrittenMacs, read_plan_file, us_groups, write_plan_file, written_macs
from slimtrain.models.published import published_spec
from slimtrain.models.spec import NetworkSpec
from tests.support.plan_files import AUTOSLIM, V2, edited, supernet, us_plan, write_plan, write_published
from tests.support.slimtrain_states import layout


def test_a_plan_is_read_back_with_what_its_writer_added(tmp_path: Path) -> None:
    plan = ChannelPlan("macs_150M", {**V2.plan(0.5).channels, "features.3.expand": 56})
    path = tmp_path / "plans" / "macs_150M.yml"
    write_plan(path, V2, plan, 128, error=0.25, target=150_000_000, cost="macs")
    again = read_plan_file(path, V2)
    assert (again, again.name, again.width) == (plan, "macs_150M", None)
    content = yaml.safe_load(path.read_text())
    assert list(content) == ["network", "name", "macs", "params", "image_size", "error", "target", "cost", "channels"]
    assert (content["network"], content["image_size"], content["error"]) == ("us_mobilenet_v2", 128, 0.25)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("network", AUTOSLIM)
def test_the_macs_of_a_plan_are_those_of_its_list(network: str, tmp_path: Path) -> None:
    """Published figures count the pools too: one per element that the last one reads."""
    names = write_published(tmp_path, network)
    pools = [channel_list[-1] * 49 for channel_list in published_spec(network).channel_lists]
    macs = [yaml.safe_load((tmp_path / f"{name}.yml").read_text())["macs"] for name in names]
    assert [m + p for m, p in zip(macs, pools, strict=True)] == list(layout(network)["macs"].values())


@pytest.mark.parametrize("network", AUTOSLIM)
def test_a_us_plan_is_one_of_the_autoslim_sibling(network: str, tmp_path: Path) -> None:
    """As `slimexport --channels` reads it with a checkpoint of the found networks: it is the switch."""
    spec = published_spec(network)
    for name, switch in zip(write_published(tmp_path, network), spec.plans, strict=True):
        plan = read_plan_file(tmp_path / f"{name}.yml", spec)
        assert (plan, plan.name, plan.width) == (switch, name, switch.width)


def test_an_autoslim_plan_is_one_of_the_us_sibling(tmp_path: Path) -> None:
    spec = supernet("mobilenet_v1")
    path = tmp_path / "a.yml"
    write_plan(path, spec, spec.plan(0.5), 224)
    assert read_plan_file(edited(path, network="autoslim_mobilenet_v1"), spec) == spec.plan(0.5)


def test_groups_that_the_sibling_ties_must_agree(tmp_path: Path) -> None:
    lists = [list(published_spec("autoslim_mobilenet_v2").channel_lists[0])]
    alone = NetworkSpec("mobilenet_v2", "autoslim", (1,), 1000, (tuple(lists[0]),))
    assert alone.wiring.groups[1] == "features.0"  # 8 and 8 channels: this block sums, in the published network it does not
    plan = us_plan("mobilenet_v2", "p", tuple(lists[0]))
    write_plan(tmp_path / "p.yml", V2, plan, 224)
    assert read_plan_file(tmp_path / "p.yml", alone) == alone.plans[0]
    edited(tmp_path / "p.yml", channels={**plan.channels, "features.1": 16})
    with pytest.raises(WidthError, match=r"group features\.1 has 16 channels and features\.0 8: this autoslim_"):
        read_plan_file(tmp_path / "p.yml", alone)


@pytest.mark.parametrize("other", ["us_mobilenet_v1", "s_mobilenet_v2", "autoslim_mnasnet", "vgg", 3])
def test_a_plan_of_another_network_is_refused(other: object, tmp_path: Path) -> None:
    write_plan(tmp_path / "p.yml", V2, V2.plan(0.5), 224)
    edited(tmp_path / "p.yml", network=other)
    with pytest.raises(WidthError, match=f"is a plan for {other}, the checkpoint is a us_mobilenet_v2"):
        read_plan_file(tmp_path / "p.yml", V2)


def test_an_s_network_has_no_sibling_whose_plans_it_takes(tmp_path: Path) -> None:
    spec = published_spec("s_mobilenet_v1")
    write_plan(tmp_path / "p.yml", supernet("mobilenet_v1"), supernet("mobilenet_v1").plan(0.5), 224)
    with pytest.raises(WidthError, match="is a plan for us_mobilenet_v1, the checkpoint is a s_mobilenet_v1"):
        read_plan_file(tmp_path / "p.yml", spec)


@pytest.mark.parametrize("architecture", ["mobilenet_v1", "mobilenet_v2", "mnasnet", "resnet50"])
def test_us_groups_do_not_depend_on_the_range(architecture: str) -> None:
    for low, high in itertools.combinations((0.05, 0.1, 0.15, 0.3, 1.0, 1.5, 4.0), 2):
        assert NetworkSpec(architecture, "us", (low,), width_range=(low, high)).wiring.groups == us_groups(architecture)


@pytest.mark.parametrize(("image_size", "channels"), [(64, 3), ((64, 96), 3), ((96, 64), 1), (64, 4)])
def test_the_images_of_its_macs_are_written_and_read(image_size: ImageSize, channels: int, tmp_path: Path) -> None:
    spec = replace(V2, in_channels=channels)
    cost = CostCounter(spec, image_size)(spec.plan(0.5))
    write_plan_file(tmp_path / "a.yml", spec, spec.plan(0.5), image_size, cost)
    assert written_macs(tmp_path / "a.yml") == WrittenMacs(cost.macs, image_size, channels)
    content = yaml.safe_load((tmp_path / "a.yml").read_text())
    assert content["image_size"] == (list(image_size) if isinstance(image_size, tuple) else image_size)
    assert content.get("in_channels", 3) == channels and ("in_channels" in content) == (channels != 3)


@pytest.mark.parametrize("change", [{"image_size": None}, {"image_size": [1]}, {"macs": 0}, {"macs": True}, {"macs": "12"}])
def test_macs_that_are_not_clear_are_none(change: dict[str, object], tmp_path: Path) -> None:
    write_plan(tmp_path / "a.yml", V2, V2.plan(0.5), 64)
    assert written_macs(tmp_path / "a.yml") is not None
    assert written_macs(edited(tmp_path / "a.yml", **change)) is None
