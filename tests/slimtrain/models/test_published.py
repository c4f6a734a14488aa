"""Published networks by name, their unpublished siblings, and the names that published training files give them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from slimtrain.base.errors import UserError
from slimtrain.models.published import published_network, published_spec, random_spec


def test_siblings_of_published_networks_have_their_switches() -> None:
    assert published_spec("us_resnet152", classes=10).classes == 10
    assert published_spec("us_resnet101").switches == tuple(k / 40 for k in range(10, 41))
    assert published_spec("us_resnet101").range == published_spec("us_mnasnet").range == (0.25, 1.0)
    assert published_spec("s_resnet152").switches == published_spec("s_resnet50").switches


def test_what_was_not_published() -> None:
    with pytest.raises(UserError, match=r"did you mean 'us_mobilenet_v1'"):
        published_spec("us_mobilenetv1")
    with pytest.raises(UserError, match=r"no channel lists were published for it\. Known: autoslim_mobilenet_v1"):
        published_spec("autoslim_resnet152")


@pytest.mark.parametrize(
    ("model", "settings", "name"),
    [
        ("models.us_mobilenet_v1", {}, "us_mobilenet_v1"),
        ("s_shufflenet", {"groups": 3}, "s_shufflenet"),
        ("models.s_resnet", {}, "s_resnet50"),
        ("models.us_resnet", {"depth": None}, "us_resnet50"),
        ("models.autoslim_resnet", {"depth": 152}, "autoslim_resnet152"),
        ("models.us_mobilenet_v2", {"depth": 50}, "us_mobilenet_v2"),
        ("models.s_resnet", {"depth": 77}, "s_resnet77"),  # which its reader refuses
        ("models.resnet", {}, "resnet50"),
        ("models.vgg", {}, "vgg"),
    ],
)
def test_the_network_of_a_published_file(model: str, settings: dict[str, Any], name: str) -> None:
    assert published_network(model, settings) == name


def test_an_untrained_network_may_take_other_images() -> None:
    assert random_spec("random:us_mobilenet_v1") == random_spec("us_mobilenet_v1") == published_spec("us_mobilenet_v1")
    spec = random_spec("random:s_shufflenet,in_channels=4")
    assert spec == replace(published_spec("s_shufflenet"), in_channels=4)
    assert random_spec("random:us_mobilenet_v2, classes=7 ,in_channels=1").classes == 7


@pytest.mark.parametrize(
    "setting", ["in_channels=0", "in_channels=17", "in_channels", "channels=1", "in_channels=-1", "", "classes=x"]
)
def test_what_is_wrong_in_its_name_is_told(setting: str) -> None:
    with pytest.raises(UserError, match=rf"random:us_mobilenet_v1,{setting}: '{setting}': expected random:NETWORK, or"):
        random_spec(f"random:us_mobilenet_v1,{setting}")
