"""Rounding, dimensions and plans: `make_divisible` against its definition by search; plans are values."""

from __future__ import annotations

import copy
import pickle

import pytest

from slimtrain.models.channels import ChannelPlan, Dim, Wiring, make_divisible, widest_plan, width_label, width_name


def defined(thousandths: int, divisor: int) -> int:
    """The nearest multiple of `divisor` (of two equally near ones the larger), one more where it is under 0.9 of the
    value, `thousandths` / 1000. In whole numbers, by search."""
    step = 1000 * divisor
    below = thousandths // step * step
    nearest = max((below - step, below, below + step), key=lambda multiple: (-abs(multiple - thousandths), multiple))
    return (nearest + step if 10 * nearest < 9 * thousandths else nearest) // 1000


@pytest.mark.parametrize("divisor", [1, 4, 8, 16])
def test_make_divisible_is_its_definition(divisor: int) -> None:
    # quarters are exact in binary, so the halves and the edges of 0.9 are met exactly
    for quarters in range(1, 4 * 1100):
        assert make_divisible(quarters / 4, divisor) == defined(250 * quarters, divisor), f"{quarters / 4} by {divisor}"


@pytest.mark.parametrize("base", [16, 24, 32, 64, 96, 160, 320, 512, 1024, 1280, 2048])
def test_make_divisible_of_decimal_widths_is_that_of_exact_ones(base: int) -> None:
    for width in range(50, 2001):
        assert make_divisible(base * (width / 1000)) == defined(base * width, 8), f"{base} * {width / 1000}"


def test_make_divisible_edges() -> None:
    assert make_divisible(12) == 16  # halves go up
    assert make_divisible(11.99) == 16  # 8 would be under 0.9
    assert make_divisible(8.88) == 8  # 8 is just over 0.9
    assert make_divisible(8.9) == 16
    assert make_divisible(0.5) == 8  # never nothing
    assert make_divisible(1280 * 1.25) == 1600


def test_make_divisible_loses_at_most_a_tenth_and_never_falls_as_widths_grow() -> None:
    sizes = [make_divisible(512 * k / 1000) for k in range(10, 2001)]
    assert sizes == sorted(sizes)
    assert all(size % 8 == 0 and size >= 0.9 * 512 * k / 1000 for k, size in zip(range(10, 2001), sizes, strict=True))


def test_dims_add_subtract_and_divide_as_numbers_do() -> None:
    channels = {"a": 240, "b": 24}
    a, b = Dim.of("a"), Dim.of("b")
    assert a.active(channels) == 240
    assert (a - b).active(channels) == 216
    assert ((a - b) // 3).active(channels) == 72
    assert (a // 3).active(channels) == 80
    assert (a // 3 // 2).active(channels) == 40
    assert (a - b) == Dim.of("a") - Dim.of("b")  # a value, equal when written twice
    assert a != a // 3


def test_a_plain_number_is_never_slimmed() -> None:
    plan = ChannelPlan("x0_5", {"a": 8})
    assert plan.size(3) == 3
    assert plan.size(Dim.of("a")) == 8


def test_plans_cannot_be_changed() -> None:
    source = {"a": 8}
    plan = ChannelPlan("x0_5", source, 0.5)
    source["a"] = 16
    assert plan.channels["a"] == 8
    with pytest.raises(TypeError):
        plan.channels["a"] = 16  # type: ignore[index]
    with pytest.raises(AttributeError):
        plan.name = "other"  # type: ignore[misc]


def test_plans_are_equal_and_hash_alike_when_their_channels_are_the_same() -> None:
    one = ChannelPlan("x0_5", {"a": 8, "b": 16}, 0.5)
    other = ChannelPlan("mine", {"b": 16, "a": 8})  # another name, width and order
    assert one == other and hash(one) == hash(other) and len({one, other}) == 1
    assert one != ChannelPlan("x0_5", {"a": 8, "b": 24}, 0.5)
    assert one != ChannelPlan("x0_5", {"a": 8}, 0.5)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plans_survive_pickling(protocol: int) -> None:
    plan = ChannelPlan("s2", {"a": 8, "b": 16}, 2)
    back = pickle.loads(pickle.dumps(plan, protocol))
    assert (back, back.name, back.width) == (plan, "s2", 2)
    assert copy.deepcopy(plan) == plan


def test_the_widest_plan_takes_the_maximum_of_every_group_on_its_own() -> None:
    plans = [ChannelPlan("s1", {"a": 8, "b": 64}), ChannelPlan("s2", {"a": 32, "b": 16})]
    assert dict(widest_plan(plans).channels) == {"a": 32, "b": 64}
    assert widest_plan(plans[:1]) == plans[0]


def test_entries_tied_in_one_group_must_agree() -> None:
    wiring = Wiring(("a", "b", "a"), ())
    assert dict(wiring.plan("x", [8, 16, 8]).channels) == {"a": 8, "b": 16}
    with pytest.raises(ValueError, match=r"group a has 8 and 24 channels in plan x"):
        wiring.plan("x", [8, 16, 24])
    with pytest.raises(ValueError, match="argument 2"):
        wiring.plan("x", [8, 16])


@pytest.mark.parametrize(
    ("width", "label", "name"),
    [(0.5, "0.5", "x0_5"), (1.0, "1.0", "x1_0"), (1, "1.0", "x1_0"), (0.275, "0.275", "x0_275"), (2.0, "2.0", "x2_0")],
)
def test_widths_are_written_as_users_write_them(width: float, label: str, name: str) -> None:
    assert width_label(width) == label
    assert width_name(width) == name
