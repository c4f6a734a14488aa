"""A run that was killed and resumed is the run that was not; nothing else is taken for its continuation."""

from __future__ import annotations

import csv
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from slimtrain.base.errors import CheckpointError, UserError
from slimtrain.config.config import Config
from slimtrain.data.loader import Batch
from slimtrain.training.resume import move_aside, run_to_resume
from slimtrain.training.run import Run, train
from tests.support.run_helpers import (
    ALONE,
    TIMING,
    config,
    config_file,
    differences,
    done,
    environment,
    raw,
    resume_refusal,
    timeless,
    tree,
)
from tests.support.slimtrain_processes import started_command

STEPS = 8  # 2 epochs of 4
SETTINGS = {"ema": 0.9, "checkpoint_every": 2, "distill": True, "augmentation": "cifar", "test_every": 2, "log_every": 3}


class Killed(BaseException):
    """As a kill is, nothing catches it."""


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int, name: str = "train_step") -> None:
    """The run ends in the method `name` once `step` steps are done; for `save_last` while it writes."""
    real = getattr(Run, name)

    def method(self: Run, *args: Any) -> Any:
        if self.state.step == step:
            raise Killed
        return real(self, *args)

    monkeypatch.setattr(Run, name, method)


def killed(settings: Config, monkeypatch: pytest.MonkeyPatch, step: int, name: str = "train_step") -> None:
    with monkeypatch.context() as patch:
        kill_at(patch, step, name)
        with pytest.raises(Killed):
            train(settings, ALONE)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "summary.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key not in TIMING} for row in csv.DictReader(file)]


def assert_same_run(folder: Path, reference: Path, weights: str = "us_mobilenet_v1.pt") -> None:
    """All files equal, bit for bit: weights, statistics, averages, momentum, generators, figures."""
    for name in (weights, "last.pt", "best.pt"):
        assert differences(timeless(folder / name), timeless(reference / name)) == [], name
    assert rows(folder) == rows(reference)
    assert not list(folder.glob(".*"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody kills."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(config(folder, **SETTINGS), ALONE)
    return folder


# ------------------------------------------------------------------------------------------------------------ bit by bit


def test_the_comparison_sees_a_single_bit(whole: Path) -> None:
    a, b = timeless(whole / "last.pt"), timeless(whole / "last.pt")
    assert differences(a, b) == []
    momentum = a["training"]["optimizer"]["state"][3]["momentum_buffer"]
    momentum.view(-1)[0] = torch.nextafter(momentum.view(-1)[0], torch.tensor(math.inf))
    a["training"]["ema"]["n_averaged"] += 1
    a["calibrated"] = [3]
    assert differences(a, b) == [
        *("/calibrated", "/training/optimizer/state/3/momentum_buffer", "/training/ema/n_averaged"),
    ]
    assert len(b["training"]["optimizer"]["state"]) > 30 and len(b["training"]["ema"]) > 100
    assert b["training"]["step"] == STEPS


def test_last_pt_holds_all_that_changes(whole: Path) -> None:
    held = raw(whole / "last.pt")["training"]
    assert {"step", "config", "optimizer", "scaler", "ema", "generators", "loss_sums", "rows", "best"} <= held.keys()
    assert len(rows(whole)) == 2 and rows(whole)[0]["epoch"] == "2"  # tested at the end of epoch 2 only


@pytest.mark.parametrize("step", [1, 4, 7])
def test_killed_within_a_step(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Before the first checkpoint, between two, at an epoch's end, before the last step."""
    killed(config(tmp_path / "run", **SETTINGS), monkeypatch, step)
    train(config(tmp_path / "run", resume="auto", **SETTINGS), ALONE)
    assert_same_run(tmp_path / "run", whole)


@pytest.mark.parametrize(("name", "step"), [("save_last", 4), ("end_epoch", 8), ("finish", 8), ("calibrate", 8)])
def test_killed_between_steps(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, step: int) -> None:
    killed(config(tmp_path / "run", **SETTINGS), monkeypatch, step, name)
    train(config(tmp_path / "run", resume="auto", **SETTINGS), ALONE)
    assert_same_run(tmp_path / "run", whole)


def test_killed_again_and_again(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (3, 3, 5, 7):
        killed(config(tmp_path / "run", resume="auto", **SETTINGS), monkeypatch, step)
    train(config(tmp_path / "run", resume="auto", **SETTINGS), ALONE)
    assert_same_run(tmp_path / "run", whole)
    assert not (tmp_path / "run.1").exists()


def test_a_finished_run_is_finished_again(whole: Path, tmp_path: Path) -> None:
    train(config(tmp_path / "run", **SETTINGS), ALONE)
    (tmp_path / "run" / "us_mobilenet_v1.pt").unlink()
    train(config(tmp_path / "run", resume="auto", **SETTINGS), ALONE)
    assert_same_run(tmp_path / "run", whole)


def test_where_workers_load_the_images(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their number is free to change; batches that they had made ahead are made again."""
    killed(config(tmp_path / "run", **{**SETTINGS, "workers": 2}), monkeypatch, 5)
    train(config(tmp_path / "run", resume="auto", **SETTINGS), ALONE)
    assert_same_run(tmp_path / "run", whole)


@pytest.mark.parametrize(
    "changes",
    [
        {"network": "s_mobilenet_v1", "width_range": [], "test_widths": [], "switches": [0.25, 0.125]},
        {"nonuniform": True, "label_smoothing": 0.1, "schedule": "multistep", "milestones": [1]},
        {"drop_last": False, "batch_size": 7, "accumulate": 2, "schedule": "exponential", "gamma": 0.5, "amp": "bf16"},
    ],
    ids=["s", "nonuniform", "short batches"],
)
def test_other_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    settings = {"checkpoint_every": 3, "augmentation": "cifar", **changes}
    train(config(tmp_path / "whole", **settings), ALONE)
    killed(config(tmp_path / "run", **settings), monkeypatch, 5)
    path = train(config(tmp_path / "run", resume="auto", **settings), ALONE)
    assert_same_run(tmp_path / "run", tmp_path / "whole", path.name)


# --------------------------------------------------------------------------------------------------------- a real kill


def wait_for(folder: Path, step: int, runs: Callable[[], bool]) -> None:
    """Until the last.pt of `folder` is of step `step` or later. It is renamed into place: what is there is whole."""
    end, seen = time.monotonic() + 60, -1
    while True:
        assert runs() and time.monotonic() < end, "the run ended before it was killed"
        changed = (folder / "last.pt").stat().st_mtime_ns if (folder / "last.pt").exists() else -1
        if changed != seen:
            seen = changed
            if saved_step(folder) >= step:
                return
        time.sleep(0.002)


def saved_step(folder: Path) -> int:
    return int(raw(folder / "last.pt")["training"]["step"])


def start(file: Path, folder: Path, *options: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "slimtrain", "train", str(file), "--output-dir", folder.name, *options]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(words, cwd=folder.parent, env=environment(), stdout=quiet, stderr=subprocess.PIPE)


def test_sigkill_anywhere_and_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process killed by the kernel: at some moment soon after its first checkpoint, and again near the end."""
    settings = {**SETTINGS, "checkpoint_every": 1, "epochs": 6, "threads": 1}
    folder = tmp_path / "run"
    train(config(tmp_path / "whole", **settings), ALONE)
    file = config_file(tmp_path / "tiny.yml", **settings)
    for step, later_s in ((2, 0.03), (20, 0.0)):
        process = started_command("train", file, "--output-dir", "run", "--resume", "auto", cwd=tmp_path)
        try:
            wait_for(folder, step, process.is_alive)
            time.sleep(later_s)
        finally:
            process.kill()
            process.join()
        assert process.exitcode == -signal.SIGKILL
        assert step <= saved_step(folder) <= 24
    monkeypatch.chdir(tmp_path)
    assert "resumed run/last.pt after step" in done("train", file, "--output-dir", "run", "--resume", "auto").out
    assert_same_run(folder, tmp_path / "whole")
    assert not (tmp_path / "run.1").exists()


def test_a_polite_kill_ends_in_one_line(tmp_path: Path) -> None:
    file = config_file(tmp_path / "tiny.yml", checkpoint_every=1, epochs=200)
    process = start(file, tmp_path / "run")
    try:
        wait_for(tmp_path / "run", 1, lambda: process.poll() is None)
        process.terminate()
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    text = err.decode()
    assert "Go on with --resume auto: run holds what was saved" in text and "Traceback" not in text
    assert not list((tmp_path / "run").glob(".*"))


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed after 5 steps: 4 are saved."""
    folder = tmp_path_factory.mktemp("begun") / "run"
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, 5)
        with pytest.raises(Killed):
            train(config(folder, **SETTINGS), ALONE)
    return folder


@pytest.fixture
def copied(begun: Path, tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    for path in begun.iterdir():
        (tmp_path / "run" / path.name).write_bytes(path.read_bytes())
    return tmp_path / "run"


def refusal(folder: Path, error: type[UserError], **changes: Any) -> str:
    return resume_refusal(folder, error, SETTINGS, **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 1}, "epochs was 2 and is 1"),
        ({"batch_size": 16}, "batch_size was 8 and is 16"),
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"ema": 0.0}, "ema was 0.9 and is 0.0"),
        ({"distill": False}, "distill was True and is False"),
        ({"augmentation": "none"}, "augmentation was 'cifar' and is 'none'"),
        ({"sandwich": 4, "momentum": 0.8}, "sandwich was 3 and is 4, momentum was 0.9 and is 0.8"),
        ({"mean": [0.5, 0.5, 0.4]}, "mean was [0.5, 0.5, 0.5] and is [0.5, 0.5, 0.4]"),
    ],
)
def test_changed_settings_are_another_run(copied: Path, changes: dict[str, Any], words: str) -> None:
    message = refusal(copied, UserError, **changes)
    if "batch_size" in changes:  # fake data is as many batches
        assert words in message
    assert words in message and "resume=none" in message


def test_another_network_is_another_run(copied: Path) -> None:
    message = refusal(copied, CheckpointError, network="us_mobilenet_v2")
    assert "is a us_mobilenet_v1" in message and "trains a us_mobilenet_v2" in message
    message = refusal(copied, CheckpointError, width_range=[0.125, 0.375])
    assert "widths 0.125, 0.25" in message and "0.375" in message and "Another widths" in message
    assert "3 classes" in refusal(copied, CheckpointError, classes=3)


@pytest.mark.parametrize(
    "changes",
    [
        {"lr": 0.01, "warmup_epochs": 1.0},
        {"workers": 1, "log_every": 1, "test_every": 1, "checkpoint_every": 0},
        {"channels_last": False, "accumulate": 2, "amp": "bf16"},
        {"calibration_batches": 1, "test_widths": [0.15, 0.2]},
        {"amp": "fp16"},
    ],
    ids="-".join,
)
def test_what_does_not_make_it_another_run_may_change(copied: Path, changes: dict[str, Any]) -> None:
    train(config(copied, **{**SETTINGS, "resume": "auto", **changes}), ALONE)
    held = raw(copied / "last.pt")["training"]
    assert held["step"] == STEPS and all(held["config"][key] == value for key, value in changes.items())


def test_best_pt_follows_another_width_from_now_on(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best error so far was another width's."""
    content = raw(copied / "last.pt")
    content["training"]["best"] = 0.0  # nothing can be better
    torch.save(content, copied / "last.pt")
    train(config(copied, **SETTINGS, resume="auto"), ALONE)
    assert not (copied / "best.pt").exists()
    torch.save(content, copied / "last.pt")
    train(config(copied, **SETTINGS, resume="auto", best_by="narrowest"), ALONE)
    assert (copied / "best.pt").exists()


def test_resume_never_overrides_pretrained(copied: Path) -> None:
    message = refusal(copied, UserError, pretrained="weights.pt")
    assert "started from random weights" in message and "Choose one" in message


def test_a_run_that_began_with_the_same_weights_goes_on(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "weights.pt"
    weights.write_bytes((whole / "us_mobilenet_v1.pt").read_bytes())
    killed(config(tmp_path / "run", **SETTINGS, pretrained=str(weights)), monkeypatch, 5)
    weights.unlink()  # they are not read again
    train(config(tmp_path / "run", **SETTINGS, pretrained=str(weights), resume="auto"), ALONE)


def test_auto_without_a_checkpoint_begins(tmp_path: Path) -> None:
    settings = config(tmp_path / "run", epochs=1, resume="auto")
    assert run_to_resume("auto", tmp_path / "run") is None
    train(settings, ALONE)
    assert (tmp_path / "run" / "last.pt").exists()


@pytest.mark.parametrize("resume", ["none", ""])
def test_none_begins_anew_and_keeps_the_old_run(copied: Path, resume: str) -> None:
    before = tree(copied)
    train(config(copied, epochs=1, resume=resume), ALONE)
    assert raw(copied / "last.pt")["training"]["step"] == 4
    assert tree(copied.with_name("run.1")) == before


def test_a_path_is_resumed(copied: Path, whole: Path) -> None:
    train(config(copied, **SETTINGS, resume=str(copied / "last.pt")), ALONE)
    assert_same_run(copied, whole)
    assert not copied.with_name("run.1").exists()


def test_a_path_elsewhere_goes_on_in_the_new_folder_and_moves_another_run_aside(copied: Path, whole: Path) -> None:
    before = tree(copied)
    other = copied.with_name("other")
    train(config(other, epochs=1), ALONE)
    kept = tree(other)
    train(config(other, **SETTINGS, resume=str(copied / "last.pt")), ALONE)
    assert_same_run(other, whole)
    assert tree(copied) == before and tree(copied.with_name("other.1")) == kept


def test_a_finished_checkpoint_cannot_go_on(whole: Path, tmp_path: Path) -> None:
    for name in ("us_mobilenet_v1.pt", "best.pt"):
        with pytest.raises(CheckpointError, match=f"no checkpoint of a run.*pretrained=.*{name}"):
            train(config(tmp_path / "run", **SETTINGS, resume=str(whole / name)), ALONE)
    assert os.listdir(tmp_path) == []


def test_a_published_checkpoint_cannot_go_on(tmp_path: Path) -> None:
    torch.save({"model": {"module.a": torch.ones(3)}, "last_epoch": 3}, tmp_path / "latest_checkpoint.pt")
    with pytest.raises(CheckpointError, match="no checkpoint of a run"):
        train(config(tmp_path / "run", resume=str(tmp_path / "latest_checkpoint.pt")), ALONE)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        train(config(tmp_path / "run", resume=str(tmp_path / "nowhere.pt")), ALONE)
    assert os.listdir(tmp_path) == []


DAMAGE: dict[str, Any] = {
    "step": lambda t: t.update(step="late"),
    "no step": lambda t: t.pop("step"),
    "optimizer": lambda t: t.update(optimizer={"state": {}}),
    "optimizer of another network": lambda t: t["optimizer"]["param_groups"].pop(),
    "no ema": lambda t: t.update(ema=None),
    "ema of another network": lambda t: t["ema"].pop("module.classifier.0.weight"),
    "loss sums": lambda t: t.update(loss_sums=torch.ones(7)),
    "rows": lambda t: t.update(rows=None),
    "best": lambda t: t.update(best="good"),
    "generators": lambda t: t.update(generators={}),
    "generator state": lambda t: t["generators"].update(cpu=torch.ones(3)),
    "no config": lambda t: t.pop("config"),
    "config": lambda t: t.update(config=[1]),
}


@pytest.mark.parametrize("kind", list(DAMAGE))
def test_damaged_training_state_is_refused(copied: Path, kind: str) -> None:
    content = raw(copied / "last.pt")
    DAMAGE[kind](content["training"])
    torch.save(content, copied / "last.pt")
    assert "damaged" in refusal(copied, CheckpointError)


def test_a_damaged_file_is_refused(copied: Path) -> None:
    last = (copied / "last.pt").read_bytes()
    for damaged in (b"", last[:1000], last[: len(last) // 2], b"nonsense"):
        (copied / "last.pt").write_bytes(damaged)
        assert refusal(copied, CheckpointError).startswith("last.pt: ")


# ----------------------------------------------------------------------------------------------------- the folder


def test_runs_are_moved_aside_one_after_the_other(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for number in range(3):
        folder.mkdir()
        (folder / "config.yml").write_text(str(number))
        (folder / ".last.pt.partial-17").write_bytes(b"what a killed run had begun to write")
        assert move_aside(folder) == tmp_path / f"run.{number + 1}"
        assert not folder.exists()
    assert tree(tmp_path) == {f"run.{n + 1}/config.yml": str(n).encode() for n in range(3)}


def test_a_folder_without_a_run_stays(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    assert move_aside(tmp_path / "run") is None and move_aside(tmp_path / "nowhere") is None
    assert tree(tmp_path) == {"run/notes.txt": b"mine"}


@pytest.mark.parametrize("where", [".", "..", "{0}", "inner/.."])
def test_the_working_folder_is_not_moved_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    (tmp_path / "run" / "inner").mkdir(parents=True)
    (tmp_path / "run" / "last.pt").write_text("x")
    monkeypatch.chdir(tmp_path / "run" / ("inner" if where == ".." else ""))
    with pytest.raises(UserError, match="working folder"):
        move_aside(Path(where.format(tmp_path / "run")))
    assert os.listdir(tmp_path) == ["run"]


def test_a_folder_that_cannot_be_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.pt").write_text("x")

    def rename(self: Path, target: Path) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(UserError, match=r"cannot be renamed .Device or resource busy.*another output_dir"):
        move_aside(tmp_path / "run")


def test_what_a_kill_left_half_written_is_cleared_away(copied: Path) -> None:
    (copied / ".last.pt.partial-12345").write_text("half")
    train(config(copied, **SETTINGS, resume="auto"), ALONE)
    assert not list(copied.glob(".*"))


def test_the_images_after_a_resume_are_those_that_would_have_come(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither from the start nor one skipped: read off the batches themselves."""
    seen: list[int] = []
    real = Run.train_step

    def step(self: Run, batch: Batch) -> torch.Tensor:
        seen.append(batch.step)
        return real(self, batch)

    monkeypatch.setattr(Run, "train_step", step)
    train(config(copied, **SETTINGS, resume="auto"), ALONE)
    assert seen == [4, 5, 6, 7]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative output folders, were there any, would lie in the test's own."""
    monkeypatch.chdir(tmp_path)
