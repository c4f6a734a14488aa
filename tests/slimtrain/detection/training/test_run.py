"""A detector's run: what it leaves, that it goes on bit for bit where it was killed, and what it cannot be."""

from __future__ import annotations

import csv
import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from slimtrain.base.errors import UserError
from slimtrain.base.packages import is_installed
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.config.config import Config
from slimtrain.detection.training.inputs import data_of
from slimtrain.detection.training.run import DetectorRun, detector_start, settings_of
from slimtrain.detection.training.testing import evaluate_detector
from slimtrain.running import train
from tests.support.coco_folders import annotation, content, write_coco
from tests.support.detector_runs import detector_config
from tests.support.run_helpers import ALONE, differences, done, export_words, raw, refused, run, timeless

pytestmark = pytest.mark.skipif(not is_installed("faster_coco_eval"), reason="pip install '.[detection]'")
SETTINGS: dict[str, Any] = {"ema": 0.9, "checkpoint_every": 2, "log_every": 2}


class Killed(BaseException):
    """As a kill is, nothing catches it."""


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The run ends before step `step`."""
    real = DetectorRun.train_step

    def method(self: DetectorRun, batch: Any) -> Any:
        if self.state.step == step:
            raise Killed
        return real(self, batch)

    monkeypatch.setattr(DetectorRun, "train_step", method)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody kills."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(detector_config(folder, **SETTINGS), ALONE)
    return folder


@pytest.mark.parametrize("step", [1, 5])
def test_killed_within_an_epoch_it_goes_on_bit_for_bit(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Before the first checkpoint, and a step behind one in the middle of the second epoch."""
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        kill_at(patch, step)
        with pytest.raises(Killed):
            train(detector_config(folder, **SETTINGS), ALONE)
    assert (folder / "last.pt").exists() == (step > 1) and not (folder / "s_faster_rcnn.pt").exists()
    torch.manual_seed(99)  # of no account
    train(detector_config(folder, resume="auto", **SETTINGS), ALONE)
    for name in ("s_faster_rcnn.pt", "last.pt", "best.pt"):
        assert differences(timeless(folder / name), timeless(whole / name)) == [], name


def test_another_seed_is_another_run(whole: Path, tmp_path: Path) -> None:
    """What the comparison above would see."""
    train(detector_config(tmp_path / "run", seed=1, **SETTINGS), ALONE)
    assert differences(timeless(tmp_path / "run" / "last.pt"), timeless(whole / "last.pt"))


def test_the_checkpoint_is_a_detector_with_its_settings_classes_and_scenes(whole: Path) -> None:
    config = detector_config(whole, **SETTINGS)
    checkpoint = open_checkpoint(whole / "s_faster_rcnn.pt")
    start = detector_start(config, data_of(config))
    assert settings_of(checkpoint.network) == settings_of(start.network)
    assert checkpoint.class_names == tuple("0123456789") and checkpoint.image_size == 64
    scenes = data_of(config).test
    assert checkpoint.probe_images is not None and len(checkpoint.probe_images) == len(scenes) == 4
    assert all(torch.equal(own, torch.as_tensor(scenes.image(i))) for i, own in enumerate(checkpoint.probe_images))
    assert checkpoint.settings["detector"]["neck"] == 8


def test_the_rows_are_a_plan_s_precision_at_every_test(whole: Path) -> None:
    summary = rows(whole)
    assert [(row["epoch"], row["width"]) for row in summary] == [("1", "0.5"), ("1", "1.0"), ("2", "0.5"), ("2", "1.0")]
    config = detector_config(whole, **SETTINGS)
    start = detector_start(config, data_of(config), raw(whole / "last.pt"))
    averaged = DetectorRun(dataclasses.replace(config, resume="auto"), ALONE, data_of(config), start)
    averaged.restore(whole / "last.pt", raw(whole / "last.pt"))
    tested = averaged.trainer.tested
    plans = [tested.plan(width) for width in (0.5, 1.0)]
    results = evaluate_detector(tested, averaged.settings, plans, averaged.images.testing())
    for row, result in zip(summary[2:], results, strict=True):
        assert [float(row[key]) for key in ("ap", "ap50", "ap75")] == pytest.approx(list(result.figures.values()))
        assert float(row["train_loss"]) > 0


def test_each_loss_is_in_the_lines_and_in_the_rows(whole: Path) -> None:
    names = ["classes", "boxes", "objectness", "proposals"]
    for row in rows(whole):
        losses = [float(row[f"train_{name}"]) for name in names]
        assert min(losses) >= 0 and sum(losses) == pytest.approx(float(row["train_loss"]), rel=1e-4)
    text = (whole / "train.log").read_text()
    (line,) = re.findall(r"^epoch 1/2 step 2/3  loss 1: (\S+), 0\.5: (\S+) \((.*)\)  lr ", text, re.MULTILINE)
    parts = dict(part.split() for part in line[2].split(", "))
    assert list(parts) == names
    assert sum(map(float, parts.values())) == pytest.approx((float(line[0]) + float(line[1])) / 2, abs=0.004)
    assert re.search(r"^width  train loss +classes +boxes +objectness +proposals +AP +AP50$", text, re.MULTILINE)


def test_settings_of_a_resumed_run_are_those_that_it_began_with(whole: Path, tmp_path: Path) -> None:
    for changes, message in (
        ({"detector": {"neck": 16}}, "network|settings"),
        ({"detector": {"rpn_sampled": 16}}, "settings: detector.rpn_sampled was 32 and is 16"),
        ({"detector": {"scenes": 16}}, "detector.scenes was 12 and is 16"),
    ):
        with pytest.raises(UserError, match=message):
            train(detector_config(tmp_path / "run", resume=str(whole), **{**SETTINGS, **changes}), ALONE)


@pytest.mark.parametrize(
    ("detector", "message"),
    [
        ({"norms": "frozen"}, r"norms: frozen: norms would keep .* or set detector\.norms: switchable"),
        ({"frozen_stages": 0}, r"frozen_stages: 0: these stages would keep random .* or set detector\.frozen_stages: -1"),
    ],
)
def test_random_weights_are_not_frozen(tmp_path: Path, detector: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        train(detector_config(tmp_path / "run", detector=detector), ALONE)
    assert not (tmp_path / "run").exists()


def test_masks_are_learned_and_measured_in_half_precision_and_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = train(detector_config(tmp_path / "run", network="s_mask_rcnn", epochs=1, amp="bf16", accumulate=2), ALONE)
    assert settings_of(open_checkpoint(path).network).mask is not None
    assert {"ap", "ap50", "ap_masks", "ap50_masks"} <= rows(tmp_path / "run")[0].keys()
    out = capsys.readouterr().out
    assert "width     AP   AP50  mask AP  mask AP50" in out and "1 process x 2 parts x 2 images" in out


def test_a_universal_one_is_calibrated_at_the_widths_that_are_asked_for(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"network": "us_faster_rcnn", "epochs": 1, "test_widths": [0.75]}
    path = train(detector_config(tmp_path / "run", **changes), ALONE)
    network = open_checkpoint(path).network
    assert [network.has_statistics(network.plan(width)) for width in (0.5, 0.75, 1.0, 0.6)] == [True, True, True, False]
    for mean, variance in network.statistics(network.plan(0.75)).values():
        assert mean.abs().sum() > 0 and (variance != 1).any()


def test_it_begins_with_another_detector_s_weights_and_says_so(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = detector_config(tmp_path / "run", epochs=1, lr=0.0, pretrained=str(whole / "s_faster_rcnn.pt"))
    path = train(settings, ALONE)
    before, after = (open_checkpoint(file).network.state_dict() for file in (whole / "s_faster_rcnn.pt", path))
    learned = [name for name, value in before.items() if value.dim() == 4]
    assert learned and all(torch.equal(before[name], after[name]) for name in learned)
    assert "s_faster_rcnn.pt: s_faster_rcnn's weights" in capsys.readouterr().out


# --------------------------------------------------------------------------------------------------------- the commands


def shrunk(**changes: Any) -> list[str]:
    """Options that make the packaged configuration as small as the tiny one."""
    config = detector_config(Path("x"), **changes)
    assert config.detector is not None
    plain = {key: getattr(config, key) for key in ("image_size", "switches", "batch_size", "epochs")}
    plain |= {f"detector.{key}": value for key, value in vars(config.detector).items()}
    texts = {key: str(value).replace("(", "[").replace(",)", "]").replace(")", "]") for key, value in plain.items()}
    return [word for key, text in texts.items() if text != "True" for word in ("--set", f"{key}={text.lower()}")]


def test_the_commands_train_test_calibrate_and_try_out(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*shrunk(epochs=1), "--set", "device=cpu"]
    trained = done("train", "detect_digits", *words)
    assert export_words(trained)[:4] == ["--ckpt", "runs/detect_digits/s_faster_rcnn.pt", "--widths", "0.5,1.0"]
    path = "runs/detect_digits/s_faster_rcnn.pt"
    tested = done("test", "detect_digits", *words, "--ckpt", path)
    assert tested.lines[-3:] == [line for line in trained.lines if line.split()[0] in ("width", "0.5", "1.0")][-3:]
    assert '"ap50"' in done("test", "detect_digits", *words, "--ckpt", path, "--json").out
    assert (
        done("train", "detect_digits", *words, "--set", "test_only=true", "--pretrained", path).lines[-3:]
        == (tested.lines[-3:])
    )
    calibrated = done("calibrate", "detect_digits", *words, "--ckpt", path, "--set", "calibration_batches=2")
    assert "s_faster_rcnn_calibrated.pt: 2 widths calibrated: x0_5, x1_0" in calibrated.out
    before, after = (open_checkpoint(file).network for file in (path, path.replace(".pt", "_calibrated.pt")))
    assert len(after.calibrated) == 2 and not before.calibrated
    tried = done("train", "detect_digits", *words, "--dry-run", "--resume", "auto")
    assert "# goes on with runs/detect_digits/last.pt, after step 3" in tried.out and "one step of 4 fake images" in tried.out


def test_a_dry_run_needs_no_folder_and_names_what_cannot_be_read(tmp_path: Path) -> None:
    words = [*shrunk(network="s_mask_rcnn"), "--set", "network=s_mask_rcnn", "--set", "data=coco", "--set", "device=cpu"]
    unnamed = done("train", "detect_digits", *words, "--dry-run")
    assert "# data_dir is not set: coco is not looked at" in unnamed.out and "fake images" in unnamed.out
    folder = write_coco(tmp_path / "coco", content([annotation(1), annotation(2, 2)], images=2))
    (folder / "train2017" / "001.png").write_bytes(b"none")
    outcome = done("train", "detect_digits", *words, "--data-dir", folder, "--batch-size", "2", "--dry-run")
    assert "# data: 2 classes (cat, dog), 2 images to train, 2 to test" in outcome.out
    assert f"warning: {folder}/train2017/001.png: cannot be read" in outcome.out


@pytest.mark.parametrize("words", [("train",), ("train", "--dry-run"), ("test",), ("calibrate",)])
def test_a_classifier_s_file_is_refused_for_a_detector_and_the_reverse(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    command, *options = words
    given = "--pretrained" if command == "train" else "--ckpt"
    detector = whole / "s_faster_rcnn.pt"
    outcome = run(command, "digits", given, detector, *options, "--set", "device=cpu")
    assert outcome.code == 2 and "Traceback" not in outcome.err, outcome
    if command != "train":
        refused(outcome, 2, "is a detector, a faster_rcnn, and network us_mobilenet_v1 a classifier")
        small = ("random:s_mobilenet_v2", "is a s_mobilenet_v2, no detector, and the configuration is of a faster_rcnn")
        refused(run(command, "detect_digits", given, small[0], *options, "--set", "device=cpu"), 2, small[1])


# ------------------------------------------------------------------------------------------------------------- bad input


def coco(folder: Path, **changes: Any) -> Config:
    return detector_config(folder / "run", data="coco", data_dir=str(folder / "coco"), epochs=1, batch_size=2, **changes)


def test_a_folder_s_missing_parts_are_named(tmp_path: Path) -> None:
    (tmp_path / "coco").mkdir()
    with pytest.raises(UserError, match="holds no annotations of train images"):
        train(coco(tmp_path), ALONE)
    with pytest.raises(UserError, match="data_dir is not set"):
        train(dataclasses.replace(coco(tmp_path), data_dir=""), ALONE)
    write_coco(tmp_path / "coco", content([annotation(1), annotation(2, 2)]))
    with pytest.raises(UserError, match="classes is 9, but the data has 2"):
        train(coco(tmp_path, classes=9), ALONE)
    with pytest.raises(UserError, match=r"batch_size|accumulate 4: a batch of 2 images"):
        train(dataclasses.replace(coco(tmp_path), batch_size=2, accumulate=4), ALONE)
    assert not (tmp_path / "run").exists()


def test_batches_of_one_image_with_nothing_and_with_a_thousand_objects_are_trained_on(tmp_path: Path) -> None:
    """A crowd alone is nothing to learn from, beside a dog; the other image has a thousand of them."""
    crowds = [annotation(number, 2) for number in range(2, 1002)]
    rows_of = content([annotation(1), *crowds], images=2)
    write_coco(tmp_path / "coco", rows_of)
    settings = dataclasses.replace(coco(tmp_path, detector={"scales": [32, 64], "longest": 128}), batch_size=1)
    path = train(settings, ALONE)
    assert open_checkpoint(path).class_names == ("cat", "dog")
    empty = drawn_without_objects(settings)
    assert all(torch.isfinite(loss) for loss in empty)


def drawn_without_objects(config: Config) -> list[torch.Tensor]:
    """The losses of a step on a batch in which nothing is to be found."""
    data = data_of(config)
    job = DetectorRun(config, ALONE, data, detector_start(config, data))
    batch = next(job.images.training())
    nothing = tuple(target.only(torch.zeros(len(target), dtype=torch.bool)) for target in batch.targets)
    return list(job.train_step(batch._replace(targets=nothing)))


def test_images_in_which_nothing_is_to_be_found_cannot_be_tested_on(tmp_path: Path) -> None:
    write_coco(tmp_path / "coco", content([annotation(1), annotation(2, 2)]), content([], images=2))
    with pytest.raises(UserError, match="no test image shows an object"):
        train(coco(tmp_path), ALONE)
