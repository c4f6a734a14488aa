"""The command line: help without torch, usage errors, configurations by name, dry runs, profiles, published files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
import yaml

from slimtrain.config.reading import config_names, read_config
from slimtrain.data.fake import FakeSamples
from tests.support.data_samples import kill_loading_processes
from tests.support.run_helpers import (
    app_settings,
    command,
    config_file,
    done,
    refused,
    run,
    tree,
    without_torch,
)
from tests.support.search_helpers import own_checkpoint, refused_late
from tests.support.slimtrain_states import layout

COMMANDS = ("train", "search", "test", "calibrate", "profile", "configs")


# ------------------------------------------------------------------------------------------------------- without torch


@pytest.mark.parametrize("args", [("--help",), ("-h",), *((name, "--help") for name in COMMANDS)], ids=" ".join)
def test_help_needs_no_torch(args: tuple[str, ...]) -> None:
    shown = without_torch(*args)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("Usage: ")
    names = COMMANDS if args[0].startswith("-") else ()
    assert all(f"  {name} " in shown.stdout for name in names)


def test_the_barrier_bites(tmp_path: Path) -> None:
    failed = without_torch("train", config_file(tmp_path / "tiny.yml"), "--output-dir", tmp_path / "run")
    assert failed.returncode == 3 and "the package torch is not installed" in failed.stderr


def test_versions_configurations_and_profiles_need_no_torch() -> None:
    assert without_torch("--version").stdout.startswith("slimtrain ")
    assert without_torch("configs").stdout.split() == config_names()
    shown = without_torch("profile", "us_mobilenet_v1", "--widths", "0.5")
    assert shown.returncode == 0 and "149.5M" in shown.stdout, shown


def test_mistakes_are_told_without_torch(tmp_path: Path) -> None:
    """Usage errors and wrong configurations: before its seconds are spent."""
    for args, words in (
        (("trian", "digits"), "No such command 'trian'"),
        (("train",), "Missing argument 'CONFIG'"),
        (("train", "us_mobilenet_v1", "--epochs", "x"), "not a valid integer"),
        (("train", "us_mobilenetv1"), "did you mean 'us_mobilenet_v1'"),
        (("train", "digits", "--set", "learning_rate=1"), "key 'learning_rate' is not known"),
    ):
        failed = without_torch(*args)
        assert failed.returncode == 2 and words in failed.stderr, failed
        assert "Traceback" not in failed.stderr and failed.stdout == ""


# --------------------------------------------------------------------------------------------------------------- usage


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("train", "digits", "--resum", "auto"), "--resum"),
        (("train", "digits", "digits"), "unexpected extra argument"),
        (("test", "digits"), "Missing option '--ckpt'"),
        (("calibrate", "digits"), "Missing option '--ckpt'"),
        (("train", "digits", "--batch-size", "many"), "not a valid integer"),
        (("nonsense",), "No such command"),
    ],
)
def test_usage_errors(args: tuple[str, ...], words: str) -> None:
    refused(run(*args), 2, words)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("digit",), "configuration 'digit': neither a file nor one of ours (did you mean 'digits'?)"),
        (("nowhere.yml",), "nowhere.yml: no such file"),
        (("app:nowhere.yml",), "nowhere.yml: no such file"),
        (("digits", "--set", "epochs"), "--set epochs: expected key=value"),
        (("digits", "--set", "epoch=3"), "key 'epoch' is not known (did you mean 'epochs'?)"),
        (("digits", "--set", "epochs=three"), "epochs is 'three', expected a whole number"),
        (("digits", "--set", "epochs=[3"), "is not a YAML value"),
        (("digits", "--set", "schedule=cosin"), "schedule is 'cosin' (did you mean 'cosine'?)"),
        (("digits", "--batch-size", "0"), "batch_size is 0, expected at least 1"),
        (("digits", "--workers", "-1"), "workers is -1, expected at least 0"),
        (("digits", "--amp", "fp8"), "amp is 'fp8'"),
        (("digits", "--ema", "1.5"), "ema is 1.5"),
        (("digits", "--device", "gpu"), "device is 'gpu'"),
        (("digits", "--layout", "published"), "published has no place for stem_stride 1"),
        (("digits", "--best-by", "first"), "best_by is 'first', expected widest, narrowest, mean, or a width"),
        (("digits", "--set", "network=us_mobilenet"), "us_mobilenet"),
        (("digits", "--set", "test_only=true"), "test_only tests a checkpoint, but pretrained names none"),
    ],
)
def test_wrong_settings(args: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(run("train", *args), 2, "slimtrain: ", words)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("name", ["train", "test", "calibrate"])
def test_cuda_that_is_not_there(name: str, tmp_path: Path) -> None:
    file = config_file(tmp_path / "tiny.yml")
    options = ("--output-dir", str(tmp_path / "run")) if name == "train" else ("--ckpt", str(tmp_path / "no.pt"))
    refused(run(name, file, "--device", "cuda", *options), 3, "device cuda", "set device=cpu")
    assert os.listdir(tmp_path) == ["tiny.yml"]


def test_the_last_change_counts_and_options_count_more(tmp_path: Path) -> None:
    file = config_file(tmp_path / "tiny.yml")
    changes = ["--set", "seed=1", "--set", "seed=2", "--set", "batch_size=4", "--batch-size", "6", "--set", "lr=1e-3"]
    shown = yaml.safe_load(done("train", file, *changes, "--dry-run").out)
    assert (shown["seed"], shown["batch_size"], shown["lr"]) == (2, 6, 0.001)


# ------------------------------------------------------------------------------------------------------------ dry runs


def test_a_dry_run_prints_what_reads_back_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own_checkpoint(tmp_path / "us.pt")
    file = config_file(tmp_path / "tiny.yml", tensorboard=True, holdout=3, resume="auto", pretrained="us.pt", data="folder")
    outcome = done("train", file, "--set", "label_smoothing=0.1", "--dry-run")
    assert sorted(os.listdir(tmp_path)) == ["tiny.yml", "us.pt"]
    (tmp_path / "again.yml").write_text(outcome.out)
    assert read_config(str(tmp_path / "again.yml")) == read_config(str(file), ["label_smoothing=0.1"])
    assert outcome.lines[-1].startswith("# dry run: one step of 4 fake images on the CPU (1 thread")
    assert "loss 0.25: " in outcome.lines[-1] and ", 0.125: " in outcome.lines[-1]


def test_a_packaged_configuration_dry_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = done(
        "train",
        "us_mobilenet_v1",
        "--batch-size",
        "2",
        "--set",
        "image_size=64",
        "--dry-run",
        "--device",
        "cpu",
        "--ema",
        "0.9",
    )
    shown = yaml.safe_load(outcome.out)
    assert (shown["network"], shown["data"], shown["output_dir"]) == ("us_mobilenet_v1", "imagenet", "runs/us_mobilenet_v1")
    assert len(shown["test_widths"]) == 29
    assert os.listdir(tmp_path) == []


def test_a_dry_run_of_what_is_for_testing_only(tmp_path: Path) -> None:
    file = config_file(tmp_path / "tiny.yml", test_only=True, pretrained=str(own_checkpoint(tmp_path / "us.pt")))
    out = done("train", file, "--dry-run").out
    assert "# tests us.pt: us_mobilenet_v1, " in out and "# dry run: one step" in out
    refused_late(run("train", file, "--pretrained", "no.pt", "--dry-run"), 2, "no.pt: no such file")


def test_a_dry_run_tells_what_does_not_fit(tmp_path: Path) -> None:
    outcome = run("train", config_file(tmp_path / "tiny.yml", batch_size=1), "--dry-run")
    assert outcome.code == 2 and "one value per channel" in outcome.err


# ------------------------------------------------------------------------------------------------------------ profiles


@pytest.mark.parametrize(
    "name", ["us_mobilenet_v1", "s_mobilenet_v2", "autoslim_mnasnet", "s_shufflenet", "autoslim_resnet50"]
)
def test_profiles_are_the_published_figures(name: str) -> None:
    """Per switch, against the stored integers."""
    rows = json.loads(done("profile", name, "--json").out)
    macs = {float(width): value for width, value in layout(name)["macs"].items()}
    assert {float(row["width"]): row["published_macs"] for row in rows} == macs
    assert all(row["macs"] <= row["published_macs"] for row in rows)


def test_params_are_those_of_the_state_dict_once_folded() -> None:
    """Of the widest: every weight and bias, norms' scale and shift as one bias."""
    row = json.loads(done("profile", "s_mobilenet_v1", "--widths", "1.0", "--json").out)[0]
    shapes = {key: shape for key, shape, _ in layout("s_mobilenet_v1")["layout"]}
    expected = sum(torch.Size(shape).numel() for key, shape in shapes.items() if len(shape) > 1)
    expected += sum(shape[0] for key, shape in shapes.items() if key.endswith(".bn.3.bias")) + shapes["classifier.0.bias"][0]
    assert row["params"] == expected


def test_a_profile_of_chosen_widths_and_sizes() -> None:
    rows = json.loads(done("profile", "digits", "--widths", "0.3,0.25:1.0:0.25", "--json").out)
    assert [row["width"] for row in rows] == [0.3, 0.25, 0.5, 0.75, 1.0]
    large = json.loads(done("profile", "digits", "--widths", "0.3", "--set", "image_size=32", "--json").out)
    assert large[0]["macs"] > 3.5 * rows[0]["macs"] and large[0]["params"] == rows[0]["params"]
    ten = json.loads(done("profile", "digits", "--set", "data=folder", "--set", "classes=20", "--widths", "1.0", "--json").out)
    assert ten[0]["params"] == rows[-1]["params"] + 10 * 1025
    lines = done("profile", "digits", "--widths", "0.5").lines
    assert lines[0].split() == ["width", "MACs", "with", "pools", "params"] and lines[1].split()[0] == "0.5"
    assert done("profile", "us_mobilenet_v1", "--widths", "0.5").lines[0].split() == ["width", "MACs", "published", "params"]
    refused(run("profile", "digits", "--widths", "1.5"), 2, "width 1.5", "0.25 to 1.0")
    refused(run("profile", "digits", "--widths", "half"), 2, "not a number")
    refused(run("profile", "s_mobilenet_v1", "--widths", "0.3"), 2, "width 0.3")


# ----------------------------------------------------------------------------------------------------- published files


FAKE = ("--set", "data=fake", "--set", "augmentation=none", "--workers", "0", "--device", "cpu")


def test_a_published_file_trains_and_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    file = app_settings(tmp_path / "us.yml", log_dir=str(tmp_path / "run"))
    outcome = done(f"app:{file}", *FAKE)
    assert "calibrating 3 widths over 2 batches" in outcome.out
    assert "num_gpus_per_job" in caplog.text
    settings = read_config(str(tmp_path / "run" / "config.yml"))
    assert (settings.distill, settings.sandwich, settings.schedule, settings.seed) == (True, 3, "linear", 5)
    weights = tmp_path / "run" / "us_mobilenet_v1.pt"
    before = tree(tmp_path)

    only = app_settings(tmp_path / "only.yml", test_only=True, pretrained=str(weights))
    tested = done(f"app:{only}", *FAKE)
    assert [line.split()[0] for line in tested.lines[1:]] == ["width", "0.125", "0.1875", "0.25"]
    final = outcome.lines[
        [line.startswith("calibrating 3 widths over 2 batches of ") for line in outcome.lines].index(True) + 1 :
    ]
    assert tested.lines[1:] == final[1:5]  # the same figures that the run ended with
    fewer = app_settings(tmp_path / "only.yml", test_only=True, pretrained=str(weights), width_mult_list_test=[0.15])
    without = run(f"app:{fewer}", *FAKE, "--set", "calibration_batches=0")
    refused(without, 2, "width 0.15", "statistics only for 0.125, 0.1875, 0.25")
    calibrated = done(f"app:{fewer}", *FAKE)  # in memory, as `calibrate` would
    only.unlink()
    assert tree(tmp_path) == before  # testing writes nothing
    done("calibrate", f"app:{file}", *FAKE, "--ckpt", weights, "--widths", "0.15", "--output", tmp_path / "more.pt")
    expected = done("test", f"app:{file}", *FAKE, "--ckpt", tmp_path / "more.pt", "--widths", "0.125,0.15,0.25")
    assert calibrated.lines[1:] == expected.lines[1:]


def test_a_published_file_for_testing_tests_the_widths_that_it_names(tmp_path: Path) -> None:
    file = app_settings(tmp_path / "us.yml", log_dir=str(tmp_path / "run"), width_mult_list_test=[0.15, 0.2])
    done(f"app:{file}", *FAKE)
    weights = str(tmp_path / "run" / "us_mobilenet_v1.pt")
    only = app_settings(tmp_path / "only.yml", test_only=True, pretrained=weights, width_mult_list_test=[0.15])
    tested = done("train", f"app:{only}", *FAKE)
    assert [line.split()[0] for line in tested.lines[2:]] == ["0.125", "0.15", "0.25"]


def test_an_unknown_key_of_a_published_file(tmp_path: Path) -> None:
    file = app_settings(tmp_path / "us.yml", num_epoch=3)
    refused(run(f"app:{file}"), 2, "us.yml: key 'num_epoch'", "did you mean 'num_epochs'?")
    file = app_settings(tmp_path / "us.yml", test_only=True)
    refused(run(f"app:{file}"), 2, "test_only tests a checkpoint, but pretrained names none")


def test_python_dash_m_and_the_group_agree(tmp_path: Path) -> None:
    """The module runs as a program, from any folder."""
    shown = command("configs", cwd=tmp_path)
    assert shown.returncode == 0 and shown.stdout.split() == config_names()
    assert {"digits", "us_mobilenet_v1", "s_mobilenet_v1_cifar10"} <= set(config_names())


def test_killed_loading_processes_end_training_and_testing_and_the_advice_leads_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = config_file(tmp_path / "tiny.yml", epochs=1, output_dir=str(tmp_path / "run"))
    kill_loading_processes(monkeypatch, FakeSamples)
    failed = run("train", file, "--workers", "1")
    assert failed.code == 3 and "--workers 0" in failed.err and "--shm-size" in failed.err and "Traceback" not in failed.err
    done("train", file, "--workers", "0")
    ckpt = tmp_path / "run" / "us_mobilenet_v1.pt"
    refused(run("test", file, "--ckpt", ckpt, "--workers", "1"), 3, "was killed", "--workers 0", "--shm-size")
    done("test", file, "--ckpt", ckpt, "--workers", "0")
