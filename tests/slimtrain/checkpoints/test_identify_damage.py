"""Damage to what a file is identified by refuses it and is named, whatever the file is then taken for."""

from __future__ import annotations

import random

import pytest

from tests.support.damaged_states import AUTOSLIM, assert_named, decides
from tests.support.slimtrain_states import PUBLISHED, shaped


@pytest.mark.parametrize("name", PUBLISHED)
def test_damage_to_what_decides_the_widths_is_named(name: str) -> None:
    keys = [key for key in shaped(name) if decides(key)]
    assert_named(name, random.Random(name).sample(keys, 2), ("longer", "missing"))


@pytest.mark.parametrize("name", AUTOSLIM)
def test_damage_to_an_autoslim_network_that_nobody_named_is_named(name: str) -> None:
    keys = ["features.3.body.0.weight", "features.5.body.4.bn.1.bias", "features.10.body.1.bn.0.running_var"]
    assert_named(name, keys, ("longer", "missing", "shorter"))
