"""The published errors, against the copy of the published tables that the tests keep."""

from __future__ import annotations

import json

import pytest

from benchmarks.cells.published_errors import ERRORS, published_error
from slimtrain.base.errors import UserError
from slimtrain.models.published import PUBLISHED, published_spec
from tests.support import REFERENCE

TABLES = json.loads((REFERENCE / "published.json").read_text())["networks"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_switch_has_its_published_error(name: str) -> None:
    rows = {row["switch"]: row["top1_error"] for row in TABLES[name]}
    assert {plan.width: published_error(name, plan.width or 0) for plan in published_spec(name).plans} == rows


def test_there_are_86_of_ten_networks() -> None:
    assert tuple(ERRORS) == PUBLISHED and sum(map(len, ERRORS.values())) == 86


@pytest.mark.parametrize(("network", "switch"), [("us_mobilenet_v1", 0.33), ("us_mnasnet", 1.0)])
def test_what_was_not_published_is_refused(network: str, switch: float) -> None:
    with pytest.raises(UserError, match=f"{network} at {switch}: no error was published"):
        published_error(network, switch)
