"""What a configuration holds: checked, written and read back, the network that it trains."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from slimtrain.base.errors import UserError, WidthError
from slimtrain.config.config import KEYS, Config, dump_config, plain
from slimtrain.config.reading import config_names, make_config, read_config
from slimtrain.models.published import published_spec

# Every kind of value, none of them a default.
EVERY_KIND = Config(
    "us_resnet50",
    width_range=(0.25, 1.5),
    stem_stride=1,
    data="folder",
    data_dir="some where/ü: '#1'",
    mean=(0.1, 1e-05, 1 / 3),
    schedule="multistep",
    milestones=(2.5, 30.0),
    weight_decay=1e-7,
    drop_last=False,
    nonuniform=True,
    test_widths=(0.5, 0.7250000000000001),
    best_by="0.5",
    pretrained="123",
    resume="auto",
)


def write(folder: Path, text: str) -> str:
    (folder / "a.yml").write_text(text, encoding="utf-8")
    return str(folder / "a.yml")


@pytest.mark.parametrize("config", [Config("s_shufflenet"), EVERY_KIND, *map(read_config, config_names())])
def test_what_is_written_is_read_back(config: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(config, output_dir="some/folder")
    assert read_config(write(tmp_path, dump_config(config))) == config
    assert make_config(plain(config), "again") == config
    assert list(yaml.safe_load(dump_config(config))) == list(KEYS)


def test_channel_lists_are_read_back(tmp_path: Path) -> None:
    lists = tuple(published_spec("autoslim_mnasnet").channel_lists[:2])
    config = Config("autoslim_mnasnet", channel_lists=lists, output_dir="o")
    assert read_config(write(tmp_path, dump_config(config))) == config
    assert config.spec(7).plans == published_spec("autoslim_mnasnet").plans[:2]


def test_a_configuration_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config("s_shufflenet").lr = 1.0  # type: ignore[misc]


US, S, AUTOSLIM = "us_mobilenet_v1", "s_mobilenet_v1", "autoslim_mobilenet_v1"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        # wrong types
        ({"epochs": "three"}, "epochs is 'three', expected a whole number"),
        ({"epochs": 3.0}, "epochs is 3.0, expected a whole number"),
        ({"epochs": True}, "epochs is True, expected a whole number"),
        ({"epochs": None}, "epochs is None, expected a whole number"),
        ({"epochs": [3]}, "epochs is [3], expected a whole number"),
        ({"lr": "fast"}, "lr is 'fast', expected a finite number"),
        ({"lr": False}, "lr is False, expected a finite number"),
        ({"lr": None}, "lr is None, expected a finite number"),
        ({"lr": float("nan")}, "lr is nan, expected a finite number"),
        ({"lr": "inf"}, "expected a finite number"),
        ({"lr": 10**400}, "expected a finite number"),
        ({"nesterov": 1}, "nesterov is 1, expected true or false"),
        ({"nesterov": "yes please"}, "nesterov is 'yes please', expected true or false"),
        ({"data_dir": ["a"]}, "data_dir is ['a'], expected text"),
        ({"data_dir": True}, "data_dir is True, expected text"),
        ({"test_widths": [0.5, None]}, "test_widths is [0.5, None], expected a list, each entry a finite number"),
        ({"test_widths": {"a": 1}}, "test_widths is {'a': 1}, expected a list"),
        ({"network": AUTOSLIM, "channel_lists": [[8, 8.5]]}, "expected a list, each entry a list, each entry a whole number"),
        # limits and choices
        ({"network": None}, "network '': not known"),
        ({"network": "us_mobilenet"}, "did you mean 'us_mobilenet_v"),
        ({"network": "autoslim_shufflenet"}, "network 'autoslim_shufflenet': not known"),
        ({"schedule": "cosin"}, "schedule is 'cosin' (did you mean 'cosine'?)"),
        ({"data": "imagnet"}, "did you mean 'imagenet'?"),
        ({"amp": "int8"}, "Expected none, bf16, fp16"),
        ({"epochs": 0}, "epochs is 0, expected at least 1"),
        ({"lr": -0.1}, "lr is -0.1, expected at least 0"),
        ({"momentum": 1.5}, "momentum is 1.5, expected at least 0 and at most 1"),
        ({"ema": 1}, "ema is 1.0, expected at least 0 and at most 0.99999999"),
        ({"stem_stride": 3}, "stem_stride is 3, expected at least 1 and at most 2"),
        ({"sandwich": 1}, "sandwich is 1, expected at least 2"),
        ({"label_smoothing": 1}, "label_smoothing is 1.0"),
        ({"seed": 2**31}, "seed is 2147483648"),
        # widths
        ({"test_widths": [0]}, "expected numbers above 0 and up to 4"),
        ({"network": S, "switches": [0.5, -1]}, "expected numbers above 0 and up to 4"),
        ({"network": S, "switches": [0.5, 5]}, "expected numbers above 0 and up to 4"),
        ({"network": S, "switches": [0.5, 1, 0.5]}, "each may be there once"),
        ({"width_range": [1.0, 0.25]}, "expected [narrowest, widest]"),
        ({"width_range": [0.5, 0.5]}, "expected [narrowest, widest]"),
        ({"width_range": [0.25, 0.5, 1.0]}, "expected [narrowest, widest]"),
        # keys that contradict each other
        ({"switches": [0.5, 1]}, "switches is for s_ networks, this is us_mobilenet_v1"),
        ({"network": S, "width_range": [0.25, 1]}, "width_range is for us_ networks, this is s_mobilenet_v1"),
        ({"network": AUTOSLIM, "test_widths": [0.5]}, "test_widths is for us_ networks"),
        ({"channel_lists": [[8, 16]]}, "channel_lists is for autoslim_ networks"),
        ({"network": S, "nonuniform": True}, "nonuniform is for us_ networks"),
        ({"network": AUTOSLIM, "width_step": 0.1}, "width_step is for us_ networks"),
        ({"nonuniform": True, "width_step": 0.1}, "choose one of them"),
        (
            {"mean": [0.5, 0.5]},
            "mean and std have 2 and 3 numbers, images 3 channels: expected one number per channel, or one",
        ),
        ({"in_channels": 1, "mean": [0.5, 0.5, 0.5]}, "mean and std have 3 and 1 numbers, images 1 channel"),
        ({"in_channels": 2}, "in_channels is 2: pictures are opened with 1 (gray), 3 (red, green and blue) or 4 (these and"),
        ({"in_channels": -1}, "in_channels is -1, expected at least 0"),
        ({"image_size": [1, 2, 3]}, "image_size is [1, 2, 3], expected pixels of a square, as in 224, or HEIGHTxWIDTH"),
        ({"image_size": "16x"}, "image_size is '16x', expected pixels"),
        ({"std": [0.5, 0.5, 0]}, "std above 0"),
        ({"schedule": "multistep"}, "milestones is empty"),
        ({"milestones": [60, 30]}, "expected ascending epochs"),
        ({"milestones": [30, 30]}, "expected ascending epochs"),
        ({"milestones": [-1, 30]}, "expected ascending epochs"),
        ({"epochs": 3, "warmup_epochs": 3}, "expected fewer than the 3 epochs"),
        ({"momentum": 0}, "nesterov needs a momentum above 0"),
        ({"test_only": True}, "pretrained names none"),
        ({"best_by": "wide"}, "expected widest, narrowest, mean, or a width"),
        ({"weights": "a/b.pt"}, "expected a file name"),
        ({"layout": "published", "stem_stride": 1}, "Use layout: own"),
        ({"holdout": -0.2}, "holdout is -0.2, expected at least 0"),
        ({"holdout": 1.5}, "holdout is 1.5, expected a whole number of images, or a share of them below 1"),
        ({"holdout": 1.0}, "expected a whole number of images"),
        ({"holdout": "all"}, "holdout is 'all', expected a whole number or a finite number"),
        ({"holdout": True}, "expected a whole number or a finite number"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=r"^here: .*" + re.escape(reason)) as caught:
        make_config({"network": US, **values}, "here")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"test_widths": [0.2]}, "width 0.2: outside the range of this us_mobilenet_v1"),
        ({"width_range": [0.5, 1.5], "test_widths": [1.6]}, "outside the range"),
        ({"image_size": 31}, "at least 32 pixels"),
        ({"image_size": 15, "stem_stride": 1}, "at least 16 pixels"),
        ({"image_size": 10**6}, "at most 4096 pixels"),
        ({"image_size": "64x16"}, "image size 64x16: us_mobilenet_v1 halves its input down to 1/32"),
        ({"image_size": [16, 64]}, "image size 16x64: "),
        ({"image_size": [32, 4097]}, "image size 32x4097: expected at most 4096 pixels a side"),
        ({"network": "s_resnet50", "switches": [0.01, 1]}, "width 0.01: leaves a layer of"),
        ({"network": "s_shufflenet", "switches": [0.001]}, "width 0.001: leaves a layer of ShuffleNet"),
        ({"network": AUTOSLIM, "channel_lists": [[8, 8]]}, "has 14 slimmable positions, a channel list has 2"),
        ({"network": AUTOSLIM, "channel_lists": [[0] * 14]}, "without channels"),
        ({"network": AUTOSLIM, "channel_lists": [[8] * 14, []]}, "channel_lists"),
        ({"network": "autoslim_resnet101"}, "no channel lists were published"),
    ],
)
def test_what_the_network_cannot_be_is_refused_when_it_is_built(values: dict[str, Any], reason: str) -> None:
    config = make_config({"network": US, **values}, "here")
    with pytest.raises(UserError, match=re.escape(reason)):
        config.spec(10)


def test_a_range_beyond_the_published_one() -> None:
    spec = Config(US, width_range=(0.15, 1.5), test_widths=(0.5, 1.2)).spec(3)
    assert spec.range == (0.15, 1.5) == spec.switches
    assert spec.plan(1.2).width == 1.2
    with pytest.raises(WidthError):
        spec.plan(1.6)


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (50_000, "50000"), (0.2, "0.2"), (1, "1"), ("2e-1", "0.2")])
def test_holdout_is_a_number_of_images_or_a_share(value: object, text: str) -> None:
    config = make_config({"network": US, "holdout": value}, "here")
    assert f"\nholdout: {text}\n" in dump_config(config) and str(config.holdout) == text


@pytest.mark.parametrize("data", ["folder", "fake"])
def test_classes_are_those_of_the_data_unless_named(data: str) -> None:
    assert Config(US, data=data).known_classes == 0
    assert Config(US, data=data, classes=7).known_classes == 7
    assert Config(US, data="cifar100").known_classes == 100


@pytest.mark.parametrize("given", ["48x32", [48, 32], (48, 32)])
def test_images_need_not_be_square(given: object) -> None:
    config = make_config({"network": US, "image_size": given}, "here")
    assert config.image_size == (48, 32)
    assert plain(config)["image_size"] == [48, 32]
    assert make_config(yaml.safe_load(dump_config(config)), "here") == config


@pytest.mark.parametrize("given", ["64", "64x64", [64, 64], (64, 64), 64])
def test_a_square_is_one_number_however_it_is_given(given: object) -> None:
    config = make_config({"network": US, "image_size": given}, "here")
    assert config.image_size == 64 and isinstance(config.image_size, int)
    assert Config(US, image_size=(64, 64)) == Config(US, image_size=64)


@pytest.mark.parametrize(
    ("values", "mean", "std"),
    [
        ({}, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ({"in_channels": 1}, (0.459,), (0.2256,)),
        ({"in_channels": 4}, (0.485, 0.456, 0.406, 0.5), (0.229, 0.224, 0.225, 0.5)),
        ({"in_channels": 1, "mean": 0.1, "std": [0.2]}, (0.1,), (0.2,)),
        ({"mean": [0.1], "std": [0.2]}, (0.1, 0.1, 0.1), (0.2, 0.2, 0.2)),  # one for all
        ({"in_channels": 4, "mean": "", "std": 0.2}, (0.485, 0.456, 0.406, 0.5), (0.2,) * 4),
    ],
)
def test_mean_and_deviation_follow_the_channels(
    values: dict[str, Any], mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    config = make_config({"network": US, **values}, "here")
    assert (config.mean, config.std) == (mean, std)
    assert config.in_channels == len(mean) == config.spec(10).in_channels
    assert make_config(yaml.safe_load(dump_config(config)), "here") == config


def test_the_advice_on_normalization_leads_on() -> None:
    """A configuration whose mean and deviation are those of color, told to train on gray images."""
    with pytest.raises(UserError, match="Set both, or leave both to ImageNet's: --set mean= --set std=") as caught:
        read_config("us_mobilenet_v1_cifar10", ["in_channels=1"])
    advice = str(caught.value).partition("ImageNet's: ")[2].rstrip(".").split(" --set ")
    config = read_config("us_mobilenet_v1_cifar10", ["in_channels=1", *(change.removeprefix("--set ") for change in advice)])
    assert (config.in_channels, config.mean) == (1, (0.459,))
    assert read_config("digits", ["in_channels=1"]).mean == (0.5,)
