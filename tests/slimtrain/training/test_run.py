"""A run from its configuration to the finished checkpoint: files, lines, figures, and every option once."""

from __future__ import annotations

import csv
import json
import math
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from slimtrain.base.errors import UserError
from slimtrain.base.folders.claim import claimed
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.config.config import Config
from slimtrain.config.reading import read_config
from slimtrain.data.loader import Batch, test_batches, training_batches
from slimtrain.models.channels import ChannelPlan
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.training.evaluate import Scores, evaluate
from slimtrain.training.inputs import CALIBRATION_EPOCH, data_of, test_transform_of, train_transform_of
from slimtrain.training.run import Run, train
from tests.support.outcomes import Outcome
from tests.support.run_helpers import ALONE, LISTS, command, config, config_file, done, export_words, logits, raw, tree
from tests.support.specs import spec_of

S = {"network": "s_mobilenet_v1", "width_range": [], "test_widths": [], "switches": [0.125, 0.25]}
AUTOSLIM = {
    "network": "autoslim_mobilenet_v1",
    "width_range": [],
    "test_widths": [],
    "channel_lists": [list(x) for x in LISTS],
}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A whole run through the command line, in its folder `run`."""
    folder = tmp_path_factory.mktemp("ran")
    file = config_file(folder / "tiny.yml", weights="us_mbv1.pt", seed=3, log_every=3)
    return folder / "run", done("train", file, "--output-dir", folder / "run")


# ------------------------------------------------------------------------------------------------------- what is left


def test_the_files_of_a_run(ran: tuple[Path, Outcome]) -> None:
    folder, _ = ran
    assert sorted(tree(folder)) == sorted(
        ["best.pt", "config.yml", "curves.png", "last.pt", "summary.csv", "train.log", "us_mbv1.pt"]
    )


def test_the_resolved_configuration_reads_back_equal(ran: tuple[Path, Outcome]) -> None:
    folder, _ = ran
    again = read_config(str(folder / "config.yml"))
    assert again == config(folder, weights="us_mbv1.pt", seed=3, log_every=3)


def test_the_log_is_what_was_printed(ran: tuple[Path, Outcome]) -> None:
    folder, outcome = ran
    assert (folder / "train.log").read_text() == outcome.out


def test_the_lines_tell_batch_arithmetic_progress_and_widths(ran: tuple[Path, Outcome]) -> None:
    folder, outcome = ran
    text = outcome.out
    assert "us_mobilenet_v1, widths 0.125 to 0.25: 32 images to train, 16 to test, 10 classes" in text
    assert "batch 8 = 1 process x 1 part x 8 images, 3 widths each; 4 steps an epoch, 2 epochs" in text
    for start in ("epoch 1/2 step 3/4  loss ", "epoch 2/2 step 2/4  loss "):  # steps 3 and 6; the widest comes first
        assert any(line.startswith(start) and "0.25" in line.split("lr")[0] for line in outcome.lines), start
    assert "calibrating 3 widths over 2 batches" in text
    assert "images/s  data " in text and " left" in text
    for row in rows(folder):
        line = next(line for line in outcome.lines if line.split()[:2] == [row["width"], f"{float(row['train_loss']):.4f}"])
        assert line.split()[2:] == [
            f"{float(row[k]):{kind}}" for k, kind in (("loss", ".4f"), ("top1", ".2%"), ("top5", ".2%"))
        ]


def test_the_summary_has_a_row_per_epoch_and_width(ran: tuple[Path, Outcome]) -> None:
    folder, _ = ran
    records = rows(folder)
    assert [(r["epoch"], r["step"], r["plan"], r["width"]) for r in records] == [
        *(("1", "4", "x0_125", "0.125"), ("1", "4", "x0_25", "0.25")),
        *(("2", "8", "x0_125", "0.125"), ("2", "8", "x0_25", "0.25")),
    ]
    for row in records:
        assert float(row["images_per_s"]) > 0 and 0 <= float(row["data_wait"]) <= 1
        assert 0 <= float(row["top1"]) <= float(row["top5"]) <= 1
        assert (float(row["top1"]) * 16).is_integer()  # of 16 images


def test_the_last_line_is_a_command_that_works(ran: tuple[Path, Outcome]) -> None:
    folder, outcome = ran
    words = export_words(outcome)
    assert words[:4] == ["--ckpt", str(folder / "us_mbv1.pt"), "--widths", "0.125,0.1875,0.25"]
    exported = command(*words, "--output-dir", "bundle", module="slimexport", cwd=folder.parent)
    assert exported.returncode == 0, exported.stderr
    manifest = json.loads((folder.parent / "bundle" / "manifest.json").read_text())
    assert [a["width"] for a in manifest["artifacts"]] == [0.125, 0.1875, 0.25]
    assert all(a["verification"]["status"] == "passed" for a in manifest["artifacts"])
    assert manifest["input"]["image_size"] == 16 and manifest["input"]["std"] == [0.25, 0.25, 0.25]


def test_the_finished_checkpoint_says_what_it_holds(ran: tuple[Path, Outcome]) -> None:
    folder, _ = ran
    opened = open_checkpoint(folder / "us_mbv1.pt")
    assert opened.class_names == tuple(f"class {i}" for i in range(10))
    assert [plan.width for plan in opened.network.calibrated] == [0.125, 0.1875, 0.25]
    assert "training" not in raw(folder / "us_mbv1.pt") and "training" not in raw(folder / "best.pt")
    last = open_checkpoint(folder / "last.pt").network.state_dict()
    state = opened.network.state_dict()
    assert all(torch.equal(state[key], last[key]) for key in state)  # calibration lies beside what training left


# --------------------------------------------------------------------------------------------------------- by definition


def test_final_statistics_are_those_of_the_calibration_batches(ran: tuple[Path, Outcome]) -> None:
    """Of the stem, computed from the images: the average over batches of batch mean and unbiased variance."""
    folder, _ = ran
    settings = config(folder, seed=3)
    network = open_checkpoint(folder / "us_mbv1.pt").network
    batches = training_batches(
        data_of(settings).train,
        train_transform_of(settings),
        epochs=1_000_000,
        batch_size=8,
        seed=3 + CALIBRATION_EPOCH,
    )
    weight = network.get_parameter("features.0.0.weight").double()
    means, variances = [], []
    for _ in range(2):
        maps = torch.nn.functional.conv2d(next(batches).images.double(), weight, stride=1, padding=1)
        means.append(maps.mean((0, 2, 3)))
        variances.append(maps.var((0, 2, 3)))
    for width in (0.125, 0.1875, 0.25):
        mean, var = network.statistics(network.spec.plan(width))["features.0.1"]
        torch.testing.assert_close(mean.double(), torch.stack(means).mean(0)[: len(mean)], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(var.double(), torch.stack(variances).mean(0)[: len(var)], rtol=1e-5, atol=1e-6)


def test_final_figures_are_those_of_the_checkpoint(ran: tuple[Path, Outcome]) -> None:
    folder, outcome = ran
    settings = config(folder)
    checkpoint = open_checkpoint(folder / "us_mbv1.pt")
    batches = list(test_batches(data_of(settings).test, test_transform_of(settings), batch_size=16))
    images, labels = batches[0].images, batches[0].labels
    for width in (0.125, 0.1875, 0.25):
        with torch.inference_mode(), checkpoint.network.at(checkpoint.spec.plan(width)):
            scores = checkpoint.network(images)
        loss = torch.nn.functional.cross_entropy(scores.double(), labels).item()
        top1 = (scores.argmax(1) == labels).double().mean().item()
        line = outcome.lines[-2 - [0.25, 0.1875, 0.125].index(width)].split()
        assert line[0] == str(width) and line[2] == f"{top1:.2%}" and float(line[1]) == pytest.approx(loss, abs=2e-4)


def test_the_weights_follow_from_the_seed(tmp_path: Path, ran: tuple[Path, Outcome]) -> None:
    again = train(config(tmp_path / "run", seed=3, calibration_batches=0, test_every=0), ALONE)
    other = train(config(tmp_path / "other", seed=4, epochs=1, calibration_batches=0, test_every=0), ALONE)
    a, b, c = (open_checkpoint(p).network.state_dict() for p in (again, ran[0] / "us_mbv1.pt", other))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a["features.0.0.weight"], c["features.0.0.weight"])


def test_the_train_loss_of_the_summary_is_the_mean_over_the_epochs_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[float]] = []
    real = Run.train_step

    def step(self: Run, batch: Batch) -> torch.Tensor:
        losses = real(self, batch)
        seen.append(losses.tolist())
        return losses

    monkeypatch.setattr(Run, "train_step", step)
    train(config(tmp_path / "run", calibration_batches=0), ALONE)
    for row in rows(tmp_path / "run"):
        of_epoch = seen[:4] if row["epoch"] == "1" else seen[4:]
        index = {"0.25": 0, "0.125": 1}[row["width"]]  # the widest comes first
        assert float(row["train_loss"]) == pytest.approx(sum(losses[index] for losses in of_epoch) / 4, rel=1e-6)


def test_averaged_weights_are_the_exponential_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the definition, on one tensor; statistics are averaged too, and it is the average that is shipped."""
    keys = ("features.2.body.3.weight", "features.2.body.1.bn.0.running_mean")
    steps: list[list[torch.Tensor]] = []
    real = Run.train_step

    def step(self: Run, batch: Batch) -> torch.Tensor:
        losses = real(self, batch)
        steps.append([self.trainer.network.state_dict()[key].double().clone() for key in keys])
        return losses

    monkeypatch.setattr(Run, "train_step", step)
    path = train(config(tmp_path / "run", ema=0.75, lr=0.5), ALONE)
    state = open_checkpoint(path).network.state_dict()
    for i, key in enumerate(keys):
        average = steps[0][i]
        for values in steps[1:]:
            average = 0.75 * average + 0.25 * values[i]
        torch.testing.assert_close(state[key].double(), average, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(state[key].double(), steps[-1][i], atol=1e-4)
    assert torch.equal(raw(tmp_path / "run" / "last.pt")["model"][keys[0]].double(), steps[-1][0])


# ------------------------------------------------------------------------------------------------------- best and tests


def scripted(monkeypatch: pytest.MonkeyPatch, top1: Sequence[tuple[float, float]]) -> list[Path]:
    """Tests within training find these accuracies (narrowest, widest), one pair after the other."""
    remaining = list(top1)

    def test(self: Run, network: SlimmableNetwork, plans: Sequence[ChannelPlan]) -> list[Scores]:
        accuracies = remaining.pop(0) if remaining else (0.0,) * len(plans)
        return [Scores(1.0, value, 1.0, 16) for value in accuracies]

    monkeypatch.setattr(Run, "test", test)
    return []


@pytest.mark.parametrize(
    ("rule", "best"),
    [("widest", 2), ("narrowest", 1), ("mean", 3), ("0.25", 2), ("0.125", 1)],
)
def test_best_pt_follows_the_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str, best: int) -> None:
    """Three epochs: the first is the narrowest's best, the second the widest's, the third the mean's."""
    scripted(monkeypatch, [(0.6, 0.1), (0.1, 0.6), (0.5, 0.5)])
    states: list[torch.Tensor] = []
    real = Run.end_epoch

    def end_epoch(self: Run, clock: Any) -> None:
        states.append(self.trainer.network.state_dict()["features.0.0.weight"].clone())
        real(self, clock)

    monkeypatch.setattr(Run, "end_epoch", end_epoch)
    train(config(tmp_path / "run", epochs=3, best_by=rule, test_widths=[], calibration_batches=0), ALONE)
    weight = raw(tmp_path / "run" / "best.pt")["model"]["features.0.0.weight"]
    assert [torch.equal(weight, state) for state in states] == [epoch + 1 == best for epoch in range(3)]


def test_of_equally_good_epochs_the_first_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [(0.5, 0.5), (0.5, 0.5)])
    train(config(tmp_path / "run", test_widths=[], calibration_batches=0), ALONE)
    best, last = (raw(tmp_path / "run" / name)["model"]["features.0.0.weight"] for name in ("best.pt", "last.pt"))
    assert not torch.equal(best, last)


def test_a_width_that_is_not_tested_cannot_be_followed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"best_by 0\.2: while training, 0\.125, 0\.25 are tested"):
        train(config(tmp_path / "run", best_by="0.2"), ALONE)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("every", "tested"), [(0, [3]), (1, [1, 2, 3]), (2, [2, 3]), (5, [3])])
def test_tests_come_every_so_many_epochs_and_at_the_end(tmp_path: Path, every: int, tested: list[int]) -> None:
    train(config(tmp_path / "run", epochs=3, test_every=every, calibration_batches=0, test_widths=[]), ALONE)
    assert [int(r["epoch"]) for r in rows(tmp_path / "run")] == [e for e in tested for _ in range(2)]
    text = (tmp_path / "run" / "train.log").read_text()
    assert all(f"epoch {epoch}/3  lr " in text for epoch in (1, 2, 3))


# ------------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    "changes",
    [
        {"label_smoothing": 0.1},
        {"amp": "bf16", "distill": True},
        {"accumulate": 2},
        {"sync_norm": True},
        {"channels_last": False, "nonuniform": True},
        {"width_step": 0.0625},
        {"schedule": "multistep", "milestones": [1], "warmup_epochs": 0.5},
        {"nesterov": False, "momentum": 0, "weight_decay": 0},
        {"tensorboard": True},
        {"workers": 1, "test_batch_size": 5},
    ],
    ids="-".join,
)
def test_options_run(tmp_path: Path, changes: dict[str, Any]) -> None:
    if changes.get("tensorboard"):
        pytest.importorskip("tensorboard")
    path = train(config(tmp_path / "run", **{"epochs": 1, **changes}), ALONE)
    checkpoint = open_checkpoint(path)
    assert [plan.width for plan in checkpoint.network.calibrated] == [0.125, 0.1875, 0.25]
    assert all(math.isfinite(float(row["loss"])) for row in rows(tmp_path / "run"))


def test_parts_add_up_to_the_batch(tmp_path: Path) -> None:
    """Losses and gradients are means over the batch whatever its parts. Norms see a part at a time, so parts are alike."""

    def one(parts: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        settings = config(tmp_path / "run", accumulate=parts, channels_last=False, image_size=64)
        run = Run(settings, ALONE, data_of(settings))
        began = {key: p.detach().clone() for key, p in run.trainer.network.named_parameters()}
        images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)).repeat(2, 1, 1, 1)
        losses = run.train_step(Batch(0, 0, images, torch.arange(4).repeat(2), 8, ()))
        return losses, {key: p.detach() - began[key] for key, p in run.trainer.network.named_parameters()}

    losses, whole = one(1)
    in_parts, moved = one(2)
    torch.testing.assert_close(in_parts, losses, rtol=1e-5, atol=0)
    for key, step in moved.items():
        assert (step - whole[key]).abs().max() < 1e-2 * whole[key].abs().max() + 1e-7, key  # float32 cannot tell less


@pytest.mark.parametrize(
    ("changes", "network"), [(S, "s_mobilenet_v1"), (AUTOSLIM, "autoslim_mobilenet_v1")], ids=["s", "autoslim"]
)
def test_networks_with_switches(tmp_path: Path, changes: dict[str, Any], network: str) -> None:
    settings = config(tmp_path / "run", **{**changes, "distill": True, "epochs": 1, "label_smoothing": 0.1})
    path = train(settings, ALONE)
    assert path.name == f"{network}.pt"
    checkpoint = open_checkpoint(path)
    assert checkpoint.spec == settings.spec(10)
    last = (tmp_path / "run" / "train.log").read_text().splitlines()[-1]
    assert last.endswith("--widths 0.125,0.25" if network[0] == "s" else "--widths 1,2")
    assert [row["plan"] for row in rows(tmp_path / "run")] == [plan.name for plan in settings.spec(10).plans]


def test_without_calibration_training_statistics_are_shipped(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(train(config(tmp_path / "run", **S, epochs=1, calibration_batches=0), ALONE))
    assert checkpoint.network.calibrated == {}
    norm = checkpoint.network.state_dict()["features.0.1.bn.0.num_batches_tracked"]
    assert norm.item() == 4  # the steps of the epoch


def test_unwanted_widths_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(config(tmp_path / "run", epochs=1, calibration_batches=0), ALONE)
    assert "test_widths have no statistics" in caplog.text
    assert (tmp_path / "run" / "train.log").read_text().splitlines()[-1].split(" --widths ")[1].startswith("0.125,0.25")


def test_the_published_layout_is_exported_with_its_images_size_and_normalization(tmp_path: Path) -> None:
    file = config_file(tmp_path / "tiny.yml", stem_stride=2, image_size=32, layout="published", epochs=1)
    outcome = done("train", file, "--output-dir", tmp_path / "run")
    words = export_words(outcome)
    assert list(raw(tmp_path / "run" / "us_mobilenet_v1.pt")) == ["model", "input", "class_names"]
    exported = command(*words, "--output-dir", "bundle", module="slimexport", cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert [a["width"] for a in manifest["artifacts"]] == [0.125, 0.1875, 0.25]
    assert manifest["input"]["image_size"] == 32
    assert (manifest["input"]["mean"], manifest["input"]["std"]) == ([0.5] * 3, [0.25] * 3)  # told by config.yml


# ---------------------------------------------------------------------------------------------------------------- data


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Class folders of noise: 2 classes, 8 images each to train and 4 to test, of which some cannot be read."""
    draw = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 4)):
        for name in ("cat", "dog"):
            folder = tmp_path / "data" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(draw.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "data"


def test_unreadable_images_are_named_once_and_counted(photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (photos / "train" / "cat" / "3.png").write_bytes(b"no image")
    (photos / "val" / "dog" / "1.png").write_bytes((photos / "val" / "dog" / "1.png").read_bytes()[:60])
    path = train(config(tmp_path / "run", data="folder", data_dir=str(photos), augmentation="none", epochs=3), ALONE)
    assert caplog.text.count(f"{photos}/train/cat/3.png: cannot be read, another image takes its place") == 1
    assert caplog.text.count(f"{photos}/val/dog/1.png: cannot be read, left out of the test") == 1
    text = (tmp_path / "run" / "train.log").read_text()
    assert "2 images could not be read" in text and "on 7 test images" in text
    assert open_checkpoint(path).class_names == ("cat", "dog")
    assert {float(row["top5"]) for row in rows(tmp_path / "run")} == {1.0}  # of two classes


def test_images_held_out_are_tested_and_not_trained_on(photos: Path, tmp_path: Path) -> None:
    settings = {"data": "folder", "data_dir": str(photos), "holdout": 6, "batch_size": 4, "epochs": 1}
    for drop_last, steps in ((True, 2), (False, 3)):
        path = train(config(tmp_path / f"run{steps}", **settings, drop_last=drop_last), ALONE)
        text = (path.parent / "train.log").read_text()
        assert "10 images to train, 6 to test, 2 classes" in text and f"{steps} steps an epoch" in text
        assert raw(path.parent / "last.pt")["training"]["step"] == steps


def test_a_small_cifar_run(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        content = {b"data": draw.integers(0, 256, (4, 3072), dtype=np.uint8), b"labels": [int(i) for i in range(4)]}
        (folder / name).write_bytes(pickle.dumps(content, 2))
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [f"c{i}".encode() for i in range(10)]}, 2))
    settings = config(tmp_path / "run", data="cifar10", data_dir=str(tmp_path), image_size=32, augmentation="cifar", epochs=1)
    path = train(settings, ALONE)
    checkpoint = open_checkpoint(path)
    assert (checkpoint.image_size, spec_of(checkpoint).classes, spec_of(checkpoint).stem_stride) == (32, 10, 1)
    assert "20 images to train, 4 to test" in (tmp_path / "run" / "train.log").read_text()


def test_a_second_run_moves_the_first_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = config(tmp_path / "run", epochs=1, calibration_batches=0, test_widths=[])
    train(settings, ALONE)
    before = tree(tmp_path / "run")
    train(settings, ALONE)
    assert tree(tmp_path / "run.1") == before
    assert f"{tmp_path}/run held a run already: it is now {tmp_path}/run.1" in capsys.readouterr().out
    assert sorted(tree(tmp_path / "run")) == sorted(before)


def test_a_folder_that_another_run_is_at_work_in_is_left_to_it(tmp_path: Path) -> None:
    settings = config(tmp_path / "run", epochs=1, calibration_batches=0, test_widths=[])
    train(settings, ALONE)
    before = tree(tmp_path)
    with (
        claimed(tmp_path / "run", ""),
        pytest.raises(UserError, match=r"is writing there\. Wait for it, or choose another output_dir"),
    ):
        train(settings, ALONE)
    assert tree(tmp_path) == before


def test_evaluating_leaves_no_trace_on_training(tmp_path: Path) -> None:
    """A run that tests every epoch and one that never does have the same weights."""
    often, never = (
        open_checkpoint(train(config(tmp_path / str(n), test_every=n, calibration_batches=0), ALONE)).network for n in (1, 0)
    )
    assert torch.equal(logits(often, often.spec.widest, 16), logits(never, never.spec.widest, 16))


def test_the_same_figures_from_evaluate(tmp_path: Path) -> None:
    settings: Config = config(tmp_path / "run", epochs=1, calibration_batches=0, test_widths=[])
    checkpoint = open_checkpoint(train(settings, ALONE))
    batches = test_batches(data_of(settings).test, test_transform_of(settings), batch_size=3)
    plans = [checkpoint.spec.plan(w) for w in (0.125, 0.25)]
    results = evaluate(checkpoint.network, plans, (batch.labeled for batch in batches))
    for row, result in zip(rows(tmp_path / "run"), results, strict=True):
        assert (float(row["top1"]), float(row["top5"])) == (result.top1, result.top5)
        assert float(row["loss"]) == pytest.approx(result.loss, rel=1e-5)
