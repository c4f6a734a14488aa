"""What a network says of itself: names, the widths it has and refuses, plans given group by group, image sizes."""

from __future__ import annotations

import math

import pytest
import torch

from slimtrain.base.errors import UserError, WidthError
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.published import published_spec
from slimtrain.models.spec import MAX_IMAGE_SIZE, NetworkSpec
from tests.support.module_layers import DenseLayers
from tests.support.slimtrain_states import PUBLISHED

US = published_spec("us_mobilenet_v1")
S = published_spec("s_mobilenet_v1")
AUTOSLIM = published_spec("autoslim_mobilenet_v1")


def test_a_us_network_has_every_width_of_its_range() -> None:
    assert US.plan(0.25).name == "x0_25"
    assert US.plan(1.0).channels["features.13"] == 1024
    assert US.plan(0.3141).channels["features.13"] == 320  # 1024 * 0.3141 = 321.6
    assert US.plan(1).name == "x1_0"  # a whole number is a width too
    assert US.plan(0.5) in US.plans


@pytest.mark.parametrize("width", [0, -0.5, 0.2499, 1.0001, 2, math.inf, -math.inf])
def test_a_us_network_refuses_widths_outside_its_range(width: float) -> None:
    with pytest.raises(WidthError, match=r"outside the range of this us_mobilenet_v1, 0\.25 to 1\.0"):
        US.plan(width)


@pytest.mark.parametrize("spec", [US, S, AUTOSLIM], ids=lambda spec: spec.name)
def test_what_is_no_number_is_no_width(spec: NetworkSpec) -> None:
    for width in (math.nan, "0.5", None):
        with pytest.raises(WidthError, match="not a number"):
            spec.plan(width)  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [0, -1, 0.3, 1.001, math.inf])
def test_an_s_network_has_its_switches_only_and_lists_them(width: float) -> None:
    with pytest.raises(WidthError, match=r"has switches 0\.25, 0\.5, 0\.75, 1\.0 and no other"):
        S.plan(width)


@pytest.mark.parametrize("switch", [0, 4, -1, 1.5, math.inf])
def test_an_autoslim_network_has_its_switches_only(switch: float) -> None:
    with pytest.raises(WidthError, match="has switches 1, 2, 3 and no other"):
        AUTOSLIM.plan(switch)


def test_autoslim_plans_are_named_by_their_switch() -> None:
    plan = AUTOSLIM.plan(2.0)
    assert (plan.name, plan.width, type(plan.width)) == ("s2", 2, int)
    assert plan == AUTOSLIM.plans[1]


@pytest.mark.parametrize("width", [1.0000001, 0.24999999])
def test_the_message_shows_how_a_width_just_outside_differs_from_the_end(width: float) -> None:
    with pytest.raises(WidthError) as caught:
        US.plan(width)
    assert str(width) in str(caught.value)


def test_a_plan_given_group_by_group_is_that_plan() -> None:
    channels = dict(US.plan(0.7).channels)
    channels["features.5"] = 40
    plan = US.plan_from_channels("mine", dict(reversed(channels.items())))
    assert (plan.name, plan.width, dict(plan.channels)) == ("mine", None, channels)
    assert list(plan.channels) == list(US.widest.channels)


def test_a_switch_under_another_name_keeps_its_width() -> None:
    for spec, width in ((US, 0.5), (S, 0.5), (AUTOSLIM, 2)):
        plan = spec.plan_from_channels("mine", spec.plan(width).channels)
        assert (plan.name, plan.width, plan) == ("mine", width, spec.plan(width))


@pytest.mark.parametrize("count", [0, -8, 1.5, True, "8", None, 10**6])
def test_impossible_counts_are_named(count: object) -> None:
    channels = {**US.plan(0.5).channels, "features.3": count}
    with pytest.raises(WidthError, match=r"plan mine: group features\.3 has .* expected a whole number from 1 to 128"):
        US.plan_from_channels("mine", channels)  # type: ignore[arg-type]


def test_missing_and_unknown_groups_are_named() -> None:
    channels = dict(US.plan(0.5).channels)
    with pytest.raises(WidthError, match=r"did you mean 'features\.7'"):
        US.plan_from_channels("mine", {**channels, "feature.7": 8})
    del channels["features.4"]
    with pytest.raises(WidthError, match=r"channels are missing for features\.4\."):
        US.plan_from_channels("mine", channels)


def test_only_universal_networks_take_other_plans_than_their_switches() -> None:
    for spec in (S, AUTOSLIM):
        channels = dict(spec.plans[0].channels)
        channels["features.13"] -= 8
        with pytest.raises(WidthError, match="batch-norm parameters for its switches"):
            spec.plan_from_channels("mine", channels)


def test_the_tail_of_us_mobilenet_v2_is_never_slimmed() -> None:
    spec = published_spec("us_mobilenet_v2")
    assert spec.fixed_groups == {"features.18"}
    with pytest.raises(WidthError, match="never slims it: expected 1280"):
        spec.plan_from_channels("mine", {**spec.plan(0.5).channels, "features.18": 640})
    assert not published_spec("autoslim_mobilenet_v2").fixed_groups


@pytest.mark.parametrize("name", PUBLISHED)
def test_image_sizes_from_the_stride_up_run_and_smaller_ones_are_refused(name: str) -> None:
    spec = published_spec(name)
    with torch.device("meta"):
        dense = spec.build(DenseLayers(spec.plans[0])).eval()
    for size in (32, 33, 47, 96, 224, 225, 4096):
        spec.check_image_size(size)
        assert dense(torch.empty(1, 3, size, size, device="meta")).shape == (1, 1000), size
    for bad in (0, -32, 1, 31):
        with pytest.raises(UserError, match=f"image size {bad}: .*at least 32 pixels"):
            spec.check_image_size(bad)


@pytest.mark.parametrize("size", [True, 224.0, "224", None])
def test_an_image_size_is_a_whole_number(size: object) -> None:
    with pytest.raises(UserError, match="image size"):
        US.check_image_size(size)  # type: ignore[arg-type]


def test_huge_images_are_refused() -> None:
    US.check_image_size(MAX_IMAGE_SIZE)
    with pytest.raises(UserError, match=f"at most {MAX_IMAGE_SIZE} pixels"):
        US.check_image_size(MAX_IMAGE_SIZE + 1)


def test_every_width_of_a_range_has_a_plan_even_where_sums_appear_by_rounding() -> None:
    # At 0.05 and 0.15 blocks of 64 and 96 channels round to the same counts, at 0.1 to 8 and 16.
    spec = NetworkSpec("mobilenet_v2", "us", (0.05, 0.15), width_range=(0.05, 0.15))
    for thousandths in range(50, 151):
        assert isinstance(spec.plan(thousandths / 1000), ChannelPlan)


def test_s_mobilenet_v2_also_takes_fixed_tail_into_account_when_widths_pass_one() -> None:
    spec = NetworkSpec("mobilenet_v2", "s", (0.5, 1.5))
    assert [plan.channels["features.18"] for plan in spec.plans] == [1920, 1920]


def test_a_width_that_leaves_a_layer_without_channels_is_told_with_one_that_does_not() -> None:
    with pytest.raises(WidthError, match=r"width 0\.1: leaves a layer of ShuffleNet without channels\. Choose 0\.125 or more"):
        _ = NetworkSpec("shufflenet", "s", (0.1, 1.0)).plans
    assert min(NetworkSpec("shufflenet", "s", (0.125, 1.0)).plans[0].channels.values()) == 3
