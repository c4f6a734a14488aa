"""Norms of a state dict: their layout, the sizes of every entry, and what is wrong with one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slimtrain.base.errors import CheckpointError
from slimtrain.checkpoints.norms import norm_layout, stored_entries
from slimtrain.checkpoints.skeleton import Sizes, skeleton
from slimtrain.models.published import published_spec
from tests.support.damaged_states import AUTOSLIM, assert_named, outcome
from tests.support.module_layers import DenseLayers
from tests.support.slimtrain_states import PUBLISHED, State, identified, shaped


def read(name: str, state: State) -> tuple[str, list[Sizes]]:
    """The layout of a file's norms, and their entries."""
    arch = published_spec(name).arch
    norms = skeleton(arch, state).norms
    layout = norm_layout(state, norms, "weights.pt", arch.name)
    return layout, stored_entries(state, norms, layout, "weights.pt", arch.name)


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_entry_per_switch_has_the_size_of_every_norm_there(name: str) -> None:
    """Of the dense network of the switch. Norms of fixed groups have one size: the widest entry tells it."""
    spec, state = published_spec(name), shaped(name)
    layout, entries = read(name, state)
    assert layout == ("universal" if spec.family == "us" else "switchable")
    widest = max(range(len(entries)), key=lambda i: sum(entries[i].values()))
    for i, (plan, entry) in enumerate(zip(spec.plans, entries, strict=True)):
        with torch.device("meta"):
            dense = spec.build(DenseLayers(plan))
        sizes = {path: m.num_features for path, m in dense.named_modules() if isinstance(m, nn.BatchNorm2d)}
        if i != widest:
            sizes = {path: size for path, size in sizes.items() if f"{path}.running_mean" not in state}
        assert entry == sizes


@pytest.mark.parametrize("name", ["s_mobilenet_v2", "autoslim_mobilenet_v2", "autoslim_mnasnet", "us_mobilenet_v2"])
def test_damage_to_the_tail_norm_is_named(name: str) -> None:
    norm = "features.18.1." + ("bn.0." if name in AUTOSLIM else "")
    for way in ("missing", "longer"):
        assert_named(name, [norm + kind for kind in ("weight", "bias", "running_mean", "running_var")], (way,))


@pytest.mark.parametrize("way", ["longer", "shorter", "missing"])
def test_damage_to_the_only_norm_that_tells_two_widths_apart_is_named(way: str) -> None:
    # 0.875 and 0.9, 0.975 and 1.0 of US-MobileNet v2 differ in the last block's output alone
    assert_named("us_mobilenet_v2", [f"features.17.body.7.bn.{index}.running_mean" for index in (22, 25)], (way,))


@pytest.mark.parametrize("name", ["s_mobilenet_v1", "us_mobilenet_v1", "autoslim_mobilenet_v2"])
def test_a_whole_norm_that_is_missing_is_named(name: str) -> None:
    norm = "features.7.body.4"
    for index in (0, len([key for key in shaped(name) if key.startswith(f"{norm}.bn.") and key.endswith("mean")]) - 1):
        state = {key: t for key, t in shaped(name).items() if not key.startswith(f"{norm}.bn.{index}.")}
        assert outcome(state, f"{norm}.bn.{index}.running_mean") is None
    state = {key: t for key, t in shaped(name).items() if not key.startswith(f"{norm}.")}
    assert outcome(state, f"{norm}.bn.0.running_mean") is None


@pytest.mark.parametrize("name", ["s_mobilenet_v1", "us_mobilenet_v1"])
def test_one_switch_more_in_one_norm_is_named(name: str) -> None:
    norm = "features.5.body.1"
    count = len([key for key in shaped(name) if key.startswith(f"{norm}.bn.") and key.endswith("running_mean")])
    state = shaped(name)
    more = {
        key.replace(f".bn.{count - 1}.", f".bn.{count}."): t
        for key, t in state.items()
        if key.startswith(f"{norm}.bn.{count - 1}.")
    }
    assert outcome({**state, **more}, f"{norm}.bn.{count}.running_mean") is None


@pytest.mark.parametrize("name", ["s_mobilenet_v1", "us_mobilenet_v2", "s_resnet50", "s_shufflenet"])
def test_a_dense_network_in_our_names_is_refused_as_not_slimmable(name: str) -> None:
    spec = published_spec(name)
    with torch.device("meta"):
        state = dict(spec.arch.build(DenseLayers(spec.plans[0]), spec.wiring, 1000).state_dict())
    with pytest.raises(CheckpointError, match=r"norms are ordinary ones, not one per switch or width.*one width only"):
        identified(state)
