"""Skeletons: an architecture with every channel-list entry in a group of its own, as far as its structure allows."""

from __future__ import annotations

import pytest
from torch import nn

from slimtrain.checkpoints.skeleton import skeleton
from slimtrain.models.published import published_spec
from slimtrain.models.registry import ARCHITECTURES
from slimtrain.models.spec import NetworkSpec
from tests.support.module_layers import DenseLayers
from tests.support.slimtrain_states import empty_state, identified


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_every_norm_has_the_size_that_its_dimension_says(architecture: str) -> None:
    arch = ARCHITECTURES[architecture]
    bones = skeleton(arch)
    plan = bones.wiring.plan("skeleton", arch.untied_list())
    modules = dict(arch.build(DenseLayers(plan), bones.wiring, 1000).named_modules())
    norms = {path: module.num_features for path, module in modules.items() if isinstance(module, nn.BatchNorm2d)}
    assert {norm.path: norm.dim.active(plan.channels) for norm in bones.norms} == norms
    assert [norm.path for norm in bones.norms] == list(norms)
    stems = [f"{path}.weight" for path, m in modules.items() if isinstance(m, nn.Conv2d) and m.in_channels == 3]
    assert list(bones.stems) == stems
    groups = {group for norm in bones.norms for group, _ in norm.dim.terms}
    assert groups == set(bones.wiring.groups)  # a file's norms tell the count of every group


def test_entries_are_tied_by_structure_alone() -> None:
    v2 = skeleton(ARCHITECTURES["mobilenet_v2"]).wiring
    assert len(set(v2.groups)) == len(v2.groups)  # counts that agree would tie some: here none do
    resnet = skeleton(ARCHITECTURES["resnet50"]).wiring
    assert len(set(resnet.groups)) == 1 + 4 + 2 * 16  # stem, stages, two inner ones a block


@pytest.mark.parametrize("name", ["autoslim_mobilenet_v2", "autoslim_mnasnet"])
def test_a_state_dict_says_which_blocks_have_an_expansion(name: str) -> None:
    spec = published_spec(name)
    lists = [list(counts) for counts in spec.channel_lists]
    for counts in lists:
        counts[2] = counts[1]  # the second block's inner channels are its input's, at every switch
    less = NetworkSpec(spec.architecture, "autoslim", spec.switches, 1000, tuple(map(tuple, lists)))
    full, without = (skeleton(spec.arch, empty_state(s)).wiring for s in (spec, less))
    assert full == skeleton(spec.arch).wiring and len(set(full.groups)) == len(full.groups)
    assert len(set(without.groups)) == len(full.groups) - 1 and without.groups[2] == without.groups[1]


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_kinds_of_weights_are_those_of_any_width(architecture: str) -> None:
    state = empty_state(NetworkSpec(architecture, "s", (0.5, 1.0)))
    weights = {key: tuple(t.shape) for key, t in state.items() if key.endswith("weight") and t.dim() > 1}
    kinds = skeleton(ARCHITECTURES[architecture]).weights
    assert kinds.keys() == weights.keys()
    for key, shape in weights.items():
        assert kinds[key] == (*shape[2:], int(len(shape) == 4 and shape[1] == 1)), key


def test_an_autoslim_block_that_expands_nothing_is_read() -> None:
    lists = [list(counts) for counts in published_spec("autoslim_mobilenet_v2").channel_lists]
    for counts in lists:
        counts[2] = counts[1]  # the second block's inner channels are its input's, at every switch
    spec = NetworkSpec("mobilenet_v2", "autoslim", (1, 2, 3), 1000, tuple(map(tuple, lists)))
    assert identified(empty_state(spec)) == spec
