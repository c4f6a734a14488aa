"""What detectors stand on."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import resnet18, resnet50

from slimtrain.base.errors import UserError
from slimtrain.detection.backbones import Stages, resnet_stages, stages_of


def maps(stages: Stages, images: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return list(stages.body.eval()(images).values())


def test_a_resnet_s_stages_have_the_names_and_shapes_of_torchvision_s() -> None:
    with torch.device("meta"):
        own, theirs = resnet_stages().body.state_dict(), resnet50().state_dict()
    expected = {name: tensor.shape for name, tensor in theirs.items() if not name.startswith("fc.")}
    assert {name: tensor.shape for name, tensor in own.items()} == expected


def test_stages_of_a_resnet_are_its_layers() -> None:
    torch.manual_seed(0)
    network, images = resnet18().eval(), torch.randn(2, 3, 64, 96)
    stages = stages_of(network)
    expected = resnet_stages((2, 2, 2, 2), bottleneck=False)
    expected.body.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("fc.")})
    assert (stages.channels, stages.strides) == (expected.channels, expected.strides)
    assert all(torch.equal(a, b) for a, b in zip(maps(stages, images), maps(expected, images), strict=True))


def test_later_stages_can_stand_alone() -> None:
    stages = resnet_stages((1, 1, 1, 1), 16, first=1)
    assert stages.channels == (128, 256, 512) and stages.strides == (8, 16, 32)
    assert [tuple(level.shape[1:]) for level in maps(stages, torch.zeros(1, 3, 64, 64))] == [
        (128, 8, 8),
        (256, 4, 4),
        (512, 2, 2),
    ]


def test_expansions_of_the_next_block_are_no_stage() -> None:
    network = torchvision.models.mobilenet_v3_small(num_classes=5)
    assert stages_of(network).channels == (16, 24, 48, 576)  # torchvision's table: blocks 1, 3, 8, and the last convolution


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Asserting(nn.Module):
    """As torchvision's VisionTransformer does."""

    def forward(self, x: Tensor) -> Tensor:
        torch._assert(x.shape[2] == 224, f"Wrong image height! Expected 224 but got {x.shape[2]}!")
        return x


def test_what_has_no_such_stages_is_refused() -> None:
    with pytest.raises(UserError, match="Asserting: its stages cannot be seen: Wrong image height!"):
        stages_of(Asserting())
    with pytest.raises(UserError, match="Branching: its stages cannot be seen"):
        stages_of(Branching())
    with pytest.raises(UserError, match="Sequential: has no map of stride 8"):
        stages_of(nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU()))


def test_a_network_stays_in_its_mode() -> None:
    network = resnet18()
    stages_of(network)
    assert network.training and network.layer1[0].bn1.training
