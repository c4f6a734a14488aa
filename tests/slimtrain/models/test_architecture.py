"""Keys, shapes and order of the ten published networks are those of the stored layouts; wiring is decided by all plans."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from slimtrain.models.mobilenet_v2 import WiredBlock
from slimtrain.models.published import published_spec
from slimtrain.models.registry import ARCHITECTURES
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.module_layers import DenseLayers
from tests.support.slimtrain_states import PUBLISHED, empty_state, layout


@pytest.mark.parametrize("name", PUBLISHED)
def test_state_dict_is_the_published_one_key_for_key_in_order(name: str) -> None:
    with torch.device("meta"):
        state = SlimmableNetwork(published_spec(name)).state_dict()
    entries = [[key, list(t.shape), str(t.dtype).removeprefix("torch.")] for key, t in state.items()]
    assert entries == layout(name)["layout"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_switches_and_channel_lists_are_the_published_ones(name: str) -> None:
    spec, stored = published_spec(name), layout(name)
    assert list(spec.switches) == stored["switches"]
    if "channel_num_list" in stored:
        assert [[*channels, 1000] for channels in spec.channel_lists] == stored["channel_num_list"]
    if "width_mult_range" in stored:
        assert list(spec.range) == stored["width_mult_range"]
    # steps of 0.025 are the decimal numbers that users type, not sums that drift
    assert all(round(width, 3) == width for width in spec.switches)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_plan_gives_the_sizes_its_own_norms_have_in_the_published_file(name: str) -> None:
    spec, shapes = published_spec(name), {key: shape for key, shape, _ in layout(name)["layout"]}
    for index, plan in enumerate(spec.plans):
        with torch.device("meta"):
            dense = spec.build(DenseLayers(plan))
        norms = {path: m for path, m in dense.named_modules() if isinstance(m, nn.BatchNorm2d)}
        assert len(norms) > 20
        for path, norm in norms.items():
            stored = shapes.get(f"{path}.bn.{index}.running_mean") or shapes[f"{path}.running_mean"]
            assert [norm.num_features] == stored, f"{path} at {plan.name}"


@pytest.mark.parametrize("name", PUBLISHED)
def test_dense_networks_have_the_names_of_the_slimmable_one(name: str) -> None:
    spec = published_spec(name)
    with torch.device("meta"):
        dense = spec.build(DenseLayers(spec.plans[0]))
    slim = [key for key in empty_state(spec) if ".bn." not in key or ".bn.0." in key]
    slim = [key.replace(".bn.0.", ".") for key in slim]
    assert set(dense.state_dict()) == set(slim)


def residuals(spec: NetworkSpec) -> list[int]:
    blocks = [block for block in spec.wiring.blocks if isinstance(block, WiredBlock)]
    assert len(blocks) == 17
    return [i for i, block in enumerate(blocks, start=1) if block.residual]


def test_residual_sums_are_decided_by_all_switches() -> None:
    spec = published_spec("autoslim_mobilenet_v2")
    ends = [(channels[0], channels[1]) for channels in spec.channel_lists]
    assert ends == [(8, 8), (8, 8), (32, 16)]  # the trap: the first block's ends agree at two of the three switches
    assert 1 not in residuals(spec)
    assert residuals(spec) == [3, 5, 6, 8, 9, 10, 12, 13, 15, 16]
    # a network of only these two switches would have the sum
    alone = NetworkSpec("mobilenet_v2", "autoslim", (1, 2), 1000, spec.channel_lists[:2])
    assert 1 in residuals(alone)


def test_expansion_is_decided_by_all_switches() -> None:
    lists = published_spec("autoslim_mobilenet_v2").channel_lists
    same_at_one = (*lists[0][:2], 8, *lists[0][3:])  # block 2 keeps its 8 channels at this switch alone
    spec = NetworkSpec("mobilenet_v2", "autoslim", (1, 2), 1000, (same_at_one, lists[2]))
    assert "features.2.body.7.bn.0.weight" in empty_state(spec)
    nowhere = (*lists[2][:2], 16, *lists[2][3:])
    spec = NetworkSpec("mobilenet_v2", "autoslim", (1, 2), 1000, (same_at_one, nowhere))
    assert "features.2.body.7.bn.0.weight" not in empty_state(spec)  # depthwise and projection are all that is left


@pytest.mark.parametrize(("depth", "blocks", "weights"), [(50, 16, 53), (101, 33, 104), (152, 50, 155)])
def test_deeper_resnets_follow_the_same_rule(depth: int, blocks: int, weights: int) -> None:
    spec = NetworkSpec(f"resnet{depth}", "s", (0.5, 1.0))
    state = empty_state(spec)
    convolutions = {key: t for key, t in state.items() if t.dim() == 4}
    assert len({key.split(".")[1] for key in state if key.startswith("features.")}) == 1 + blocks
    assert len(convolutions) == weights
    shortcuts = [key for key in convolutions if "shortcut" in key]
    assert len(shortcuts) == 4
    # parameters of torchvision's ResNet with the same depth
    with torch.device("meta"):
        dense = spec.build(DenseLayers(spec.plans[1]))
    assert sum(p.numel() for p in dense.parameters()) == {50: 25557032, 101: 44549160, 152: 60192808}[depth]


@pytest.mark.parametrize("name", [f"{family}_{a}" for family in ("s", "us") for a in ("mobilenet_v1", "resnet50")])
def test_wider_widths_never_have_fewer_channels(name: str) -> None:
    family, _, architecture = name.partition("_")
    spec = NetworkSpec(architecture, family, (0.1, 1.5), width_range=(0.1, 1.5) if family == "us" else None)
    lists = [spec.channel_list(k / 100) for k in range(10, 151)]
    assert all(a <= b for narrow, wide in pairwise(lists) for a, b in zip(narrow, wide, strict=True))


def test_the_tail_of_mobilenet_v2_grows_only_where_the_range_passes_one() -> None:
    for family in ("s", "us"):
        narrow = NetworkSpec("mobilenet_v2", family, (0.35, 1.0), width_range=(0.35, 1.0) if family == "us" else None)
        assert {plan.channels["features.18"] for plan in narrow.plans} == {1280}
        wide = NetworkSpec("mobilenet_v2", family, (0.35, 1.25), width_range=(0.35, 1.25) if family == "us" else None)
        assert {plan.channels["features.18"] for plan in wide.plans} == {1600}
        state = empty_state(wide)
        assert tuple(state["classifier.0.weight"].shape) == (1000, 1600)
        assert tuple(state["features.18.1.running_mean"].shape) == (1600,)  # one plain norm for all widths


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_a_channel_list_of_the_wrong_length_or_with_nothing_in_it_is_refused(architecture: str) -> None:
    arch = ARCHITECTURES[architecture]
    right = arch.channel_list("s", 1.0)
    arch.wire([right])
    with pytest.raises(ValueError, match=f"{len(right)} slimmable positions, a channel list has {len(right) + 1}"):
        arch.wire([right, (*right, 1000)])
    with pytest.raises(ValueError, match="positive whole numbers"):
        arch.wire([(*right[:-1], 0)])


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_any_number_of_classes(architecture: str) -> None:
    state = empty_state(NetworkSpec(architecture, "s", (0.5, 1.0), classes=7))
    assert state["classifier.0.weight"].shape[0] == state["classifier.0.bias"].shape[0] == 7
