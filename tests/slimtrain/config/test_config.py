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
        ({"mean": [0.5]}, "three numbers each"),
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
        ({"network": "s_resnet50", "switches": [0.01, 1]}, "a width leaves a layer without channels"),
        ({"network": "s_shufflenet", "switches": [0.001]}, "a width leaves a layer without channels"),
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
