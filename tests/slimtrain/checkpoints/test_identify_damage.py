"""One damaged tensor, wherever it is, refuses the file and is named: wrong shapes, missing and unknown keys.

Keys are drawn over the whole of each published layout; besides, those that decide what a file is taken for are walked.
"""

from __future__ import annotations

import random

import pytest
import torch

from slimtrain.base.errors import CheckpointError
from tests.support.slimtrain_states import PUBLISHED, State, identified, shaped

DRAWN = 8  # keys per network
WAYS = ("missing", "longer", "shorter", "scalar", "another rank")
AUTOSLIM = tuple(name for name in PUBLISHED if name.startswith("autoslim"))


def damaged(state: State, key: str, way: str) -> State:
    """`state` with one tensor changed."""
    shape, state = list(state[key].shape), dict(state)
    if way == "missing":
        del state[key]
        return state
    changed = {
        "longer": [shape[0] + 8, *shape[1:]],
        "shorter": [shape[0] // 2, *shape[1:]],
        "scalar": [],
        "another rank": [*shape, 1],
    }[way]
    state[key] = torch.empty(changed, device="meta")
    return state


def outcome(state: State, key: str, network: str | None = None) -> str | None:
    """What is wrong with how a damaged file is received; None where it is refused and `key` named."""
    try:
        spec = identified(state, network=network)
    except CheckpointError as error:
        return None if key in str(error) and "weights.pt" in str(error) else f"not named: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return f"accepted as {spec.name}"


def assert_named(name: str, keys: list[str], ways: tuple[str, ...] = WAYS, network: str | None = None) -> None:
    """Every one of `keys`, damaged in one of the ways, in turn."""
    state = shaped(name)
    found = {}
    for i, key in enumerate(keys):
        way = ways[i % len(ways)]
        found[f"{key} {way}"] = outcome(damaged(state, key, way), key, network)
    wrong = {case: what for case, what in found.items() if what}
    assert not wrong, f"{len(wrong)} of {len(found)}: {wrong}"


def decides(key: str) -> bool:
    """Whether a tensor is one that switches and widths are read off."""
    return ".bn." in key and key.endswith(("weight", "running_mean"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_damage_anywhere_is_named(name: str) -> None:
    draw = random.Random(name)
    keys = [key for key in shaped(name) if not decides(key) and not key.endswith("num_batches_tracked")]
    # AutoSlim networks are named here and not below: what they are taken for is another matter
    assert_named(name, draw.sample(keys, DRAWN), network=name if name in AUTOSLIM else None)


@pytest.mark.parametrize("name", PUBLISHED)
def test_damage_to_what_decides_the_widths_is_named(name: str) -> None:
    keys = [key for key in shaped(name) if decides(key)]
    assert_named(name, random.Random(name).sample(keys, 2), ("longer", "missing"))


@pytest.mark.parametrize("name", AUTOSLIM)
def test_damage_to_an_autoslim_network_that_nobody_named_is_named(name: str) -> None:
    keys = ["features.3.body.0.weight", "features.5.body.4.bn.1.bias", "features.10.body.1.bn.0.running_var"]
    assert_named(name, keys, ("longer", "missing", "shorter"))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("key", ["stem", "classifier.0.weight", "classifier.0.bias"])
def test_damage_to_the_ends_of_a_network_is_named(key: str, way: str) -> None:
    for name in ("s_resnet50", "s_shufflenet", "us_mobilenet_v2", "autoslim_mnasnet"):
        stem = "head_1.0.weight" if name == "s_shufflenet" else "features.0.0.weight"
        assert_named(name, [stem if key == "stem" else key], (way,))


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


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_unknown_key_is_named(name: str) -> None:
    for key in ("extra", "features.3.body.9.weight"):
        assert outcome({**shaped(name), key: torch.empty(8, device="meta")}, key) is None, key


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


def test_a_message_lists_a_few_of_many_damages() -> None:
    state = {key: t for key, t in shaped("us_mobilenet_v1").items() if not key.startswith("features.9.body.4.")}
    with pytest.raises(CheckpointError) as caught:
        identified(state)
    message = str(caught.value)
    assert "features.9.body.4.weight" in message and " more" in message and len(message) < 1000
