"""--weights of `test`, `calibrate`, `train` and `search`: of a file that holds weights and their average."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.training.run import train
from tests.support.run_helpers import ALONE, config, config_file, done, raw, refused, run

KEYS = {"epochs": 1, "ema": 0.5, "test_widths": []}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that averaged its weights."""
    folder = tmp_path_factory.mktemp("run")
    train(config(folder, **KEYS), ALONE)
    return folder


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return config_file(tmp_path / "tiny.yml", test_widths=[])


def test_our_own_file_of_a_run_holds_an_average_too(finished: Path) -> None:
    content = raw(finished / "last.pt")
    for wanted, prefix, expected in (
        (None, "", content["model"]),
        ("model", "", content["model"]),
        ("ema", "module.", content["training"]["ema"]),
        ("training.ema", "module.", content["training"]["ema"]),
    ):
        held = open_checkpoint(finished / "last.pt", weights=wanted).network.state_dict()
        assert all(torch.equal(value, expected[f"{prefix}{key}"]) for key, value in held.items()), wanted
    assert not torch.equal(content["model"]["classifier.0.bias"], content["training"]["ema"]["module.classifier.0.bias"])


def test_a_checkpoint_is_tested_with_the_weights_that_are_named(finished: Path, file: Path) -> None:
    def loss(ckpt: Path, *more: str) -> float:
        figure: float = json.loads(done("test", file, "--ckpt", ckpt, "--widths", "0.25", "--json", *more).out)[0]["loss"]
        return figure

    plain, average = loss(finished / "last.pt"), loss(finished / "last.pt", "--weights", "ema")
    assert plain != average
    assert loss(finished / "best.pt") == pytest.approx(average, rel=1e-5)  # which holds the average


def test_calibration_starts_from_them(finished: Path, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.pt"
    done("calibrate", file, "--ckpt", finished / "last.pt", "--weights", "ema", "--output", out)
    expected = open_checkpoint(finished / "last.pt", weights="ema").network.state_dict()["classifier.0.weight"]
    assert torch.equal(open_checkpoint(out).network.state_dict()["classifier.0.weight"], expected)


def test_training_starts_from_them(finished: Path, tmp_path: Path, file: Path) -> None:
    expected = open_checkpoint(finished / "last.pt", weights="ema").network.state_dict()["classifier.0.weight"]
    options = ("--pretrained", finished / "last.pt", "--weights", "ema", "--output-dir", tmp_path / "run")
    done("train", file, *options, "--set", "lr=0", "--epochs", "1")
    assert torch.equal(open_checkpoint(tmp_path / "run" / "last.pt").network.state_dict()["classifier.0.weight"], expected)
    assert "pretrained_weights: ema" in (tmp_path / "run" / "config.yml").read_text()


def test_weights_of_no_checkpoint_are_refused(file: Path) -> None:
    refused(run("train", file, "--weights", "ema"), 2, "pretrained names no checkpoint. Set it: --pretrained PATH")
    refused(run("search", file, "--targets", "1M", "--weights", "ema"), 2, "Name it: --ckpt PATH")
