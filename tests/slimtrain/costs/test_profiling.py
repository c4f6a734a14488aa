"""The table of costs: which widths are shown, and what a row says."""

from __future__ import annotations

import pytest

from slimtrain.base.errors import WidthError
from slimtrain.costs.cost import CostCounter
from slimtrain.costs.profiling import cost_table, costs, is_published, usual_widths
from slimtrain.models.published import published_spec
from slimtrain.models.spec import NetworkSpec

US = NetworkSpec("mobilenet_v1", "us", (0.25, 0.5, 1.0), width_range=(0.25, 1.0))


def test_the_usual_widths_are_those_that_are_trained_or_tested() -> None:
    assert usual_widths(US) == [0.25, 1.0]  # the ends of the range, not every width with statistics
    assert usual_widths(US, (0.75, 0.25)) == [0.25, 0.75, 1.0]
    assert usual_widths(NetworkSpec("mobilenet_v1", "s", (1.0, 0.5))) == [0.5, 1.0]
    assert usual_widths(published_spec("autoslim_resnet50")) == [1, 2, 3, 4]


def test_a_row_per_width_in_the_order_asked_for() -> None:
    rows = costs(US, 96, [1.0, 0.3])
    assert [(row["plan"], row["width"]) for row in rows] == [("x1_0", 1.0), ("x0_3", 0.3)]
    for row in rows:
        cost = CostCounter(US, 96)(US.plan(row["width"]))
        assert (row["macs"], row["published_macs"], row["params"]) == (cost.macs, cost.published_macs, cost.params)
    with pytest.raises(WidthError, match="width 2: outside the range"):
        costs(US, 96, [2])


def test_the_table_has_a_line_per_width() -> None:
    lines = cost_table(costs(published_spec("us_mobilenet_v1"), 224, [0.5]), published=True).splitlines()
    assert lines[0].split() == ["width", "MACs", "published", "params"]
    assert lines[-1].split() == ["0.5", "149.5M", "149.5M", "1,326,120"]


def test_published_is_said_only_of_what_was() -> None:
    us, autoslim = published_spec("us_mobilenet_v1"), published_spec("autoslim_mobilenet_v1")
    assert is_published(us, 224, [0.25, 0.525, 1.0]) and is_published(autoslim, 224, [1, 2, 3])
    assert not is_published(us, 192, [0.5])  # another size
    assert not is_published(us, 224, [0.51])  # a width between the tables'
    assert not is_published(published_spec("us_mobilenet_v1", classes=10), 224, [0.5])
    assert not is_published(NetworkSpec("mobilenet_v1", "us", (0.25, 1.0), stem_stride=1, width_range=(0.25, 1.0)), 224, [1.0])
    assert not is_published(NetworkSpec("resnet50", "us", (0.25, 1.0), width_range=(0.25, 1.0)), 224, [1.0])
    lists = tuple(tuple(count + 8 for count in counts) for counts in autoslim.channel_lists)
    assert not is_published(NetworkSpec("mobilenet_v1", "autoslim", (1, 2, 3), 1000, lists), 224, [1])
    assert cost_table(costs(US, 96, [0.3])).split()[:5] == ["width", "MACs", "with", "pools", "params"]
