"""Which network a file holds is read off keys and shapes alone: the ten published ones, and the same architectures trained
with other switches, ranges, orders, classes and channel lists."""

from __future__ import annotations

import random

import pytest
import torch
import torchvision

from slimtrain.base.errors import CheckpointError, UserError
from slimtrain.models.published import published_spec
from slimtrain.models.registry import ARCHITECTURES
from slimtrain.models.spec import NetworkSpec
from tests.support.slimtrain_states import PUBLISHED, empty_state, identified, shaped


def us(architecture: str, widths: tuple[float, ...], high: float | None = None, classes: int = 1000) -> NetworkSpec:
    return NetworkSpec(architecture, "us", widths, classes, width_range=(min(widths), high or max(widths)))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_layout_is_that_network(name: str) -> None:
    assert identified(shaped(name)) == published_spec(name)


@pytest.mark.parametrize("name", ["s_mobilenet_v2", "us_mobilenet_v1", "autoslim_mnasnet"])
def test_the_order_of_keys_says_nothing(name: str) -> None:
    items = list(shaped(name).items())
    random.Random(0).shuffle(items)
    assert identified(dict(items)) == published_spec(name)


@pytest.mark.parametrize("architecture", ["mobilenet_v1", "mobilenet_v2", "resnet50", "resnet101", "shufflenet"])
@pytest.mark.parametrize(
    "switches",
    [(0.3, 0.6), (0.5, 1.0, 1.5), (1.0, 0.5), (0.35,), (0.25, 0.275, 0.3), (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 2.0)],
)
def test_s_networks_of_other_switches(architecture: str, switches: tuple[float, ...]) -> None:
    spec = NetworkSpec(architecture, "s", switches, classes=10)
    assert identified(empty_state(spec)) == spec


@pytest.mark.parametrize("architecture", ["mobilenet_v1", "mobilenet_v2", "mnasnet", "resnet50"])
@pytest.mark.parametrize(
    "widths", [(0.3, 0.9), (0.25, 1.0), (0.25, 1.0, 0.5, 0.75), (0.25, 1.25, 0.5), (0.15, 1.5), (1.0, 0.5), (0.05, 0.15)]
)
def test_us_networks_of_other_ranges_and_orders(architecture: str, widths: tuple[float, ...]) -> None:
    spec = us(architecture, widths, classes=10)
    assert identified(empty_state(spec)) == spec


@pytest.mark.parametrize("name", ["us_mnasnet", "us_resnet101", "us_resnet152", "s_resnet152"])
def test_unpublished_siblings(name: str) -> None:
    spec = published_spec(name, classes=1)
    assert identified(empty_state(spec)) == spec


@pytest.mark.parametrize("architecture", ["mobilenet_v1", "mobilenet_v2", "resnet50"])
@pytest.mark.parametrize("high", [1.0, 1.25])
def test_the_widest_width_is_that_of_the_weights_also_without_statistics_for_it(architecture: str, high: float) -> None:
    spec = us(architecture, (0.25, 0.5), high)
    assert identified(empty_state(spec)) == spec


@pytest.mark.parametrize("name", ["autoslim_mobilenet_v1", "autoslim_mobilenet_v2", "autoslim_mnasnet", "autoslim_resnet50"])
def test_autoslim_networks_of_other_lists(name: str) -> None:
    published = published_spec(name)
    lists = tuple(tuple(count + 8 * (i + 1) for count in counts) for i, counts in enumerate(published.channel_lists[:2]))
    spec = NetworkSpec(published.architecture, "autoslim", (1, 2), 7, lists)
    assert identified(empty_state(spec)) == spec


def test_autoslim_resnet101_with_lists_of_its_own() -> None:
    arch = ARCHITECTURES["resnet101"]
    groups = arch.wire([arch.channel_list("s", 1.0)]).groups
    draw = random.Random(1)
    counts = [{group: 8 * draw.randint(1, 60) for group in groups} for _ in range(3)]
    lists = tuple(tuple(count[group] for group in groups) for count in counts)  # tied entries agree
    spec = NetworkSpec("resnet101", "autoslim", (1, 2, 3), 1000, lists)
    assert identified(empty_state(spec)) == spec


# -------------------------------------------------------------------------------------------------- the network's name


def test_the_network_may_be_named() -> None:
    for name in PUBLISHED[:5]:
        assert identified(shaped(name), network=name) == published_spec(name)
    # one that is both: AutoSlim's lists may happen to be those of uniform widths
    spec = NetworkSpec("mobilenet_v1", "s", (0.5, 1.0))
    assert identified(empty_state(spec)) == spec
    lists = tuple(tuple(spec.channel_list(width)) for width in (0.5, 1.0))
    asked = identified(empty_state(spec), network="autoslim_mobilenet_v1")
    assert asked == NetworkSpec("mobilenet_v1", "autoslim", (1, 2), 1000, lists)


def test_a_mistyped_network_gets_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"network 'us_mobilenet_v3': not known.*did you mean 'us_mobilenet_v[12]'"):
        identified(shaped("us_mobilenet_v1"), network="us_mobilenet_v3")


@pytest.mark.parametrize(
    ("held", "asked"),
    [
        ("us_mobilenet_v1", "s_mobilenet_v1"),
        ("s_mobilenet_v1", "us_mobilenet_v1"),
        ("us_mobilenet_v1", "us_mobilenet_v2"),
        ("s_resnet50", "s_resnet101"),
        ("autoslim_mobilenet_v2", "s_mobilenet_v2"),
        ("s_mobilenet_v2", "autoslim_mobilenet_v2"),
        ("us_mobilenet_v1", "s_shufflenet"),
    ],
)
def test_a_file_that_is_not_the_named_network_is_refused(held: str, asked: str) -> None:
    with pytest.raises(CheckpointError, match=rf"^weights\.pt: .*{asked.partition('_')[2]}"):
        identified(shaped(held), network=asked)


# -------------------------------------------------------------------------------------------------- unrelated networks


@pytest.mark.parametrize("model", ["resnet18", "resnet50", "wide_resnet50_2"])
def test_a_torchvision_resnet_is_refused_as_such(model: str) -> None:
    with torch.device("meta"):
        state = dict(torchvision.models.get_model(model).state_dict())
    with pytest.raises(CheckpointError, match=r"weights\.pt: is none of the known slimmable networks.*torchvision") as caught:
        identified(state)
    assert "one width only" in str(caught.value) and "Expected" in str(caught.value)


@pytest.mark.parametrize("model", ["mobilenet_v2", "mnasnet1_0", "shufflenet_v2_x1_0", "vit_b_16", "vgg11_bn"])
def test_other_torchvision_networks_are_refused(model: str) -> None:
    with torch.device("meta"):
        state = dict(torchvision.models.get_model(model).state_dict())
    with pytest.raises(CheckpointError, match=r"weights\.pt: .*Expected the layout of a MobileNet v1 or v2"):
        identified(state)


def test_a_few_tensors_are_no_network() -> None:
    with pytest.raises(CheckpointError, match="1 entries beginning with a"):
        identified({"a": torch.ones(3)})
    half = dict(list(shaped("us_mobilenet_v1").items())[:900])
    with pytest.raises(CheckpointError, match=r"^weights\.pt: "):
        identified(half)


@pytest.mark.parametrize("value", [torch.ones(()), torch.ones(3), torch.ones(3, 4, 5)])
def test_an_odd_classifier_is_refused(value: torch.Tensor) -> None:
    state = {**shaped("us_mobilenet_v1"), "classifier.0.weight": value}
    with pytest.raises(CheckpointError, match=r"classifier\.0\.weight"):
        identified(state)
