"""A file's keys and shapes against those of its network: one damaged tensor, wherever it is, refuses the file and is named.

Keys are drawn over the whole of each published layout; those that decide what a file is taken for: test_identify_damage.py.
"""

from __future__ import annotations

import random

import pytest
import torch

from slimtrain.base.errors import CheckpointError
from slimtrain.models.published import published_spec
from tests.support.damaged_states import AUTOSLIM, WAYS, assert_named, decides, outcome
from tests.support.slimtrain_states import PUBLISHED, identified, shaped

DRAWN = 8  # keys per network


@pytest.mark.parametrize("name", PUBLISHED)
def test_damage_anywhere_is_named(name: str) -> None:
    draw = random.Random(name)
    keys = [key for key in shaped(name) if not decides(key) and not key.endswith("num_batches_tracked")]
    # AutoSlim networks are named here and not below: what they are taken for is another matter
    assert_named(name, draw.sample(keys, DRAWN), network=name if name in AUTOSLIM else None)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("key", ["stem", "classifier.0.weight", "classifier.0.bias"])
def test_damage_to_the_ends_of_a_network_is_named(key: str, way: str) -> None:
    for name in ("s_resnet50", "s_shufflenet", "us_mobilenet_v2", "autoslim_mnasnet"):
        stem = "head_1.0.weight" if name == "s_shufflenet" else "features.0.0.weight"
        assert_named(name, [stem if key == "stem" else key], (way,))


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_unknown_key_is_named(name: str) -> None:
    for key in ("extra", "features.3.body.9.weight"):
        assert outcome({**shaped(name), key: torch.empty(8, device="meta")}, key) is None, key


def test_a_message_lists_a_few_of_many_damages() -> None:
    state = {key: t for key, t in shaped("us_mobilenet_v1").items() if not key.startswith("features.9.body.4.")}
    with pytest.raises(CheckpointError) as caught:
        identified(state)
    message = str(caught.value)
    assert "features.9.body.4.weight" in message and " more" in message and len(message) < 1000


def test_counters_of_batches_are_not_needed() -> None:
    for name in ("s_mobilenet_v1", "us_mobilenet_v2"):
        state = {key: t for key, t in shaped(name).items() if not key.endswith("num_batches_tracked")}
        assert identified(state) == published_spec(name)
