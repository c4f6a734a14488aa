"""Detectors as configurations describe them."""

from __future__ import annotations

import pytest
import torch

from slimtrain.base.errors import UserError
from slimtrain.config.detector import DetectorConfig
from slimtrain.detection.building import build, stages_for
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.detector import KINDS, SSDLITE
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.small_configs import small_config

HALF = (0.5,) * 3


def built(config: DetectorConfig, seed: int = 3, family: str = "s") -> SlimmableNetwork:
    return build(config, 4, (0.5, 1.0), family, 64, (0.1, 0.2, 0.3), HALF, seed)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_built_as_its_configuration_says(kind: str) -> None:
    network = built(small_config(kind))
    spec = network.spec
    assert isinstance(spec, GraphSpec) and spec.detector is not None
    assert (spec.name, spec.switches, spec.classes) == (f"s_{kind}", (0.5, 1.0), 4)
    assert spec.detector == small_config(kind).settings(
        4, (16, 32) if kind == SSDLITE else (4, 8, 16, 32), (0.1, 0.2, 0.3), HALF
    )
    assert network.training and spec.image_size == 64
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_seed_draws_the_same_weights_and_leaves_other_draws_alone() -> None:
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    first, second, other = (built(small_config(), seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["backbone.body.conv1.weight"], other["backbone.body.conv1.weight"])


def test_resnet50_is_the_default_backbone() -> None:
    stages = stages_for(DetectorConfig("faster_rcnn", first_stage=1))
    assert (stages.channels, stages.strides) == ((512, 1024, 2048), (8, 16, 32))


def test_any_classifier_s_stages_can_be_taken() -> None:
    stages = stages_for(DetectorConfig("faster_rcnn", backbone="torchvision:resnet18", first_stage=2))
    assert (stages.channels, stages.strides) == ((256, 512), (16, 32))
    with pytest.raises(UserError, match=r"^detector.backbone torchvision:resnet81: torchvision has no model"):
        stages_for(DetectorConfig("faster_rcnn", backbone="torchvision:resnet81"))


def test_frozen_norms_of_drawn_widths_are_refused() -> None:
    with pytest.raises(UserError, match="norms: frozen: us_faster_rcnn has statistics for some of its widths only"):
        built(small_config(norms="frozen"), family="us")
