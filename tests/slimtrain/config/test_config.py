"""Configurations: read, changed, checked, written and read back; the packaged ones are what their names promise."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from slimtrain.base.errors import UserError, WidthError
from slimtrain.config.config import FIELDS, Config, dump_config, plain
from slimtrain.config.reading import CONFIGS, config_names, make_config, read_config
from slimtrain.models.published import GRIDS, PUBLISHED, published_spec

CIFAR = ("us_mobilenet_v1_cifar10", "us_mobilenet_v1_cifar100", "s_mobilenet_v1_cifar10")
# networks.md, "Training, as published": batch, lr, schedule, gamma, milestones, epochs, augmentation.
EXPONENTIAL = (160, 0.045, "exponential", 0.98, (), 480, "mobile")
STEPS = (256, 0.1, "multistep", 0.1, (30.0, 60.0, 90.0), 100)
TABLE: dict[str, tuple[Any, ...]] = {
    "s_mobilenet_v1": EXPONENTIAL,
    "s_mobilenet_v2": EXPONENTIAL,
    "s_shufflenet": (1024, 0.5, "linear", None, (), 250, "mobile"),
    "s_resnet50": (*STEPS, "basic"),
    "us_mobilenet_v1": (1024, 0.5, "linear", None, (), 250, "mobile"),
    "us_mobilenet_v2": (1024, 0.5, "linear", None, (), 250, "mobile"),
    "autoslim_mobilenet_v1": (2048, 0.5, "linear", None, (), 300, "mobile"),
    "autoslim_mobilenet_v2": (2048, 0.5, "linear", None, (), 300, "mobile"),
    "autoslim_mnasnet": (2048, 0.5, "linear", None, (), 300, "mobile"),
    "autoslim_resnet50": (*STEPS, "mobile"),
}
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


def test_there_is_one_for_every_published_network_and_for_small_images() -> None:
    assert set(config_names()) == {*PUBLISHED, *CIFAR, "digits"}
    assert set(TABLE) == set(PUBLISHED)


@pytest.mark.parametrize("name", config_names())
def test_a_packaged_configuration_is_valid_and_builds_its_network(name: str) -> None:
    config = read_config(name)
    assert config.output_dir == f"runs/{name}"
    assert config.known_classes > 0
    spec = config.spec(config.known_classes)
    assert spec.name == config.network == f"{config.family}_{spec.architecture}"
    assert name.startswith(config.network) or name == "digits"
    assert spec.classes == config.known_classes
    assert [spec.plan(width).width for width in config.test_widths] == list(config.test_widths)


@pytest.mark.parametrize("name", config_names())
def test_a_packaged_configuration_begins_with_its_source(name: str) -> None:
    first, *rest = (CONFIGS / f"{name}.yml").read_text(encoding="utf-8").splitlines()
    assert first.startswith("# ")
    assert not any(line.startswith("#") for line in rest)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_ones_train_the_published_plans(name: str) -> None:
    config, published = read_config(name), published_spec(name)
    spec = config.spec(1000)
    if config.family != "us":
        assert spec.plans == published.plans
        return
    assert spec.plans == (published.plans[0], published.plans[-1])
    widths = sorted({*spec.switches, *config.test_widths})
    assert tuple(widths) == GRIDS[name]
    assert tuple(map(spec.plan, widths)) == published.plans


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_ones_train_as_published(name: str) -> None:
    config = read_config(name)
    batch, lr, schedule, gamma, milestones, epochs, augmentation = TABLE[name]
    assert (config.batch_size, config.lr, config.schedule, config.epochs) == (batch, lr, schedule, epochs)
    assert config.milestones == milestones
    assert gamma in (None, config.gamma)
    assert (config.data, config.augmentation, config.image_size, config.holdout) == ("imagenet", augmentation, 224, 0)
    assert (config.momentum, config.nesterov, config.weight_decay) == (0.9, True, 1e-4)
    assert (config.warmup_epochs, config.accumulate, config.ema, config.nonuniform) == (0, 1, 0, False)
    assert config.distill == (config.family != "s")
    assert config.label_smoothing == (0.1 if config.family == "autoslim" else 0)
    assert config.calibration_batches == (5 if config.family == "us" else 0)
    assert config.sandwich == 4


@pytest.mark.parametrize("name", CIFAR)
def test_the_ones_for_cifar_keep_the_resolution(name: str) -> None:
    config = read_config(name)
    assert (config.stem_stride, config.image_size, config.augmentation) == (1, 32, "cifar")
    assert config.data == name.rpartition("_")[2]
    assert (config.batch_size, config.lr, config.schedule, config.epochs) == (128, 0.1, "cosine", 200)


@pytest.mark.parametrize("config", [Config("s_shufflenet"), EVERY_KIND, *map(read_config, config_names())])
def test_what_is_written_is_read_back(config: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(config, output_dir="some/folder")
    assert read_config(write(tmp_path, dump_config(config))) == config
    assert make_config(plain(config), "again") == config
    assert list(yaml.safe_load(dump_config(config))) == list(FIELDS)


def test_channel_lists_are_read_back(tmp_path: Path) -> None:
    lists = tuple(published_spec("autoslim_mnasnet").channel_lists[:2])
    config = Config("autoslim_mnasnet", channel_lists=lists, output_dir="o")
    assert read_config(write(tmp_path, dump_config(config))) == config
    assert config.spec(7).plans == published_spec("autoslim_mnasnet").plans[:2]


def test_a_configuration_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config("s_shufflenet").lr = 1.0  # type: ignore[misc]


def test_a_file_needs_a_network_only(tmp_path: Path) -> None:
    assert read_config(write(tmp_path, "network: s_shufflenet\n")) == Config("s_shufflenet", output_dir="runs/a")
    assert read_config(write(tmp_path, "network: s_shufflenet\noutput_dir: ''\n")).output_dir == "runs/a"
    assert read_config(write(tmp_path, "network: s_shufflenet\noutput_dir: x\n")).output_dir == "x"


def test_a_file_without_a_suffix_is_a_path_and_a_folder_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()  # a data set that lies beside
    assert read_config("digits").data == "digits"
    (tmp_path / "mine").write_text("network: s_shufflenet\n")
    assert read_config("mine").output_dir == "runs/mine"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["lr=0.05"], {"lr": 0.05}),
        (["lr=1"], {"lr": 1.0}),
        (["weight_decay=1e-4"], {"weight_decay": 1e-4}),
        (["weight_decay=5E-5"], {"weight_decay": 5e-5}),
        (["seed=3", "seed=4"], {"seed": 4}),
        ([" seed = 3 "], {"seed": 3}),
        (["test_widths=[0.5, 1]"], {"test_widths": (0.5, 1.0)}),
        (["test_widths=0.5"], {"test_widths": (0.5,)}),
        (["test_widths="], {"test_widths": ()}),
        (["test_widths=[]"], {"test_widths": ()}),
        (["test_widths=null"], {"test_widths": ()}),
        (["schedule=multistep", "milestones=[3, 6]"], {"milestones": (3.0, 6.0)}),
        (["data_dir=a=b"], {"data_dir": "a=b"}),
        (["pretrained="], {"pretrained": ""}),
        (["pretrained=null"], {"pretrained": ""}),
        (["distill=false", "compile=yes"], {"distill": False, "compile": True}),
        (["best_by=0.5"], {"best_by": "0.5"}),
        (["output_dir="], {"output_dir": "runs/digits"}),
        (["network=us_mobilenet_v2"], {"network": "us_mobilenet_v2"}),
    ],
)
def test_set_changes_any_key(changes: list[str], expected: dict[str, Any]) -> None:
    config = read_config("digits", changes)
    for key, value in expected.items():
        assert getattr(config, key) == value
        assert type(getattr(config, key)) is type(value)


def test_options_count_above_set_and_none_is_not_given() -> None:
    config = read_config("digits", ["seed=3", "device=cpu"], seed=5, device=None, output_dir="o")
    assert (config.seed, config.device, config.output_dir) == (5, "cpu", "o")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("lr", "--set lr: expected key=value"),
        ("learning_rate=1", "key 'learning_rate' is not known"),
        ("epoch=1", "key 'epoch' is not known (did you mean 'epochs'?)"),
        ("num_epochs=1", "(did you mean 'epochs'?)"),  # a published key
        ("=1", "key '' is not known"),
        ("lr=[1, 2", "'[1, 2' is not a YAML value"),
        ("seed=2001-99-99", "is not a YAML value"),
        ("seed=" + "1" * 5000, "seed"),
        ("lr=!!python/name:os.system", "is not a YAML value"),
        ("test_widths=0.5,0.7", "test_widths is '0.5,0.7', expected a list, each entry a finite number"),
    ],
)
def test_a_change_that_cannot_be_is_refused(change: str, reason: str) -> None:
    with pytest.raises(UserError, match=re.escape(reason)):
        read_config("digits", [change])


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


@pytest.mark.parametrize("data", ["folder", "fake"])
def test_classes_are_those_of_the_data_unless_named(data: str) -> None:
    assert Config(US, data=data).known_classes == 0
    assert Config(US, data=data, classes=7).known_classes == 7
    assert Config(US, data="cifar100").known_classes == 100


def test_a_mistyped_name_gets_the_nearest() -> None:
    with pytest.raises(UserError, match=r"neither a file nor one of ours \(did you mean 'us_mobilenet_v1'\?\)"):
        read_config("us_mobilenetv1")


def test_a_missing_file_a_folder_and_a_binary_file_are_named(tmp_path: Path) -> None:
    for source in (tmp_path / "no.yml", f"app:{tmp_path / 'no.yml'}"):
        with pytest.raises(UserError, match=r"no\.yml: no such file"):
            read_config(str(source))
    (tmp_path / "b.yml").mkdir()
    for source in (tmp_path / "b.yml", f"app:{tmp_path}"):
        with pytest.raises(UserError, match="cannot be read"):
            read_config(str(source))
    for data in (b"\x80\x02}q\x00.", b"network: s_shufflenet\n\xff", b"\x00\x01\x02", bytes(range(256))):
        (tmp_path / "c.yml").write_bytes(data)
        for source in (tmp_path / "c.yml", f"app:{tmp_path / 'c.yml'}"):
            with pytest.raises(UserError, match=r"c\.yml"):
                read_config(str(source))
    for name in ("", "x" * 5000, "a\0b", "app:", str(tmp_path)):
        with pytest.raises(UserError):
            read_config(name)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "does not say which network to train"),
        ("lr: 1\n", "does not say which network to train"),
        ("just text\n", "expected `key: value` lines, found str"),
        ("- a\n", "expected `key: value` lines, found list"),
        ("1: 2\n", "expected `key: value` lines"),
        ("a: [1\n", "is not YAML"),
        ("network: s_shufflenet\nwidth_mult_list: [0.5]\n", "key 'width_mult_list' is not known"),
        ("network: s_shufflenet\nswitch: [0.5]\n", "did you mean 'switches'?"),
        ("network: !!python/name:os.system\n", "is not YAML"),
    ],
)
def test_a_file_of_another_form_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.yml: .*" + re.escape(reason)):
        read_config(write(tmp_path, text))


def test_configurations_are_read_without_torch() -> None:
    code = (
        "import sys; from slimtrain.config.reading import read_config; import slimtrain.config.published_keys;"
        "read_config('us_mobilenet_v1').spec(10); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
