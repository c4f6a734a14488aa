"""A folder of plans turned into the AutoSlim network that trains them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from slimtrain.base.errors import UserError, WidthError
from slimtrain.config.config import Config
from slimtrain.config.reading import read_config
from slimtrain.costs.cost import CostCounter, format_macs
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.published import published_spec
from slimtrain.models.spec import NetworkSpec
from slimtrain.search.from_plans import PlannedNetwork, plans_config, read_plans, wiring_changes
from tests.support.plan_files import AUTOSLIM, V2, edited, supernet, write_plan, write_published
from tests.support.run_helpers import config as tiny
from tests.support.slimtrain_states import layout


@pytest.mark.parametrize("network", AUTOSLIM)
def test_the_plans_of_a_folder_become_switches_ascending_in_macs(network: str, tmp_path: Path) -> None:
    names = write_published(tmp_path, network)
    config, notes = plans_config(read_config(network), tmp_path)
    assert config == Config(**{**vars(read_config(network)), "channel_lists": published_spec(network).channel_lists})
    assert [note.split(",")[0] for note in notes] == [f"switch {i}: {name}" for i, name in enumerate(names, 1)]
    assert config.spec(1000) == published_spec(network)


def test_the_line_of_a_switch_tells_its_macs(tmp_path: Path) -> None:
    write_published(tmp_path, "autoslim_mobilenet_v2")
    _, notes = plans_config(read_config("autoslim_mobilenet_v2"), tmp_path)
    assert notes == ["switch 1: plan_10, 206.8M MACs", "switch 2: plan_9, 305.1M MACs", "switch 3: plan_8, 504.9M MACs"]


def test_macs_are_those_of_as_many_classes_as_the_data_has(tmp_path: Path) -> None:
    """Which are not known before it is open: the files tell, or no figure is shown, or a wrong order taken."""
    spec = NetworkSpec("mobilenet_v1", "us", (0.125, 0.25), 10, width_range=(0.125, 0.25), stem_stride=1)
    few, many = dict(spec.plan(0.25).channels), dict(spec.plan(0.25).channels)
    few["features.13"], many["features.3"] = 128, 16  # with 1,000 classes the last layer would weigh most
    for name, channels in (("few", few), ("many", many)):
        write_plan(tmp_path / "plans" / f"{name}.yml", spec, ChannelPlan(name, channels), 16, stem_stride=1)
    count = CostCounter(spec, 16)
    macs = {name: count(ChannelPlan(name, channels)).macs for name, channels in (("few", few), ("many", many))}
    thousand = CostCounter(replace(spec, classes=1000), 16)
    assert macs["many"] < macs["few"]
    assert thousand(ChannelPlan("m", many)).macs > thousand(ChannelPlan("f", few)).macs
    config, notes = plans_config(tiny(tmp_path), tmp_path / "plans")
    assert notes == [f"switch 1: many, {format_macs(macs['many'])} MACs", f"switch 2: few, {format_macs(macs['few'])} MACs"]
    assert plans_config(tiny(tmp_path, classes=10), tmp_path / "plans") == (replace(config, classes=10), notes)
    other_size = plans_config(tiny(tmp_path, image_size=32), tmp_path / "plans")[1]
    assert sorted(note.split(": ")[1] for note in other_size) == ["few", "many"]


def test_one_plan_is_trained_alone(tmp_path: Path) -> None:
    write_published(tmp_path, "autoslim_resnet50")
    config, notes = plans_config(read_config("autoslim_resnet50"), tmp_path, "plan_8")
    assert config.channel_lists == published_spec("autoslim_resnet50").channel_lists[2:3]
    macs = layout("autoslim_resnet50")["macs"]["3"] - 2016 * 49  # without the pool
    assert notes == [f"switch 1: plan_8, {macs / 1e9:.4g}G MACs"]
    assert plans_config(read_config("autoslim_resnet50"), tmp_path / "plan_8.yml")[0] == config


def test_what_is_for_the_us_network_alone_is_left_behind(tmp_path: Path) -> None:
    us = tiny(tmp_path, nonuniform=True, weights="us.pt", best_by="0.25", seed=4)
    plan = NetworkSpec("mobilenet_v1", "us", (0.125, 0.25), 10, width_range=(0.125, 0.25)).plan(0.1875)
    write_plan(tmp_path / "p.yml", supernet("mobilenet_v1"), plan, 16)
    config, _ = plans_config(us, tmp_path)
    assert (config.network, config.channel_lists) == ("autoslim_mobilenet_v1", (tuple(plan.channels.values()),))
    assert (config.width_range, config.test_widths, config.nonuniform) == ((), (), False)
    assert (config.weights, config.best_by) == ("", "widest")
    same = ("data", "image_size", "stem_stride", "batch_size", "epochs", "calibration_batches", "mean", "seed", "output_dir")
    assert [getattr(config, key) for key in same] == [getattr(us, key) for key in same]


def test_plans_with_the_same_channels_are_trained_once(tmp_path: Path) -> None:
    for name, width in (("b", 0.5), ("a", 0.5), ("c", 0.25)):
        write_plan(tmp_path / f"{name}.yml", V2, ChannelPlan(name, V2.plan(width).channels), 224)
    config, notes = plans_config(read_config("autoslim_mobilenet_v2"), tmp_path)
    assert len(config.channel_lists) == 2
    assert notes[0] == "b is the same network as a: it is trained once"
    assert [note.split(",")[0] for note in notes[1:3]] == ["switch 1: c", "switch 2: a"]


def test_a_plan_of_no_range_is_read(tmp_path: Path) -> None:
    """Wider than the configuration's own search would go."""
    wide = NetworkSpec("mobilenet_v1", "us", (3.0,), width_range=(0.25, 3.0))
    write_plan(tmp_path / "wide.yml", wide, wide.plan(3.0), 224)
    assert plans_config(read_config("autoslim_mobilenet_v1"), tmp_path)[0].channel_lists == (wide.channel_list(3.0),)


@pytest.mark.parametrize("other", ["us_mobilenet_v1", "s_mobilenet_v2", "autoslim_mnasnet", "vgg", 3])
def test_a_plan_of_another_network_is_refused(other: object, tmp_path: Path) -> None:
    write_plan(tmp_path / "p.yml", V2, V2.plan(0.5), 224)
    edited(tmp_path / "p.yml", network=other)
    with pytest.raises(WidthError, match=f"is a plan for {other}, the configuration trains autoslim_mobilenet_v2"):
        read_plans(tmp_path, PlannedNetwork.published("autoslim_mobilenet_v2"))


def test_bad_folders_of_plans(tmp_path: Path) -> None:
    config = read_config("autoslim_mobilenet_v2")
    with pytest.raises(UserError, match=r"plans .*nowhere: no such folder\. The search writes it"):
        plans_config(config, tmp_path / "nowhere")
    (tmp_path / "trace.csv").write_text("step\n")
    with pytest.raises(UserError, match=r"holds no plan files"):
        plans_config(config, tmp_path)
    write_plan(tmp_path / "macs_150M.yml", V2, ChannelPlan("macs_150M", V2.plan(0.5).channels), 224)
    with pytest.raises(UserError, match=r"plan 'macs_150m': .* has macs_150M \(did you mean 'macs_150M'\?\)"):
        plans_config(config, tmp_path, "macs_150m")
    write_plan(tmp_path / "copy.yaml", V2, ChannelPlan("macs_150M", V2.plan(0.6).channels), 224)
    with pytest.raises(UserError, match=r"macs_150M\.yml: another plan of .* is called 'macs_150M' too"):
        plans_config(config, tmp_path)
    with pytest.raises(UserError, match="there is no autoslim_shufflenet"):
        plans_config(read_config("s_shufflenet"), tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"features.3": 0}, r"group features\.3 has 0 channels, expected a whole number from 1 to"),
        ({"features.3": True}, r"group features\.3 has True channels"),
        ({"features.3": 8.0}, r"group features\.3 has 8\.0 channels"),
        ({"features.5": 10**9}, r"group features\.5 has 1000000000 channels, expected a whole number from 1 to"),
        ({"features.2": None}, r"channels are missing for features\.2"),
        ({"features.33": 8}, r"has no channel group 'features\.33' \(did you mean"),
    ],
)
def test_bad_channels(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    channels = {**supernet("mobilenet_v1").plan(0.5).channels}
    changed = {group: count for group, count in {**channels, **change}.items() if count is not None}
    (tmp_path / "p.yml").write_text(yaml.safe_dump({"network": "us_mobilenet_v1", "name": "p", "channels": changed}))
    with pytest.raises(WidthError, match=words):
        read_plans(tmp_path, PlannedNetwork.published("autoslim_mobilenet_v1"))


# ------------------------------------------------------------------------------------------------------------ wiring


@pytest.mark.parametrize("network", AUTOSLIM)
def test_the_published_networks_are_wired_as_their_us_siblings(network: str) -> None:
    assert wiring_changes(published_spec(network)) == []


def test_counts_that_agree_by_chance_are_told(tmp_path: Path) -> None:
    write_published(tmp_path, "autoslim_mobilenet_v2")
    config, notes = plans_config(read_config("autoslim_mobilenet_v2"), tmp_path, "plan_10")
    assert len(notes) == 2
    assert notes[1].startswith("warning: features.1 has as many channels as features.0 wherever it is trained, so this")
    blocks = config.spec(1000).wiring.blocks
    assert blocks[0].residual and not V2.wiring.blocks[0].residual  # type: ignore[attr-defined]


def test_an_expansion_that_is_none_is_told(tmp_path: Path) -> None:
    spec = supernet("mnasnet")
    plan = ChannelPlan("p", {**spec.plan(1.0).channels, "features.3.expand": 24})  # reads features.2, of 24 channels
    write_plan(tmp_path / "p.yml", spec, plan, 224)
    config, notes = plans_config(read_config("autoslim_mnasnet"), tmp_path)
    assert len(notes) == 2 and "features.3.expand has as many channels as features.2" in notes[1]
    assert "does without its expansion" in notes[1]
    block = config.spec(1000).wiring.blocks[2]
    assert block.hidden == block.inp  # type: ignore[attr-defined]
