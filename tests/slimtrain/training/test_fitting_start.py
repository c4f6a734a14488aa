"""The learning rate of a start from pretrained weights, and what a resumed run keeps of what its configuration leaves open."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from slimtrain.config.config import Config, plain
from slimtrain.config.reading import read_config
from slimtrain.training.fitting import fitted, resumed, started
from tests.support.run_helpers import ALONE, config_file

TRAINED = {"pretrained": "weights.pt"}


def start(source: str, *changes: str, **options: Any) -> tuple[float, str]:
    settings, line = started(read_config(source, changes, **options))
    assert not settings.scratch_lr
    return settings.lr, line


def test_a_packaged_configurations_rate_is_for_random_weights() -> None:
    lr, line = start("digits", **TRAINED)
    assert lr == 0.005
    assert line == "lr is 0.005: a tenth of 0.05, as weights are pretrained ones. Set lr to choose another."
    assert start("us_mobilenet_v1", "pretrained=weights.pt")[0] == 0.05
    assert start("digits", batch_size=64, **TRAINED)[0] == 0.01  # it follows the batch first


@pytest.mark.parametrize("source", ["digits", "us_mobilenet_v1", "s_resnet50"])
def test_random_weights_begin_as_ever(source: str) -> None:
    assert start(source) == (read_config(source).lr, "")


@pytest.mark.parametrize(
    ("source", "changes", "options", "expected"),
    [
        ("digits", ["lr=0.03"], TRAINED, 0.03),
        ("digits", [], {**TRAINED, "lr": 0.03}, 0.03),
        ("digits", ["reset_classifier=true"], TRAINED, 0.05),  # a new classifier is not a trained one
        ("finetune", [], TRAINED, 0.02),  # the configuration is for trained weights itself
        ("finetune", ["reset_classifier=false"], TRAINED, 0.02),
    ],
)
def test_what_was_set_for_trained_weights_is_kept(
    source: str, changes: list[str], options: dict[str, Any], expected: float
) -> None:
    assert start(source, *changes, **options) == (expected, "")


def test_a_file_of_ones_own_says_its_rate_or_leaves_it_open(tmp_path: Path) -> None:
    said, silent = config_file(tmp_path / "said.yml", lr=0.07), config_file(tmp_path / "silent.yml")
    within = config_file(tmp_path / "within.yml", **TRAINED)
    assert start(str(said), **TRAINED) == (0.07, "")
    assert start(str(silent), **TRAINED)[0] == pytest.approx(0.01)
    assert start(str(silent)) == (0.1, "")
    assert start(str(within)) == (0.1, "")


def test_a_fitted_batch_and_the_tenth_come_together() -> None:
    given = read_config("us_mobilenet_v1", ["data=folder", "workers=0"], **TRAINED)
    settings, _ = fitted(given, given.spec(10), 189, ALONE)
    settings, line = started(settings)
    assert settings.lr == pytest.approx(0.5 * 40 / 1024 / 10, rel=1e-3) and "a tenth of 0.01953" in line


def test_a_resumed_run_keeps_its_rate_also_where_pretrained_is_left_out() -> None:
    for options in (TRAINED, {}):
        given = read_config("digits", **options)
        before = {**plain(given), **TRAINED, "lr": 0.005}
        again, line = started(resumed(given, before))
        assert (again.lr, line) == (0.005, "")
    asked = read_config("digits", ["lr=0.001"])
    assert resumed(asked, before).lr == 0.001
    scratch = read_config("digits", batch_size=32)
    assert resumed(scratch, {**plain(scratch), "lr": 0.2}).lr == 0.05  # of random weights it is read anew, as ever


def test_a_longer_run_keeps_the_stages_that_it_had() -> None:
    given = Config("us_mobilenet_v1", grow=(0.5, 0.25), epochs=10)
    longer = dataclasses.replace(given, epochs=30)
    assert resumed(longer, plain(given)).grow_epochs == 10
    assert resumed(longer, {**plain(given), "epochs": 20, "grow_epochs": 10}).grow_epochs == 10
    assert resumed(given, plain(given)).grow_epochs == 0
    assert resumed(dataclasses.replace(longer, grow_epochs=12), plain(given)).grow_epochs == 12
