"""Configurations are read and changed; the packaged ones are what their names promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from slimtrain.base.errors import UserError
from slimtrain.config.config import Config
from slimtrain.config.reading import CONFIGS, config_names, read_config
from slimtrain.models.published import GRIDS, PUBLISHED, published_spec

DETECTING = (
    *("detect_digits", "us_detect_digits", "s_ssdlite320_mobilenet_v3_large"),
    *(f"s_{kind}_resnet50" for kind in ("faster_rcnn", "mask_rcnn", "keypoint_rcnn", "retinanet")),
)
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


def write(folder: Path, text: str) -> str:
    (folder / "a.yml").write_text(text, encoding="utf-8")
    return str(folder / "a.yml")


def test_there_is_one_for_every_published_network_and_for_small_images() -> None:
    assert set(config_names()) == {*PUBLISHED, *CIFAR, *DETECTING, "digits", "finetune", "us_any"}
    assert set(TABLE) == set(PUBLISHED)


@pytest.mark.parametrize("name", [name for name in config_names() if not name.endswith("_any") and name not in DETECTING])
def test_a_packaged_configuration_is_valid_and_builds_its_network(name: str) -> None:
    config = read_config(name)
    assert config.output_dir == f"runs/{name}"
    assert (config.known_classes > 0) != (name == "finetune")  # its classes are the folders'
    spec = config.spec(config.known_classes or 3)
    assert spec.name == config.network == f"{config.family}_{spec.architecture}"
    assert name.startswith(config.network) or name in ("digits", "finetune")
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


def test_a_file_needs_a_network_only(tmp_path: Path) -> None:
    assert read_config(write(tmp_path, "network: s_shufflenet\n")) == Config(
        "s_shufflenet", output_dir="runs/a", scratch_lr=True
    )
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
        (["test_widths=0.5, 0.75"], {"test_widths": (0.5, 0.75)}),
        (["grow=0.75,0.5,0.25", "teacher=inplace"], {"grow": (0.75, 0.5, 0.25), "teacher": "inplace"}),
        (["search_targets=150M,1.2G"], {"search_targets": ("150M", "1.2G")}),
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
        ("test_widths=0.5,wide", "test_widths is ['0.5', 'wide'], expected a list, each entry a finite number"),
    ],
)
def test_a_change_that_cannot_be_is_refused(change: str, reason: str) -> None:
    with pytest.raises(UserError, match=re.escape(reason)):
        read_config("digits", [change])


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
