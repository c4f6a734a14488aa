"""Options that are keys of a configuration: their defaults, the real spelling of unknown ones, lr after the batch."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
import yaml

from slimtrain.cli import main
from slimtrain.config.config import Config
from slimtrain.config.reading import read_config
from tests.support.run_helpers import config_file, done, refused, run


@pytest.mark.parametrize("name", ["train", "search", "test", "calibrate", "profile"])
def test_every_option_says_its_default(name: str) -> None:
    options = [parameter for parameter in main.commands[name].params if isinstance(parameter, click.Option)]
    described = [option for option in options if option.opts[0] not in ("--set", "--dry-run")]
    assert len(described) > 1
    for option in described:
        help_text = option.help or ""
        assert "[default: " in help_text or "[required]" in help_text or option.show_default, option.opts
    assert "[default: " in " ".join(done(name, "--help").out.split())


def test_the_defaults_that_are_said_are_those_of_the_configuration() -> None:
    text = " ".join(done("train", "--help").out.split())
    plain_config = Config("us_mobilenet_v1")
    for key in ("lr", "epochs", "batch_size", "image_size", "workers", "device", "amp", "best_by"):
        said = re.search(rf"--{key.replace('_', '-')} [A-Z]+ .*?\[default: CONFIG's, else ([\w.]+)\]", text)
        assert said and said[1] == str(getattr(plain_config, key)), key


@pytest.mark.parametrize("name", ["train", "search"])
@pytest.mark.parametrize("option", ["--batch-size", "--lr", "--epochs", "--image-size"])
def test_the_keys_that_are_changed_most_are_options(name: str, option: str) -> None:
    assert option in {opt for parameter in main.commands[name].params for opt in parameter.opts}


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--learning-rate", "Did you mean --lr?"),
        ("--batchsize", "Did you mean --batch-size?"),
        ("--bs", "Did you mean --batch-size?"),
        ("--imgsz", "Did you mean --image-size?"),
        ("--epoch", "--epochs"),
        ("--momentum", "--set momentum=VALUE"),
        ("--weight_decay", "--set weight_decay=VALUE"),
        ("--num-classes", "--set classes=VALUE"),
        ("--label-smothing", "Did you mean --set label_smoothing=VALUE?"),
        ("--nonsense", "No such option"),
    ],
)
def test_an_unknown_option_is_told_its_real_spelling(option: str, words: str) -> None:
    refused(run("train", "digits", option, "1"), 2, "No such option", option, words)


def test_an_option_of_another_command_is_a_key_here() -> None:
    refused(run("profile", "digits", "--image-size", "32"), 2, "--set image_size=VALUE")


@pytest.mark.parametrize(("key", "meant"), [("learning_rate", "lr"), ("imgsz", "image_size"), ("wd", "weight_decay")])
def test_keys_that_are_called_otherwise_elsewhere(key: str, meant: str) -> None:
    refused(run("train", "digits", "--set", f"{key}=1"), 2, f"key '{key}' is not known (did you mean '{meant}'?)")


# ---------------------------------------------------------------------------------------------------------- lr and batch


def test_lr_as_an_option_and_as_a_key(tmp_path: Path) -> None:
    file = config_file(tmp_path / "tiny.yml")
    for words in (["--lr", "0.02"], ["--set", "lr=0.02"]):
        shown = yaml.safe_load(done("train", file, *words, "--batch-size", "4", "--dry-run").out)
        assert (shown["lr"], shown["batch_size"]) == (0.02, 4)


def test_lr_follows_the_batch_and_it_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = config_file(tmp_path / "tiny.yml", lr=0.08, batch_size=8)
    with caplog.at_level("INFO"):
        for words in (["--batch-size", "4"], ["--set", "batch_size=4"]):
            caplog.clear()
            assert yaml.safe_load(done("train", file, *words, "--dry-run").out)["lr"] == 0.04
            assert caplog.text.count("lr is 0.04: it follows batch_size (0.08 is for 8, this is 4). Set lr") == 1


def test_a_batch_of_the_files_own_size_changes_nothing() -> None:
    given = read_config("us_mobilenet_v1")
    assert read_config("us_mobilenet_v1", ["batch_size=1024"]).lr == given.lr == 0.5
    assert given.fit_batch and not read_config("us_mobilenet_v1", ["batch_size=1024"]).fit_batch


def test_a_published_file_follows_too(tmp_path: Path) -> None:
    (tmp_path / "s.yml").write_text("model: models.s_mobilenet_v1\nlr: 0.32\nbatch_size: 256\nnum_epochs: 1\n")
    source = f"app:{tmp_path / 's.yml'}"
    assert (read_config(source).lr, read_config(source).fit_batch) == (0.32, True)
    for given in (read_config(source, ["batch_size=64"]), read_config(source, batch_size=64)):
        assert (given.batch_size, given.lr, given.fit_batch) == (64, 0.08, False)
    assert read_config(source, ["batch_size=64", "lr=0.2"]).lr == 0.2
    assert not read_config(source, ["batch_size=256"]).fit_batch


def test_a_file_of_ones_own_keeps_its_batch(tmp_path: Path) -> None:
    given = read_config(str(config_file(tmp_path / "tiny.yml")))
    assert not given.fit_batch and not given.scale_lr
