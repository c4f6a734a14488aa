"""What comes after the search: found networks beside uniform widths, trained, tested, exported; killed and resumed."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from slimtrain.checkpoints.own_layout import own_content
from slimtrain.checkpoints.writing import save
from slimtrain.cli import main
from slimtrain.config.reading import read_config
from slimtrain.costs.cost import CostCounter
from slimtrain.costs.cost_model import cost_model
from slimtrain.models.plan_file import read_plan_file
from slimtrain.models.spec import NetworkSpec
from slimtrain.search import finishing
from slimtrain.search.finishing import check_finish, nearest_width, uniform_plan
from slimtrain.search.from_plans import plans_config
from slimtrain.search.request import SearchRequest
from slimtrain.search.run import run_whole_search
from slimtrain.training import run as training
from slimtrain.training.distributed import Processes
from tests.support.outcomes import Outcome
from tests.support.run_helpers import done, network_of, refused, run, tree
from tests.support.search_helpers import NAMES, plan, search_file
from tests.support.slimtrain_processes import in_processes

US = NetworkSpec("mobilenet_v1", "us", (0.125, 0.25), 10, width_range=(0.125, 0.25), stem_stride=1)
CHECKPOINT = "autoslim_mobilenet_v1.pt"


def finishing_file(folder: Path, **changes: Any) -> Path:
    return search_file(folder / "tiny.yml", output_dir=str(folder / "run"), search_finish=True, **changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    """A whole search with all that comes after it, and its folder. It is not changed."""
    folder = tmp_path_factory.mktemp("finished")
    return done("search", finishing_file(folder, search_train_epochs=2)), folder / "run_search"


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "comparison.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def results_of(folder: Path, name: str) -> list[dict[str, Any]]:
    """What `slimtrain test` says of the run called `name`."""
    run_folder = folder / name
    outcome = done("test", run_folder / "config.yml", "--ckpt", run_folder / CHECKPOINT, "--json")
    results: list[dict[str, Any]] = json.loads(outcome.out)
    return results


def test_found_networks_stand_beside_uniform_ones(finished: tuple[Outcome, Path]) -> None:
    outcome, folder = finished
    searched, uniform = results_of(folder, "found"), results_of(folder, "uniform")
    count = CostCounter(US, 16)
    assert [row["plan"] for row in rows(folder)] == list(NAMES)
    for row, ours, theirs in zip(rows(folder), reversed(searched), reversed(uniform), strict=True):  # switches ascend
        content = plan(folder, row["plan"])
        assert (int(row["macs"]), float(row["cost"])) == (content["macs"], content["cost"])
        assert (float(row["top1"]), float(row["loss"])) == (ours["top1"], ours["loss"])
        assert (float(row["uniform_top1"]), float(row["uniform_loss"])) == (theirs["top1"], theirs["loss"])
        assert int(row["images"]) == ours["images"]
        # No other width is nearer.
        width = float(row["width"])
        distances = {w / 2000: abs(count(US.plan(w / 2000)).macs - content["macs"]) for w in range(250, 501)}
        assert abs(int(row["uniform_macs"]) - content["macs"]) == distances[width] == min(distances.values())
        assert read_plan_file(folder / "uniform_plans" / f"uniform_{width}.yml".replace("0.", "0_"), US) == uniform_plan(
            US, width
        )
    table = outcome.lines[-len(NAMES) - 2 :]
    assert table[0] == f"found networks beside uniform widths, on {searched[0]['images']} test images"
    columns = ["target", "MACs", "params", "top-1", "|", "width", "MACs", "params", "top-1", "|", "difference"]
    assert table[1].split() == columns
    for line, row in zip(table[2:], rows(folder), strict=True):
        ahead = 100 * (float(row["top1"]) - float(row["uniform_top1"]))
        assert line.split()[-1] == f"{ahead:+.2f}" and f"{float(row['top1']):.2%}" in line


def test_both_are_trained_the_same_way_and_on_all_training_images(finished: tuple[Outcome, Path]) -> None:
    _, folder = finished
    searched, uniform = (read_config(str(folder / name / "config.yml")) for name in ("found", "uniform"))
    assert (searched.network, searched.epochs, searched.holdout) == ("autoslim_mobilenet_v1", 2, 0)
    for key in ("epochs", "lr", "warmup_epochs", "holdout", "seed", "distill", "batch_size", "calibration_batches"):
        assert getattr(searched, key) == getattr(uniform, key)
    assert searched.channel_lists == plans_config(searched, folder / "plans")[0].channel_lists != uniform.channel_lists


def test_found_networks_are_exported_and_verified(finished: tuple[Outcome, Path]) -> None:
    outcome, folder = finished
    manifest = json.loads((folder / "exports" / "manifest.json").read_text())
    assert [artifact["macs"] for artifact in manifest["artifacts"]] == [plan(folder, name)["macs"] for name in reversed(NAMES)]
    assert all(artifact["verification"]["status"] == "passed" for artifact in manifest["artifacts"])
    (line,) = [line for line in outcome.lines if line.startswith("slimexport") and "--output-dir" in line]
    assert line.split()[1:5] == ["--ckpt", str(folder / "found" / CHECKPOINT), "--widths", "1,2"]


class Killed(BaseException):
    """As a kill is, nothing catches it."""


@pytest.mark.parametrize(("kind", "call"), [("end_epoch", 4), ("finish", 2), ("finish", 3)])
def test_killed_while_training_and_resumed(
    kind: str, call: int, finished: tuple[Outcome, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The 3rd and 4th epoch are the found networks', the 3rd finish is that of the uniform ones."""
    original, calls = getattr(training.Run, kind), 0

    def method(self: Any, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise Killed
        return original(self, *arguments)

    file = finishing_file(tmp_path, search_train_epochs=2)
    with monkeypatch.context() as patch:
        patch.setattr(training.Run, kind, method)
        with pytest.raises(Killed):
            main(["search", str(file)], standalone_mode=False)
    monkeypatch.setattr(finishing, "_export", lambda *arguments: None)  # tested once
    done("search", file, "--resume", "auto")
    assert rows(tmp_path / "run_search") == rows(finished[1])


def test_slimexports_exit_code_is_ours_and_nothing_is_trained_again(
    finished: tuple[Outcome, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished[1], tmp_path / "run_search")
    file = finishing_file(tmp_path, search_train_epochs=2)
    shutil.rmtree(tmp_path / "run_search" / "exports")
    monkeypatch.setattr(training.Run, "train_step", None)  # to call it would fail
    ended: list[list[str]] = []

    def failing(words: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        ended.append(words)
        return subprocess.CompletedProcess(words, 3)

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", failing)
        outcome = run("search", file, "--resume", "auto")
    assert outcome.code == 3 and len(ended) == 1
    assert "slimexport ended with exit code 3" in outcome.err and "--resume auto" in outcome.err
    assert rows(tmp_path / "run_search") == rows(finished[1])  # measured before
    done("search", file, "--resume", "auto")
    assert (tmp_path / "run_search" / "exports" / "manifest.json").exists()


def test_other_settings_are_not_mixed_into_what_is_trained(finished: tuple[Outcome, Path], tmp_path: Path) -> None:
    shutil.copytree(finished[1], tmp_path / "run_search")
    before = tree(tmp_path / "run_search")
    outcome = run("search", finishing_file(tmp_path, search_train_epochs=3), "--resume", "auto")
    assert outcome.code == 2 and "epochs was 2 and is 3" in outcome.err
    assert tree(tmp_path / "run_search") == before


@pytest.mark.parametrize("change", ["lr=0.9", "amp=bf16", "calibration_batches=1"])
def test_both_or_neither_are_trained_with_other_settings(change: str, finished: tuple[Outcome, Path], tmp_path: Path) -> None:
    """Even with those that a resumed run may have changed."""
    shutil.copytree(finished[1], tmp_path / "run_search")
    shutil.rmtree(tmp_path / "run_search" / "uniform")
    outcome = run("search", finishing_file(tmp_path, search_train_epochs=2), "--resume", "auto", "--set", change)
    key = change.split("=", maxsplit=1)[0]
    assert outcome.code == 2 and f"{key} was" in outcome.err and "remove found/ and uniform/" in outcome.err
    assert not (tmp_path / "run_search" / "uniform").exists()


def test_what_finishing_needs_is_checked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = tmp_path / "pictures"
    for folder in ("train/a", "train/b"):
        (pictures / folder).mkdir(parents=True)
        for number in range(8):
            Image.new("RGB", (16, 16), (number, 9, 9)).save(pictures / folder / f"{number}.png")
    changes: dict[str, Any] = {"data": "folder", "data_dir": str(pictures), "search_holdout": 4, "search_targets": ["600K"]}
    file = finishing_file(tmp_path, **changes)
    advice = "hold out both, in numbers of images, --set holdout=N --set search_holdout=M"
    refused(run("search", file), 2, "val", advice)
    refused(run("search", file, "--set", "search_holdout=0", "--set", "holdout=0.25"), 2, "val", advice)
    followed = read_config(str(file), ["holdout=4", "search_holdout=4", "classes=2"])
    check_finish(SearchRequest(followed, tmp_path / "run_search"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    file = finishing_file(tmp_path)
    refused(run("search", file), 3, "--finish: needs the package slimexport", "--no-finish")
    assert not (tmp_path / "run_search").exists()


def test_weights_to_start_from_and_a_width_to_follow_are_the_us_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finishing, "_export", lambda *arguments: None)
    network = tmp_path / "us.pt"
    save(own_content(network_of(US), 16, (0.5,) * 3, (0.25,) * 3), network)
    done("search", finishing_file(tmp_path, pretrained=str(network), best_by="0.1875", search_targets=["600K"]))
    assert len(rows(tmp_path / "run_search")) == 1


def test_without_finishing_the_path_ends_with_the_plans(tmp_path: Path) -> None:
    done("search", finishing_file(tmp_path), "--no-finish")
    assert {path.name for path in (tmp_path / "run_search").iterdir()} & {"found", "uniform", "exports"} == set()


def test_targets_that_end_at_one_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finishing, "_export", lambda *arguments: None)
    done("search", finishing_file(tmp_path, search_targets=["700K", "699999"]))
    first, second = rows(tmp_path / "run_search")
    assert first.pop("plan") == "macs_700K" and second.pop("plan") == "macs_699_999K"
    assert float(first.pop("target")) == 700_000 and float(second.pop("target")) == 699_999
    assert first == second
    assert len(results_of(tmp_path / "run_search", "found")) == 1


def whole(joined: Processes, file: str, folder: str) -> int:
    return len(run_whole_search(SearchRequest(read_config(file), Path(folder), None, file), joined, resume=False))


def test_several_processes_finish_together(tmp_path: Path) -> None:
    file = finishing_file(tmp_path, search_targets=["600K"], epochs=2)
    assert in_processes(2, whole, str(file), str(tmp_path / "run_search")) == [1, 1]
    (row,) = rows(tmp_path / "run_search")
    assert float(row["top1"]) == results_of(tmp_path / "run_search", "found")[0]["top1"]
    assert (tmp_path / "run_search" / "exports" / "manifest.json").exists()


def test_a_width_with_few_digits_is_named() -> None:
    spec = NetworkSpec("mobilenet_v1", "us", (0.15, 1.5), 10, width_range=(0.15, 1.5))
    cost = cost_model("macs", spec, 32)
    for width in (0.25, 0.5, 1.0, 1.5):
        nearest = nearest_width(spec, cost, cost(spec.plan(width)))
        assert nearest == width
    assert uniform_plan(spec, 0.25).channels == spec.plan(0.25).channels and uniform_plan(spec, 0.25).name == "uniform_0_25"
