"""What a run says: plurals, top-5 where it means something, and the `slimexport` line, which works here and now."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from slimtrain.base.errors import UserError
from slimtrain.data.datasets import Data
from slimtrain.data.fake import FakeSamples
from slimtrain.models.spec import NetworkSpec
from slimtrain.training import run as run_module
from slimtrain.training.evaluate import Scores, logit_spread
from slimtrain.training.inputs import carried_images, data_of, spread_indices
from slimtrain.training.report import describe_run, export_command, results_table, write_probes
from slimtrain.training.run import Run, train
from tests.support.run_helpers import ALONE, S2, US1, command, config, network_of, noise

PLANS = US1.plans


# --------------------------------------------------------------------------------------------------------- tables and lines


@pytest.mark.parametrize(("classes", "shown"), [(2, False), (5, False), (6, True), (1000, True), (0, True)])
def test_top_5_is_shown_of_more_than_five_classes(classes: int, shown: bool) -> None:
    table = results_table(PLANS, [Scores(1.0, 0.5, 1.0, 8, classes)] * 2)
    assert ("top-5" in table) == shown and ("100.00%" in table) == shown and table.count("50.00%") == 2


def test_of_one_there_is_no_plural() -> None:
    one = FakeSamples(1, 2, 16, "train")
    spec = NetworkSpec("mobilenet_v1", "us", (0.125, 0.25), 2, width_range=(0.125, 0.25), stem_stride=1)
    line = describe_run(spec, Data(one, one, ("cat", "dog")), config(Path("run"), batch_size=1, epochs=1), ALONE, 3, 1)
    assert "1 image to train, 1 to test, 2 classes" in line
    assert "1 process x 1 part x 1 image, 3 widths each; 1 step an epoch, 1 epoch" in line


# ------------------------------------------------------------------------------------------------------------- the command


def words(path: Path, **changes: Any) -> list[str]:
    given: dict[str, Any] = {"plans": PLANS, "network": "us_mobilenet_v1", "layout": "own", **changes}
    return shlex.split(export_command(path, **given))


def test_as_a_command_where_it_is_found_and_else_as_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}" if name == "slimexport" else None)
    assert words(Path("runs/a/us.pt")) == ["slimexport", "--ckpt", "runs/a/us.pt", "--widths", "0.125,0.25"]
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert words(Path("us.pt"))[:3] == [sys.executable, "-m", "slimexport"]


def test_paths_with_spaces_and_a_bundle_that_is_there_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """slimexport overwrites nothing: another folder is named, by the run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exports" / "us_mobilenet_v1").mkdir(parents=True)
    path = Path("runs/my run/us.pt")
    assert words(path)[-2:] == ["--output-dir", "exports/my run"]
    assert "'runs/my run/us.pt'" in export_command(path, PLANS, "us_mobilenet_v1", "own")
    (tmp_path / "exports" / "my run").mkdir()
    assert words(path)[-1] == "exports/my run_2"


def test_switches_of_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "0.5,0.25" in words(Path("s.pt"), plans=S2.plans)
    assert words(Path("runs/s.pt"), layout="published")[-2:] == ["--config", "runs/config.yml"]


# -------------------------------------------------------------------------------------------------- what it verifies with


def test_the_spread_of_logits_is_that_of_the_least_plan() -> None:
    network, images = network_of(US1), noise(4, 16)
    expected = []
    for plan in PLANS:
        with network.at(plan), torch.no_grad():
            logits = network(images).double().numpy()
        expected.append((logits.max(0) - logits.min(0)).max() / np.abs(logits).max())
    assert logit_spread(network, PLANS, images) == pytest.approx(min(expected))
    assert logit_spread(network, PLANS, images[:1].repeat(4, 1, 1, 1)) < 1e-6
    for name, parameter in network.named_parameters():
        if name.startswith("classifier."):
            torch.nn.init.zeros_(parameter)
    assert logit_spread(network, PLANS, images) == 0


def test_probes_are_images_from_all_over_the_set(tmp_path: Path) -> None:
    samples = FakeSamples(100, 10, 16, "test")
    assert write_probes(samples, tmp_path / "probes") == 8
    for index in spread_indices(100, 8):
        with Image.open(tmp_path / "probes" / f"{index}.png") as picture:
            assert np.array_equal(np.asarray(picture).transpose(2, 0, 1), np.asarray(samples.image(index)))


@pytest.mark.parametrize(
    ("spreads", "expected"),
    [([0.5], []), ([0.001, 0.3], ["--verify-data", "PROBES", "--probes", "8"]), ([0.001, 0.002], ["--no-verify"])],
    ids=["noise", "test images", "nothing"],
)
def test_how_its_files_are_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spreads: list[float], expected: list[str]
) -> None:
    left = list(spreads)
    monkeypatch.setattr(run_module, "logit_spread", lambda *args: left.pop(0))
    settings = config(tmp_path / "my run", epochs=1)
    finished = Run(settings, ALONE, data_of(settings))
    proof = finished.proof(finished.trainer.network, PLANS)
    assert proof == [str(tmp_path / "my run" / "probes") if word == "PROBES" else word for word in expected] and not left


@pytest.mark.parametrize(
    ("spreads", "expected"),
    [([0.5], []), ([0.001, 0.3], ["--probes", "8"]), ([0.001, 0.002], ["--no-verify"])],
)
def test_how_they_are_verified_on_images_that_the_checkpoint_carries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spreads: list[float], expected: list[str]
) -> None:
    left, counts = list(spreads), []

    def spread(network: object, plans: object, images: torch.Tensor) -> float:
        counts.append(len(images))
        return left.pop(0)

    monkeypatch.setattr(run_module, "logit_spread", spread)
    settings = config(tmp_path / "run", epochs=1, probe_images="yes")
    finished = Run(settings, ALONE, data_of(settings))
    carried = carried_images(settings, finished.images.data.test)
    assert carried is not None and finished.proof(finished.trainer.network, PLANS, carried) == expected
    assert not left and counts == [2, 8][: len(spreads)] and not (tmp_path / "run" / "probes").exists()


def test_the_line_works_where_noise_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a folder with a space, of a network with a bundle there already."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exports" / "us_mobilenet_v1").mkdir(parents=True)
    real = logit_spread
    calls: list[Any] = []

    def first_nothing(*args: Any) -> float:
        calls.append(args)
        return 0.0 if len(calls) == 1 else real(*args)

    monkeypatch.setattr(run_module, "logit_spread", first_nothing)
    train(config(Path("runs/my run"), epochs=1), ALONE)
    line = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert "--verify-data" in line and (tmp_path / "runs" / "my run" / "probes").is_dir()
    exported = command(*line[line.index("slimexport") + 1 :], module="slimexport", cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr
    assert (tmp_path / "exports" / "my run" / "manifest.json").exists()


def test_the_probes_of_a_run_are_its_own() -> None:
    with pytest.raises(UserError, match="a name that a run uses otherwise"):
        config(Path("run"), weights="probes")
