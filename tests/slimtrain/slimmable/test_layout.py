"""Channels last where it is faster, and where it is asked for."""

from __future__ import annotations

import pytest
import torch

from slimtrain.base.errors import UserError
from slimtrain.config.config import Config
from slimtrain.config.reading import make_config, read_config
from slimtrain.models.published import published_spec
from slimtrain.slimmable.layout import memory_format, takes_channels_last
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.training.distributed import Processes
from slimtrain.training.trainer import Trainer

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("name", "device", "amp", "expected"),
    [
        *(
            ("us_mobilenet_v1", GPU, "none", False),
            ("us_mobilenet_v1", GPU, "bf16", True),
            ("us_mobilenet_v1", CPU, "none", True),
        ),
        *(("s_shufflenet", GPU, "none", False), ("s_resnet50", GPU, "none", True), ("s_resnet50", GPU, "fp16", True)),
    ],
)
def test_depthwise_convolutions_are_contiguous_in_float32_on_a_gpu(
    name: str, device: torch.device, amp: str, expected: bool
) -> None:
    network = SlimmableNetwork(published_spec(name, classes=10))
    assert takes_channels_last(network, device, amp) is expected
    assert takes_channels_last(network, device, amp, wanted=not expected) is not expected


@pytest.mark.parametrize("wanted", [None, True, False])
def test_weights_and_images_have_the_layout_of_the_configuration(wanted: bool | None) -> None:
    config = Config("s_mobilenet_v1", data="digits", image_size=32, classes=10, batch_size=8, channels_last=wanted)
    trainer = Trainer(config.spec(10), config, Processes(0, 1, CPU))
    weight = trainer.network.state_dict()["features.0.0.weight"]
    assert trainer.channels_last is (wanted is not False)
    assert weight.is_contiguous(memory_format=memory_format(trainer.channels_last))


def test_null_is_the_default_and_words_are_refused() -> None:
    values = {"network": "us_mobilenet_v1", "channels_last": None}
    assert make_config(values, "f.yml").channels_last is None is read_config("digits").channels_last
    assert read_config("digits", ["channels_last=false"]).channels_last is False
    assert read_config("digits", ["channels_last=false"], channels_last=True).channels_last is True
    with pytest.raises(UserError, match=r"channels_last is 'last', expected true or false or null\."):
        make_config({**values, "channels_last": "last"}, "f.yml")
