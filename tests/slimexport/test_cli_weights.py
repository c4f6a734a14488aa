"""--weights: which of several sets of weights is exported, what is said of it, and that it is found again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from slimexport.target.manifest import read_manifest
from tests.support.export_helpers import random_state, refused, run, small_spec, write_checkpoint

SIZE = ("--image-size", "32", "--widths", "0.25")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights and their average, which differ by the classifier's bias."""
    state = {key: t.float() if t.is_floating_point() else t for key, t in random_state(small_spec()).items()}
    average = {**state, "classifier.0.bias": state["classifier.0.bias"] + 1}
    path = tmp_path_factory.mktemp("weights") / "both.pt"
    torch.save({"state_dict": {f"module.{k}": t for k, t in state.items()}, "model_ema": average, "epoch": 3}, path)
    return path


def logits(folder: Path) -> np.ndarray:
    reference = np.load(folder / "reference.npz")
    values: np.ndarray = reference["logits_x0_25"]
    return values


def test_the_choice_is_told_and_another_can_be_taken(both: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outcomes = {
        name: run("--ckpt", both, *SIZE, *(("--weights", name) if name else ()), "--output-dir", tmp_path / f"b{name}")
        for name in ("", "model", "ema", "model_ema")
    }
    assert all(outcome.code == 0 for outcome in outcomes.values())
    lines = [record.getMessage() for record in caplog.records if "sets of weights" in record.getMessage()]
    assert len(lines) == 1, "nothing is said of a choice that was made"
    assert "holds 2 sets of weights. Taken: state_dict. Others, which --weights KEY takes: model_ema (an average)" in lines[0]
    plain, average = logits(tmp_path / "b"), logits(tmp_path / "bema")
    np.testing.assert_allclose(average - plain, 1, atol=1e-6)
    np.testing.assert_array_equal(logits(tmp_path / "bmodel"), plain)
    np.testing.assert_array_equal(logits(tmp_path / "bmodel_ema"), average)
    assert [read_manifest(tmp_path / f"b{name}").source.weights for name in ("", "ema")] == [None, "ema"]


def test_a_key_that_is_not_there_is_refused(both: Path, tmp_path: Path) -> None:
    outcome = run("--ckpt", both, *SIZE, "--weights", "emma", "--output-dir", tmp_path / "b")
    refused(outcome, 2, "nothing is called so", "It holds state_dict, model_ema (an average)")
    assert not (tmp_path / "b").exists()
    refused(run("--ckpt", "random:s_mobilenet_v1", "--weights", "ema"), 2, "--weights are for files")


def test_one_set_of_weights_is_the_model(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "small.pt")
    assert run("--ckpt", path, *SIZE, "--weights", "model", "--dry-run").code == 0
    refused(run("--ckpt", path, *SIZE, "--weights", "ema", "--dry-run"), 2, "nothing is called so")
