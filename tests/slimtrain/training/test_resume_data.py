"""Going on where the data changed, with more epochs, and from weights of other classes."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from slimtrain.base.errors import CheckpointError, UserError
from slimtrain.data.samples import PartSamples
from slimtrain.training.inputs import data_of
from slimtrain.training.run import train
from tests.support.run_helpers import ALONE, config, raw, resume_refusal

STEPS = 8  # 2 epochs of 4
SETTINGS: dict[str, Any] = {"checkpoint_every": 2, "test_every": 2, "augmentation": "none"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(config(folder, **SETTINGS), ALONE)
    return folder


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def refusal(folder: Path, error: type[UserError], **changes: Any) -> str:
    return resume_refusal(folder, error, SETTINGS, **changes)


# ---------------------------------------------------------------------------------------------------- data that changed


def changed_data(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """The run's data is another one now."""
    real = data_of
    monkeypatch.setattr("slimtrain.training.run.data_of", lambda settings: dataclasses.replace(real(settings), **changes))


NAMES = tuple(f"class {i}" for i in range(10))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((*NAMES[:9], "cat"), "'class 9' no longer there and 'cat' new"),
        ((NAMES[1], NAMES[0], *NAMES[2:]), "in another order, class 0 was 'class 0' and is 'class 1'"),
        (NAMES[:9], "'class 9' no longer there"),
        ((*NAMES, "owl"), "'owl' new"),
    ],
    ids=["renamed", "another order", "fewer", "more"],
)
def test_other_classes_are_told(copied: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], words: str) -> None:
    changed_data(monkeypatch, classes=names)
    message = refusal(copied, UserError)
    assert "belongs to a run on other data" in message and words in message
    assert "resume=none" in message and "reset_classifier=true" in message


@pytest.mark.parametrize("part", ["train", "test"])
def test_another_number_of_images_is_told(copied: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    before = getattr(data_of(config(copied, **SETTINGS)), part)
    fewer = PartSamples(before, np.arange(len(before) - 1))
    changed_data(monkeypatch, **{part: fewer})
    message = refusal(copied, UserError)
    assert f"{len(before)} images to {part}, now there are {len(before) - 1}" in message


def test_a_number_that_is_missing_is_passed_over_and_the_other_is_told(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = raw(copied / "last.pt")
    before = content["training"]["images"]["test"]
    del content["training"]["images"]["train"]
    torch.save(content, copied / "last.pt")
    changed_data(monkeypatch, test=PartSamples(data_of(config(copied, **SETTINGS)).test, np.arange(before - 1)))
    assert f"{before} images to test, now there are {before - 1}" in refusal(copied, UserError)


def test_the_advice_on_changed_data_leads_on(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed_data(monkeypatch, classes=(*NAMES[:9], "cat"))
    settings = {**SETTINGS, "pretrained": str(copied / "last.pt"), "reset_classifier": True}
    assert train(config(copied.parent / "other", **settings), ALONE).exists()


def test_a_checkpoint_that_does_not_say_its_data_goes_on(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of older versions."""
    content = raw(copied / "last.pt")
    del content["class_names"], content["training"]["images"]
    torch.save(content, copied / "last.pt")
    changed_data(monkeypatch, classes=(*NAMES[:9], "cat"))
    assert train(config(copied, **SETTINGS, resume="auto"), ALONE).exists()


# ------------------------------------------------------------------------------------------------------- more epochs


@pytest.mark.parametrize("schedule", ["cosine", "exponential"])
def test_epochs_may_grow(tmp_path: Path, capsys: pytest.CaptureFixture[str], schedule: str) -> None:
    """The rate is that of a run of the new length from the next step on; it is said."""
    first = {**SETTINGS, "epochs": 1, "schedule": schedule, "warmup_epochs": 0.0}
    train(config(tmp_path / "run", **first), ALONE)
    capsys.readouterr()
    train(config(tmp_path / "run", **{**first, "epochs": 3, "resume": "auto"}), ALONE)
    lines = capsys.readouterr().out.splitlines()
    held = raw(tmp_path / "run" / "last.pt")["training"]
    assert held["step"] == 3 * STEPS // 2 and held["config"]["epochs"] == 3
    lr = held["config"]["lr"]
    expected = lr * (0.75 if schedule == "cosine" else 0.1)  # a third of half a wave is done: (1 + cos 60 deg) / 2
    said = next(line for line in lines if line.startswith("epochs is 3 in place of 1"))
    assert f"{expected:.4g} at the next step" in said


def test_epochs_that_did_not_change_are_not_mentioned(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(config(copied, **SETTINGS, resume="auto"), ALONE)
    assert "epochs is" not in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------------ pretrained weights


def test_pretrained_weights_of_other_classes(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed_data(monkeypatch, classes=(*NAMES[:9], "cat"))
    given = {**SETTINGS, "pretrained": str(whole / "last.pt")}
    with pytest.raises(CheckpointError, match=r"'class 9' no longer there and 'cat' new.*reset_classifier=true"):
        train(config(tmp_path / "run", **given), ALONE)
    assert not (tmp_path / "run").exists()
    assert train(config(tmp_path / "run", **given, reset_classifier=True), ALONE).exists()


def test_a_start_that_was_asked_for_and_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(config(tmp_path / "run", **{**SETTINGS, "epochs": 1}, reset_classifier=True), ALONE)
    assert "no pretrained weights: training begins with random ones" in capsys.readouterr().out
