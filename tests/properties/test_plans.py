"""Plans: they grow with the width, in channels and in costs; names of widths and plan files say them whole."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimtrain.costs.cost import Cost, CostCounter
from slimtrain.groups.rounding import DIVISOR, WHOLE
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.channels import width_label, width_name
from slimtrain.models.plan_file import PLAN_NAME, read_plan_file, write_plan_file
from slimtrain.models.width_spec import WidthSpec
from tests.properties.cases import Module, Published, modules, plans, published_cases
from tests.properties.counting import counted


def widths_of(spec: WidthSpec, data: st.DataObject) -> list[float]:
    """Widths that the network has, ascending, its ends among them."""
    if spec.family != "us":
        return sorted(spec.switches)
    low, high = spec.range
    return sorted({low, high, *data.draw(st.lists(st.floats(low, high), min_size=1, max_size=6))})


def plans_grow(spec: WidthSpec, data: st.DataObject, count: CostCounter) -> None:
    """With the width grow all groups' channels, and with these every cost: where any group has more, strictly."""
    grown = [spec.plan(width) for width in widths_of(spec, data)]
    for narrow, wide in itertools.pairwise(grown):
        if spec.family == "autoslim":  # whose lists are as they are
            continue
        assert all(narrow.channels[group] <= wide.channels[group] for group in wide.channels)
        less, more = count(narrow), count(wide)
        if narrow == wide:
            assert less == more
        else:
            assert strictly(less, more), (less, more)
    if spec.family == "us":
        assert grown[-1] == spec.widest
    for plan in grown:
        assert all(1 <= plan.channels[group] <= most for group, most in spec.widest.channels.items())


def strictly(less: Cost, more: Cost) -> bool:
    growing = all(getattr(less, key) <= getattr(more, key) for key in ("pools", "activations", "layers"))
    return growing and less.macs < more.macs and less.params < more.params


def divisors_are_kept(spec: WidthSpec, data: st.DataObject) -> None:
    """Channels come in eights, where there are 16 or more, and where not all stay."""
    if spec.family != "us":
        return
    for width in widths_of(spec, data):
        for group, channels in spec.plan(width).channels.items():
            most = spec.widest.channels[group]
            small = isinstance(spec, GraphSpec) and most < WHOLE
            assert small or channels == most or channels % DIVISOR == 0


def plan_files_say_plans(spec: WidthSpec, data: st.DataObject, source: Published | Module, folder: Path) -> None:
    plan = data.draw(plans(spec))
    cost = CostCounter(spec, source.image_size)(plan)
    path = folder / "plan.yml"
    write_plan_file(path, spec, plan, source.image_size, cost)
    known = read_plan_file(path, spec)
    assert known == plan and known.name == plan.name and list(known.channels) == list(spec.widest.channels)
    if plan in spec.plans:
        assert known.width in spec.switches and spec.plan(known.width) == plan
    again = folder / "again.yml"
    write_plan_file(again, spec, known, source.image_size, cost)
    assert again.read_bytes() == path.read_bytes()


def check(source: Published | Module, spec: WidthSpec, kind: str, data: st.DataObject, folder: Path) -> None:
    with counted(f"{kind}: plans grow with the width"):
        plans_grow(spec, data, CostCounter(spec, source.image_size))
    with counted(f"{kind}: divisors are kept"):
        divisors_are_kept(spec, data)
    with counted(f"{kind}: plan files say plans"):
        plan_files_say_plans(spec, data, source, folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plans")


@given(published_cases(), st.data())
def test_plans_of_a_published_network(folder: Path, source: Published, data: st.DataObject) -> None:
    check(source, source.spec, "published", data, folder)


@given(modules, st.data())
def test_plans_of_a_traced_network(folder: Path, source: Module, data: st.DataObject) -> None:
    check(source, source.network().spec, "traced", data, folder)


@given(st.floats(1e-6, 4), st.floats(1e-6, 4))
def test_names_of_widths_say_them(width: float, other: float) -> None:
    with counted("names of widths say them"):
        assert float(width_label(width)) == width
        name = width_name(width)
        assert float(name.removeprefix("x").replace("_", ".")) == width and PLAN_NAME.fullmatch(name)
        assert (width_name(other) == name) == (other == width)
