"""What a traced network is: its AutoSlim form."""

from __future__ import annotations

from functools import cache

import pytest

from slimtrain.base.errors import UserError, WidthError
from slimtrain.groups.spec import GraphSpec
from tests.support.traced_search import FULL, traced

HALF = {"stem.0": 16, "block.0.0": 8, "fc1": 5, "a.0": 8, "b.0": 24}


@cache
def universal() -> GraphSpec:
    spec = traced().spec
    assert isinstance(spec, GraphSpec)
    return spec


def test_every_list_is_a_switch() -> None:
    spec = universal().autoslim([dict(reversed(HALF.items())), FULL])
    assert (spec.name, spec.switches, spec.range) == ("autoslim_counted", (1, 2), (1, 2))
    assert [dict(plan.channels) for plan in spec.plans] == [HALF, FULL]
    assert [(plan.name, plan.width) for plan in spec.plans] == [("s1", 1), ("s2", 2)]
    assert spec.channel_lists == (tuple(HALF.values()), tuple(FULL.values())) == tuple(map(spec.list_of, spec.plans))
    assert spec.widest.channels == FULL and spec.searchable_groups == ()
    assert spec.describe_widths() == "switches 1, 2"
    assert spec.plan_from_channels("mine", HALF).width == 1
    with pytest.raises(WidthError, match="switch 3: this autoslim_counted has switches 1, 2 and no other"):
        spec.plan(3)
    with pytest.raises(WidthError, match="batch-norm parameters for its switches 1, 2 only"):
        spec.plan_from_channels("mine", {**HALF, "fc1": 4})


def test_bad_lists() -> None:
    spec = universal()
    with pytest.raises(UserError, match=r"autoslim_counted: there are no channel lists.*--plans DIR"):
        spec.autoslim([])
    with pytest.raises(UserError, match="switch 3 has the channels of switch 1"):
        spec.autoslim([HALF, FULL, HALF])
    for change, message in (
        ({"fc1": 9}, "switch 2: group fc1 has 9 channels, expected a whole number from 1 to 8"),
        ({"fc1": 0}, "group fc1 has 0"),
        ({"fc2": 1}, r"no channel group 'fc2' \(did you mean 'fc1'\?\)"),
    ):
        with pytest.raises(WidthError, match=message):
            spec.autoslim([FULL, {**HALF, **change}])
    with pytest.raises(WidthError, match=r"channels are missing for b\.0"):
        spec.autoslim([{key: value for key, value in HALF.items() if key != "b.0"}])
