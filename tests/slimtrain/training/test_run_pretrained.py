"""Runs from pretrained weights: a frozen teacher, a range of widths that grows, and going on with such a run bit for bit."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from slimtrain.base.errors import UserError, WidthError
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.checkpoints.own_layout import own_content
from slimtrain.checkpoints.writing import save
from slimtrain.config.config import Config
from slimtrain.slimmable.calibrate import calibrate
from slimtrain.slimmable.norms import UniversalNorm
from slimtrain.training.inputs import RunImages, data_of
from slimtrain.training.resume import run_to_resume
from slimtrain.training.run import Run, train
from tests.support.run_helpers import (
    ALONE,
    US1,
    config,
    config_file,
    differences,
    done,
    failure,
    network_of,
    raw,
    refused,
    run,
)

GROWING: dict[str, Any] = {"teacher": "frozen", "grow": [0.25, 0.1875, 0.125], "epochs": 3, "ema": 0.9, "checkpoint_every": 2}
STEPS = 4  # an epoch
TIMING = ("images_per_s", "data_wait")


class Killed(BaseException):
    """As a kill is, nothing catches it."""


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that was trained at full width only."""
    folder = tmp_path_factory.mktemp("full")
    one = {"network": "s_mobilenet_v1", "switches": [0.25], "width_range": [], "test_widths": [], "epochs": 1}
    return train(config(folder, **one, weights="full.pt"), ALONE)


@pytest.fixture(scope="module")
def whole(full: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from it that nobody kills."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(config(folder, pretrained=str(full), **GROWING), ALONE)
    return folder


def content(path: Path) -> dict[str, Any]:
    held = raw(path)
    if "training" in held:
        held["training"]["rows"] = [{k: v for k, v in row.items() if k not in TIMING} for row in held["training"]["rows"]]
        for key in ("output_dir", "resume", "pretrained"):
            del held["training"]["config"][key]
    return held


# ------------------------------------------------------------------------------------------------------------ the teacher


def test_the_teacher_is_the_pretrained_network_and_stays_it(full: Path, whole: Path) -> None:
    kept = raw(whole / "last.pt")["training"]["teacher"]
    begun = Run(config(whole, pretrained=str(full), **GROWING), ALONE, data_of(config(whole)))
    begun.start_from(open_checkpoint(full))
    assert begun.trainer.teacher is not None
    assert differences(kept, dict(begun.trainer.teacher.network.state_dict())) == []
    theirs = open_checkpoint(full).network
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode(), theirs.at(theirs.spec.widest):
        torch.testing.assert_close(begun.trainer.teacher(x), theirs(x).softmax(1), rtol=1e-5, atol=1e-7)
    trained = raw(whole / "last.pt")["model"]
    assert not torch.equal(trained["features.0.0.weight"], kept["features.0.0.weight"])


def test_the_teacher_in_a_checkpoint_is_not_taken_for_the_network(whole: Path) -> None:
    """Nor for the average of its weights."""
    held, last = raw(whole / "last.pt"), whole / "last.pt"
    ema = {key.removeprefix("module."): value for key, value in held["training"]["ema"].items()}
    key = "features.0.0.weight"
    for weights, expected in ((None, held["model"]), ("model", held["model"]), ("ema", ema)):
        assert torch.equal(open_checkpoint(last, weights=weights).network.state_dict()[key], expected[key])
    assert len({float(state[key].sum()) for state in (held["model"], ema, held["training"]["teacher"])}) == 3


def test_statistics_that_the_file_lacks_are_taken_from_training_images(tmp_path: Path) -> None:
    """As a published universally slimmable checkpoint may lack them."""
    bare = network_of(US1)
    for norm in bare.norms.values():
        assert isinstance(norm, UniversalNorm)
        for stored in norm.bn:
            assert isinstance(stored, torch.nn.BatchNorm2d)
            stored.reset_running_stats()
    save(own_content(bare, 16, [0.5] * 3, [0.25] * 3, [f"class {i}" for i in range(10)]), tmp_path / "bare.pt")
    settings = config(tmp_path / "run", pretrained=str(tmp_path / "bare.pt"), teacher="frozen")
    begun = Run(settings, ALONE, data_of(settings))
    line = begun.start_from(open_checkpoint(tmp_path / "bare.pt"))
    assert "which the file lacks, are of 2 batches of 8 of the 32 training images" in line
    plan = US1.widest
    expected = open_checkpoint(tmp_path / "bare.pt").network
    calibrate(expected, [plan], RunImages(settings, data_of(settings), ALONE).calibrating())
    assert begun.trainer.teacher is not None and begun.trainer.teacher.network.calibrated == {}
    for network in (begun.trainer.teacher.network, begun.trainer.network):
        for path, pair in expected.statistics(plan).items():
            for own, other in zip(network.statistics(plan)[path], pair, strict=True):
                torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-4)
    without = config(
        tmp_path / "other", pretrained=settings.pretrained, teacher="frozen", calibration_batches=0, test_widths=[]
    )
    message = failure(without, WidthError, "no batch-norm statistics at all", "set calibration_batches")
    assert message.startswith("width 0.25: bare.pt") and not (tmp_path / "other").exists()
    train(settings, ALONE)  # what it advises leads on


def test_a_network_of_one_width_is_a_start_for_every_family(full: Path, tmp_path: Path) -> None:
    for changes in ({}, {"network": "s_mobilenet_v1", "switches": [0.25, 0.125], "width_range": [], "test_widths": []}):
        settings = config(tmp_path, pretrained=str(full), **changes)
        begun = Run(settings, ALONE, data_of(settings))
        assert begun.start_from(open_checkpoint(full)) == ""
        network, theirs = begun.trainer.network.eval(), open_checkpoint(full).network
        x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(3))
        with torch.inference_mode(), theirs.at(theirs.spec.widest), network.at(begun.spec.plan(0.25)):
            assert torch.equal(network(x), theirs(x))
        with network.at(begun.spec.plan(0.125)), theirs.at(theirs.spec.widest):
            for path, norm in network.norms.items():
                scale, wide = norm.scale_and_shift()[0], theirs.norms[path].scale_and_shift()[0]
                assert torch.equal(scale, wide[: len(scale)])


# --------------------------------------------------------------------------------------------------------------- stages


def test_widths_are_tested_once_they_are_trained_and_best_is_of_all(whole: Path) -> None:
    with (whole / "summary.csv").open(newline="") as file:
        tested: dict[int, list[str]] = {}
        for row in csv.DictReader(file):
            tested.setdefault(int(row["epoch"]), []).append(row["plan"])
            assert float(row["train_loss"]) > 0
    assert tested == {1: ["x0_25"], 2: ["x0_25"], 3: ["x0_125", "x0_25"]}
    log = (whole / "train.log").read_text()
    assert [line.split(":")[0] for line in log.splitlines() if line.startswith("stage")] == [
        "stage 1 of 3, epoch 1",
        "stage 2 of 3, epoch 2",
        "stage 3 of 3, from epoch 3 on",
    ]
    assert "teacher: width 0.25 of full.pt, frozen; 0.5 of the loss of every width" in log
    assert len(raw(whole / "best.pt")["class_names"]) == 10  # written in the last stage
    calibrated = [entry["name"] for entry in raw(whole / "us_mobilenet_v1.pt")["calibrated"]]
    assert sorted(calibrated) == ["x0_125", "x0_1875", "x0_25"]  # as ever


def test_a_run_of_switches_leaves_the_narrow_ones_alone_until_their_stage(full: Path, tmp_path: Path) -> None:
    switches = {"network": "s_mobilenet_v1", "switches": [0.125, 0.1875, 0.25], "width_range": [], "test_widths": []}
    settings = config(tmp_path, pretrained=str(full), **switches, grow=[0.1875, 0.125], epochs=2, distill=True)
    begun = Run(settings, ALONE, data_of(settings))
    begun.start_from(open_checkpoint(full))
    state = begun.trainer.network.state_dict()
    key = "features.0.1.bn.{}.{}"
    before = {i: state[key.format(i, "weight")].clone() for i in range(3)}
    losses = []
    for batch in begun.images.training():
        losses.append(begun.train_step(batch).tolist())
        counts = [int(state[key.format(i, "num_batches_tracked")]) for i in range(3)]
        moved = [not torch.equal(state[key.format(i, "weight")], before[i]) for i in range(3)]
        if batch.step < STEPS:
            assert counts[0] == 0 and counts[1] > 0 and moved == [False, True, True]
        if batch.step == STEPS:
            assert counts[0] == 1 and moved == [True, True, True]
    assert all(row[2] == 0 for row in losses[:STEPS]) and all(row[2] > 0 for row in losses[STEPS:])


# --------------------------------------------------------------------------------------------------------------- resuming


@pytest.mark.parametrize("step", [3, 4, 10])
def test_killed_in_the_midst_of_a_stage_and_resumed_bit_for_bit(
    full: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Within the first stage, at the second's first step, within the last. The pretrained file is gone by then."""
    weights = tmp_path / "full.pt"
    weights.write_bytes(full.read_bytes())
    settings = {**GROWING, "pretrained": str(weights)}
    real = Run.train_step

    def method(self: Run, *arguments: Any) -> Any:
        if self.state.step == step:
            raise Killed
        return real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "train_step", method)
        with pytest.raises(Killed):
            train(config(tmp_path / "run", **settings), ALONE)
    weights.unlink()
    train(config(tmp_path / "run", resume="auto", **settings), ALONE)
    for name in ("us_mobilenet_v1.pt", "last.pt", "best.pt"):
        assert differences(content(tmp_path / "run" / name), content(whole / name)) == [], name


def test_another_teacher_or_other_stages_are_another_run(full: Path, whole: Path) -> None:
    before = (whole / "last.pt").read_bytes()
    for changes, what in (
        ({"teacher": "inplace"}, "teacher was 'frozen' and is 'inplace'"),
        ({"grow": [0.1875, 0.125]}, "grow was [0.25, 0.1875, 0.125] and is [0.1875, 0.125]"),
        ({"teacher_share": 0.9}, "teacher_share was 0.5 and is 0.9"),
    ):
        settings = config(whole, **{**GROWING, "pretrained": str(full), **changes, "resume": "auto"})
        failure(settings, UserError, what)
    assert (whole / "last.pt").read_bytes() == before


def test_a_run_of_an_older_version_had_neither_teacher_nor_stages(full: Path, tmp_path: Path) -> None:
    train(config(tmp_path / "run", pretrained=str(full), epochs=1), ALONE)
    held = raw(tmp_path / "run" / "last.pt")
    for key in ("teacher", "teacher_share", "grow", "grow_epochs", "scratch_lr"):
        del held["training"]["config"][key]
    torch.save(held, tmp_path / "run" / "last.pt")
    same = config(tmp_path / "run", pretrained=str(full), epochs=1, resume="auto")
    settings = config(tmp_path / "run", pretrained=str(full), epochs=1, resume="auto", teacher="frozen")
    failure(settings, UserError, "teacher was '' and is 'frozen'")
    train(same, ALONE)


def test_a_longer_run_goes_on_in_its_last_stage(full: Path, tmp_path: Path) -> None:
    settings = {"pretrained": str(full), "grow": [0.1875, 0.125]}
    train(config(tmp_path / "run", **settings, epochs=2), ALONE)
    train(config(tmp_path / "run", **settings, epochs=5, resume="auto"), ALONE)
    _, held = run_to_resume("auto", tmp_path / "run") or (None, {})
    assert held["training"]["config"]["grow_epochs"] == 2 and held["training"]["step"] == 5 * STEPS
    with (tmp_path / "run" / "summary.csv").open(newline="") as file:
        narrow = [int(row["epoch"]) for row in csv.DictReader(file) if row["plan"] == "x0_125"]
    assert narrow == [2, 3, 4, 5]


# ----------------------------------------------------------------------------------------------------------- the command


def test_the_command_takes_them_and_a_dry_run_shows_them(full: Path, tmp_path: Path) -> None:
    file = config_file(tmp_path / "tiny.yml", epochs=3)
    words = ("--pretrained", full, "--teacher", "frozen", "--grow", "0.25,0.1875,0.125")
    shown = done("train", file, *words, "--dry-run")
    for line in ("teacher: frozen", "grow: [0.25, 0.1875, 0.125]", "teacher_share: 0.5", f"pretrained: {full}"):
        assert line in shown.lines
    assert any(line.startswith("# lr is 0.01: a tenth of 0.1") for line in shown.lines)
    out = done("train", file, *words, "--output-dir", tmp_path / "run").out
    assert "lr is 0.01: a tenth of 0.1, as weights are pretrained ones. Set lr to choose another." in out
    config_held = raw(tmp_path / "run" / "last.pt")["training"]["config"]
    assert (config_held["teacher"], config_held["grow"], config_held["lr"]) == ("frozen", [0.25, 0.1875, 0.125], 0.01)
    assert raw(tmp_path / "run" / "us_mobilenet_v1.pt")["settings"]["teacher"] == "frozen"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--teacher", "frozen"), "pretrained names none. Name one, --pretrained PATH, or let the widest teach"),
        (("--teacher", "frozn"), "did you mean 'frozen'"),
        (("--grow", "0.1875,0.1"), "As in --grow 0.1875,0.125"),
        (("--grow", "0.125,0.1875"), "As in --grow 0.1875,0.125"),
        (("--grow", "0.2,0.2,0.125"), "As in --grow 0.2,0.125"),
        (("--grow", "0.1875"), "As in --grow 0.1875,0.125"),
        (("--grow", "1,0.125"), "at most 0.25, and at last 0.125, the narrowest of us_mobilenet_v1 here. As in --grow 0.125"),
        (("--grow", "0.25,0.1875,0.125"), "grow has 3 stages, but epochs is 2"),
        (("--grow", "0.1875,0.125", "--set", "grow_epochs=3"), "grow_epochs is 3, expected at most the 2 epochs"),
        (("--grow", "wide"), "expected a list, each entry a finite number"),
        (("--teacher", "frozen", "--pretrained", "a.pt", "--set", "reset_classifier=true"), "cannot teach these"),
    ],
)
def test_what_cannot_be_is_refused(words: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    refused(run("train", config_file(tmp_path / "tiny.yml"), *words), 2, reason)


def test_autoslim_networks_have_no_widths_to_grow_by() -> None:
    with pytest.raises(UserError, match=r"lists of channels\. Leave it out"):
        Config("autoslim_mobilenet_v1", grow=(2.0, 1.0))
