"""Graphs as bodies: what layers read, stages, copies."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimtrain.graph.graph import Node, Value
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.spec import NetworkSpec
from slimtrain.search.prefix import SharedPrefix
from slimtrain.slimmable.calibrate import calibrate
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.slimmable.stages import StageInput
from slimtrain.tracing.slimmed import make_slimmable
from tests.support.run_helpers import network_of, noise
from tests.support.user_networks import NETWORKS, images, network, outputs


class Branches(nn.Module):
    """Branches whose activations run after all of them began."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.a, self.b, self.c = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 24, 1), nn.Conv2d(24, 16, 1)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.stem(x))
        a, b = self.a(x), self.b(x)
        a, b = F.silu(a), F.silu(b)
        return self.head((a + self.c(b)).mean((2, 3)))


def candidates(slimmable: SlimmableNetwork) -> list[ChannelPlan]:
    """The widest plan, and from it every group a quarter narrower."""
    widest = slimmable.spec.widest
    narrower = [{**widest.channels, name: max(1, size * 3 // 4)} for name, size in widest.channels.items()]
    return [widest, *(ChannelPlan(str(i), channels) for i, channels in enumerate(narrower))]


@pytest.mark.parametrize("name", [*NETWORKS, "branches"])
def test_plans_that_share_their_first_stages_give_the_same_bits(name: str) -> None:
    slimmable = make_slimmable(Branches() if name == "branches" else network(name), images(2))
    plans = candidates(slimmable)
    calibrate(slimmable, plans, [images(8)])
    prefix, x = SharedPrefix(slimmable), images(3)
    assert frozenset().union(*(stage.groups for stage in prefix.stages)) == plans[0].channels.keys()
    with torch.inference_mode():
        for number, logits in prefix.sweep(plans[0], plans, x):
            with slimmable.at(plans[number]):
                expected = slimmable(x)
            assert all(torch.equal(a, b) for a, b in zip(outputs(logits), outputs(expected), strict=True))


def test_a_stage_with_groups_leaves_what_it_is_given() -> None:
    slimmable = make_slimmable(Branches(), images(2))
    given = StageInput(images(3))
    with torch.no_grad():
        for stage in slimmable.body.stages():
            before = [t.clone() if isinstance(t, Tensor) else t for t in given.x]
            read, given = given, stage.run(given)
            for old, tensor in zip(before, read.x, strict=True):
                assert old is tensor or (isinstance(old, Tensor) and torch.equal(old, tensor))


@pytest.mark.parametrize("architecture", ["mobilenet_v2", "shufflenet"])
@pytest.mark.parametrize("width", [0.25, 0.5])
def test_layers_read_the_leading_corners_of_their_weights(architecture: str, width: float) -> None:
    """Of published networks: convolutions, depthwise ones channel by channel, and the classifier, on what they really read."""
    spec = NetworkSpec(architecture, "s", (0.25, 0.5), 5)
    slimmable, x = network_of(spec).double(), noise(2, 64).double()
    state, plan, body = slimmable.state_dict(), spec.plan(width), slimmable.body
    layers = 0
    with torch.no_grad(), slimmable.at(plan):
        slots = body.begin(x)
        for index, node in enumerate(body.order.graph.nodes):
            given = slots[body.order.slots[node.inputs[0]]]
            body.run(slots, x, index, index + 1)
            if node.kind not in ("conv2d", "linear"):
                continue
            layers += 1
            result, weight = slots[body.order.slots[Value(node.name)]], state[f"{node.module}.weight"]
            if node.kind == "linear":
                expected = given @ weight[:, : given.shape[1]].T + state[f"{node.module}.bias"]
            elif node.arguments["groups"] != 1:
                parts = given.split(1, 1)
                alone = [F.conv2d(part, weight[i : i + 1], None, *window(node)) for i, part in enumerate(parts)]
                expected = torch.cat(alone, 1)
            else:
                corner = weight[: spec.sizing(plan).shape(Value(node.name))[1], : given.shape[1]]
                expected = F.conv2d(given, corner, None, *window(node))
            torch.testing.assert_close(result, expected, rtol=1e-11, atol=1e-11)
    assert layers > 50


def window(node: Node) -> list[Any]:
    return [list(node.arguments[name]) for name in ("stride", "padding")]  # type: ignore[arg-type]


def test_copies_and_files_run_their_own_tensors() -> None:
    slimmable = make_slimmable(network("residual"), images(2))
    expected = slimmable(images(3))
    again = pickle.loads(pickle.dumps(slimmable))
    copied = copy.deepcopy(slimmable)
    with torch.no_grad():
        for parameter in slimmable.parameters():
            parameter.zero_()
    assert torch.equal(again(images(3)), expected) and torch.equal(copied(images(3)), expected)


def test_replaced_tensors_are_seen() -> None:
    """As torch.func does it, without another plan being made active."""
    slimmable = make_slimmable(Branches(), images(2))
    zeros = {name: torch.zeros_like(p) for name, p in slimmable.named_parameters()}
    assert torch.func.functional_call(slimmable, zeros, (images(2),)).abs().sum() == 0
    assert slimmable(images(2)).abs().sum() > 0


def test_another_number_of_inputs_is_refused() -> None:
    slimmable = make_slimmable(network("residual"), images(2))
    with pytest.raises(TypeError, match="2 inputs, expected 1"):
        slimmable.body(images(2), images(2))
