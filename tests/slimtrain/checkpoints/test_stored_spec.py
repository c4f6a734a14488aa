"""Checkpoints of traced networks: everything comes back, and edited ones are refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from slimtrain.base.errors import CheckpointError
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.checkpoints.own_layout import own_content
from slimtrain.checkpoints.writing import save
from slimtrain.groups.spec import GraphSpec
from slimtrain.slimmable.calibrate import calibrate
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.tracing.slimmed import make_slimmable
from slimtrain.tracing.starting import at_lists
from tests.support.user_networks import NETWORKS, images, network, outputs

MEAN = STD = (0.5, 0.5, 0.5)


def slimmable(name: str) -> SlimmableNetwork:
    result = make_slimmable(network(name), images(2), widths=(0.25, 0.5, 1.0))
    calibrate(result, [result.plan(0.5), result.plan(0.3)], [images(8)])
    return result


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_comes_back_from_its_file(name: str, tmp_path: Path) -> None:
    before = slimmable(name)
    save(own_content(before, 16, MEAN, STD), tmp_path / "net.pt")
    after = open_checkpoint(tmp_path / "net.pt").network
    assert after.spec == before.spec and after.state_dict().keys() == before.state_dict().keys()
    for width in (0.3, 0.5, 1.0):
        plan = before.plan(width)
        with before.at(plan), after.at(plan), torch.no_grad():
            for ours, theirs in zip(outputs(after(images(2))), outputs(before(images(2))), strict=True):
                assert torch.equal(ours, theirs)


def change(path: tuple[str | int, ...], value: object) -> Callable[[dict[str, Any]], None]:
    def apply(content: dict[str, Any]) -> None:
        place: Any = content["network"]
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return apply


def rename_group(content: dict[str, Any]) -> None:
    groups = content["network"]["groups"]
    groups["mine"] = groups.pop(next(iter(groups)))


EDITS = {
    "an operator that opens files": change(("graph", "nodes", 0, 1), "from_file"),
    "an operator that writes to its input": change(("graph", "nodes", 0, 1), "relu_"),
    "no operator": change(("graph", "nodes", 0, 1), "conv9d"),
    "an overload that is none": change(("graph", "nodes", 0, 1), "conv2d.hidden"),
    "an argument that it has not": change(("graph", "nodes", 0, 2, "path"), "/etc/passwd"),
    "another group": rename_group,
    "another policy": change(("policy", "heads"), "sideways"),
    "a width above 1": change(("switches",), [0.5, 2.0]),
    "no widths": change(("switches",), []),
    "a family that is none": change(("family",), "autoslim"),
    "a huge parameter": change(("graph", "parameters", 0, 2, 0), [2**40, 2**20]),
    "no graph": change(("graph",), {}),
    "no constants": change(("constants",), None),
}


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    return own_content(slimmable("gate"), 16, MEAN, STD)


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_file_is_refused_in_one_message(edit: str, content: dict[str, Any], tmp_path: Path) -> None:
    edited = copy.deepcopy(content)
    EDITS[edit](edited)
    torch.save(edited, tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match=r"net\.pt: "):
        open_checkpoint(tmp_path / "net.pt")


def test_weights_of_another_shape_are_refused(content: dict[str, Any], tmp_path: Path) -> None:
    edited = copy.deepcopy(content)
    key = next(key for key in edited["model"] if key.endswith("weight"))
    edited["model"][key] = edited["model"][key][:-1]
    torch.save(edited, tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match="wrong shape"):
        open_checkpoint(tmp_path / "net.pt")


@pytest.fixture(scope="module")
def planned() -> SlimmableNetwork:
    """An AutoSlim network of two lists."""
    before = slimmable("gate")
    assert isinstance(before.spec, GraphSpec)
    sizes = before.spec.groups.sizes
    lists = [{group: max(size // part, 1) for group, size in sizes.items()} for part in (3, 1)]
    return at_lists(before, lists)


def test_an_autoslim_network_comes_back_with_its_lists(planned: SlimmableNetwork, tmp_path: Path) -> None:
    save(own_content(planned, 16, MEAN, STD), tmp_path / "net.pt")
    after = open_checkpoint(tmp_path / "net.pt").network
    assert after.spec == planned.spec and after.spec.channel_lists == planned.spec.channel_lists != ()
    for plan in planned.spec.plans:
        with planned.at(plan), after.at(plan), torch.no_grad():
            assert torch.equal(after(images(2)), planned.eval()(images(2)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("channel_lists", []),
        ("channel_lists", [[1, 2]]),
        ("channel_lists", [[10**6] * 3, [1] * 3]),
        ("channel_lists", [[1.5] * 3, [1] * 3]),
        ("channel_lists", 3),
        ("switches", [1]),
        ("switches", [2, 1]),
        ("width_range", [0.5, 1.0]),
        ("family", "us"),
    ],
)
def test_edited_lists_are_refused(key: str, value: object, planned: SlimmableNetwork, tmp_path: Path) -> None:
    edited = copy.deepcopy(own_content(planned, 16, MEAN, STD))
    edited["network"][key] = value
    torch.save(edited, tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match=r"net\.pt: "):
        open_checkpoint(tmp_path / "net.pt")
