"""`python -m slimtrain search`: from a configuration to plan files, killed and resumed, and every mistake told."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.checkpoints.own_layout import own_content
from slimtrain.checkpoints.published_layout import published_content
from slimtrain.checkpoints.writing import save
from slimtrain.cli import main
from slimtrain.config.reading import read_config
from slimtrain.costs.cost import CostCounter
from slimtrain.data.fake import FakeSamples
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.plan_file import read_plan_file
from slimtrain.models.spec import NetworkSpec
from slimtrain.search.held_out import HeldOut
from slimtrain.search.request import SearchRequest, beside
from slimtrain.search.run import run_whole_search
from slimtrain.search.supernet import supernet_config
from slimtrain.search.trace import Trace
from slimtrain.training import run as training
from slimtrain.training.distributed import Processes
from slimtrain.training.inputs import data_of
from slimtrain.training.run import Run
from tests.support.data_samples import kill_loading_processes
from tests.support.outcomes import Outcome
from tests.support.run_helpers import config_file, done, network_of, refused, run, tree, without_torch
from tests.support.search_helpers import (
    NAMES,
    RIGHT,
    US,
    own_checkpoint,
    plan,
    refused_late,
    search_file,
    searched,
    trace,
)
from tests.support.slimtrain_processes import in_processes, started_command

AUTOSLIM = ("autoslim_mobilenet_v1", "autoslim_mobilenet_v2", "autoslim_mnasnet", "autoslim_resnet50")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    """An uninterrupted search, and its folder. It is not changed."""
    return searched(tmp_path_factory.mktemp("finished"))


# ---------------------------------------------------------------------------------------------------------- the path


def test_a_search_writes_a_plan_for_every_target(finished: tuple[Outcome, Path]) -> None:
    outcome, folder = finished
    spec = open_checkpoint(folder / "supernet" / "us_mobilenet_v1.pt").spec
    assert sorted(path.name for path in (folder / "plans").iterdir()) == sorted(f"{name}.yml" for name in NAMES)
    rows = trace(folder)
    count = CostCounter(spec, 16)
    for name, target in zip(NAMES, (700_000, 450_000), strict=True):
        content = plan(folder, name)
        plan_read = read_plan_file(folder / "plans" / f"{name}.yml", spec)
        assert (content["network"], plan_read.name, content["target"]) == ("us_mobilenet_v1", name, target)
        assert content["macs"] == content["cost"] == count(plan_read).macs <= target
        assert content["params"] == count(plan_read).params
        # It is where the trace first falls to the target.
        first = next(row for row in rows if float(row["cost_after"]) <= target)
        assert (content["step"], content["macs"]) == (int(first["step"]), int(first["macs"]))
        assert (content["error_percent"], content["loss"]) == (float(first["error_after"]), float(first["loss_after"]))
        assert (content["images"], content["image_size"], content["stem_stride"], content["unit"]) == (12, 16, 1, "MACs")
        assert content["searched"]["sha256"] == open_checkpoint(folder / "supernet" / "us_mobilenet_v1.pt").sha256
    assert len(rows) == max(plan(folder, name)["step"] for name in NAMES)
    table = outcome.lines[-len(NAMES) - 2 : -1]
    assert table[0].split() == ["plan", "target", "MACs", "params", "held-out", "error", "loss"]
    for line, name in zip(table[1:], NAMES, strict=True):
        assert line.split()[0] == name and f"{plan(folder, name)['error_percent']:.2f}%" in line


def test_the_network_to_slim_is_trained_as_the_paper_says(finished: tuple[Outcome, Path]) -> None:
    _, folder = finished
    config = read_config(str(folder / "supernet" / "config.yml"))
    assert (config.network, config.nonuniform, config.distill) == ("us_mobilenet_v1", True, True)
    assert (config.width_range, config.epochs, config.holdout) == ((0.125, 0.25), 2, 12)
    settings = open_checkpoint(folder / "supernet" / "us_mobilenet_v1.pt").settings
    assert {key: settings[key] for key in RIGHT} == RIGHT
    assert not any(key.startswith(("search_", "output", "data_dir")) for key in settings)


def test_the_last_line_is_the_command_that_trains_what_was_found(finished: tuple[Outcome, Path], tmp_path: Path) -> None:
    outcome, folder = finished
    words = shlex.split(outcome.lines[-1])
    assert words[:4] == ["python", "-m", "slimtrain", "train"]
    assert words[-2:] == ["--plans", str(folder / "plans")]
    shown = yaml.safe_load(done(*words[3:], "--dry-run").out)
    assert (shown["network"], len(shown["channel_lists"])) == ("autoslim_mobilenet_v1", 2)


def test_the_search_measures_training_images_that_training_leaves_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every opened image is noted by who asked for it: none is a test image."""
    images: dict[str, set[str]] = {"train": set(), "search": set()}
    by = "train"
    original, original_slim = FakeSamples.image, Trace.begin

    def image(self: FakeSamples, index: int) -> Any:
        images[by].add(self.name(index))
        return original(self, index)

    def begin(self: Trace, *arguments: Any) -> None:
        nonlocal by
        by = "search"
        original_slim(self, *arguments)

    monkeypatch.setattr(FakeSamples, "image", image)
    monkeypatch.setattr(Trace, "begin", begin)
    searched(tmp_path, test_every=0)
    data = data_of(supernet_config(read_config(str(tmp_path / "tiny.yml")), tmp_path))
    kept, rest = ({samples.name(i) for i in range(len(samples))} for samples in (data.test, data.train))
    assert (len(kept), len(rest)) == (12, 20)
    assert images["search"] == kept
    # The trained network's own last test looks at those kept aside too; nothing is learned from that.
    assert kept < images["train"] and images["train"] - kept <= rest


@pytest.mark.parametrize(
    ("options", "unit", "names"),
    [
        (("--cost", "params", "--targets", "90K,70K"), "parameters", ("params_90K", "params_70K")),
        (("--cost", "activations", "--targets", "20K"), "activations", ("activations_20K",)),
        (("--criterion", "error-per-cost", "--search-images", "8"), "MACs", NAMES),
        (("--statistics", "calibrated", "--search-batch", "4", "--amp", "none"), "MACs", NAMES),
    ],
)
def test_other_costs_and_rules(options: tuple[str, ...], unit: str, names: tuple[str, ...], tmp_path: Path) -> None:
    ckpt = own_checkpoint(tmp_path / "own.pt", **RIGHT)
    outcome, folder = searched(tmp_path, "--ckpt", ckpt, *options)
    assert sorted(path.stem for path in (folder / "plans").iterdir()) == sorted(names)
    for name in names:
        content = plan(folder, name)
        count = CostCounter(US, 16)(ChannelPlan(name, content["channels"]))
        assert content["unit"] == unit and content["cost"] <= content["target"]
        assert content["cost"] == {"parameters": count.params, "activations": count.activations, "MACs": count.macs}[unit]
    assert content["images"] == (8 if "--search-images" in options else 12)
    assert content["criterion"] == ("error-per-cost" if "--criterion" in options else "error")
    assert content["statistics"] == ("calibrated" if "--statistics" in options else "batch")
    assert not (folder / "supernet").exists() and outcome.err == ""


def test_the_default_folder_is_beside_the_run(tmp_path: Path) -> None:
    assert beside(Path("runs/digits"), "_search") == Path("runs/digits_search")
    assert beside(Path("runs/digits_search/"), "_search") == Path("runs/digits_search")
    assert beside(Path(), "_search") == Path.cwd().with_name(Path.cwd().name + "_search")


# ------------------------------------------------------------------------------------------------- killed and resumed


class Killed(BaseException):
    """As a kill is, nothing catches it."""


@pytest.mark.parametrize("where", ["epoch", "finish", "begin", "step"])
def test_a_search_killed_anywhere_and_resumed_finds_the_same(
    where: str, finished: tuple[Outcome, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, name = {"epoch": (Run, "end_epoch"), "finish": (Run, "finish"), "begin": (Trace, "begin"), "step": (Trace, "add")}[
        where
    ]
    original, calls = getattr(kind, name), 0

    def method(self: Any, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == (1 if name in ("finish", "begin") else 2):
            raise Killed
        return original(self, *arguments)

    file = search_file(tmp_path / "tiny.yml", output_dir=str(tmp_path / "run"))
    with monkeypatch.context() as patch:
        patch.setattr(kind, name, method)
        with pytest.raises(Killed):
            main(["search", str(file)], standalone_mode=False)
    folder = tmp_path / "run_search"
    assert folder.exists() and not (folder / "plans").exists()
    done("search", file, "--resume", "auto")
    same_plans(folder, finished[1])
    assert trace(folder) == trace(finished[1])


def same_plans(folder: Path, other: Path) -> None:
    """Byte for byte."""
    assert tree(folder / "plans") == tree(other / "plans")


def test_sigkill(finished: tuple[Outcome, Path], tmp_path: Path) -> None:
    file = search_file(tmp_path / "tiny.yml", output_dir=str(tmp_path / "run"))
    process = started_command("search", file, cwd=tmp_path)
    trace_file = tmp_path / "run_search" / "trace.csv"
    deadline = time.monotonic() + 120
    while not (trace_file.exists() and len(trace_file.read_text().splitlines()) > 3):
        assert time.monotonic() < deadline and process.is_alive()
        time.sleep(0.002)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    done("search", file, "--resume", "auto")
    same_plans(tmp_path / "run_search", finished[1])
    assert trace(tmp_path / "run_search") == trace(finished[1])


def test_a_finished_search_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, folder = searched(tmp_path)
    before = tree(folder)
    monkeypatch.setattr(training.Run, "train_step", None)  # to call it would fail
    again = done("search", tmp_path / "tiny.yml", "--resume", "auto")
    assert tree(folder) == before
    assert again.lines[-4:] == outcome.lines[-4:]


def test_another_search_is_not_gone_on_with(tmp_path: Path) -> None:
    _, folder = searched(tmp_path)
    before = tree(folder)
    file = tmp_path / "tiny.yml"
    refused_late(
        run("search", file, "--resume", "auto", "--set", "seed=5"), 2, "belongs to a run with other settings: seed was 0"
    )
    refused_late(
        run("search", file, "--resume", "auto", "--groups", "3"), 2, "belongs to another search: groups was 2 and is 3"
    )
    done("train", file, "--epochs", "1")
    refused(run("search", file, "--resume", "auto", "--output-dir", tmp_path / "run"), 2, "holds a training run, no search")
    assert tree(folder) == before


def test_a_new_search_moves_the_old_one_aside_and_may_slim_its_network(tmp_path: Path) -> None:
    _, folder = searched(tmp_path)
    before = tree(folder)
    outcome = done("search", tmp_path / "tiny.yml", "--ckpt", folder / "supernet" / "us_mobilenet_v1.pt")
    assert outcome.lines[0] == f"{folder} held a run already: it is now {folder}.1"
    assert tree(folder.with_name("run_search.1")) == before
    assert not (folder / "supernet").exists() and outcome.err == ""  # it is as it should be: no warning
    same_plans(folder, folder.with_name("run_search.1"))


def whole(joined: Processes, file: str, folder: str, ckpt: str | None) -> list[tuple[dict[str, int], float]]:
    """A search on one of several processes: what it found."""
    outcomes = run_whole_search(SearchRequest(read_config(file), Path(folder), ckpt, file), joined, resume=False)
    return [(dict(outcome.plan.channels), outcome.loss) for outcome in outcomes]


def test_several_processes_find_the_same_and_one_of_them_writes(tmp_path: Path) -> None:
    file = search_file(tmp_path / "tiny.yml")
    one, other = in_processes(2, whole, str(file), str(tmp_path / "two"), None)  # they train it too
    assert one == other
    done("search", file, "--ckpt", tmp_path / "two" / "supernet" / "us_mobilenet_v1.pt", "--output-dir", tmp_path / "one")
    same_plans(tmp_path / "one", tmp_path / "two")
    assert trace(tmp_path / "one") == trace(tmp_path / "two")


def test_ctrl_c_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trace, "add", interrupt)
    outcome = run("search", search_file(tmp_path / "tiny.yml"), "--output-dir", tmp_path / "s")
    assert outcome.code == 130
    assert f"interrupted. Go on with --resume auto: {tmp_path / 's'} holds what was done." in outcome.err


# ------------------------------------------------------------------------------------------------------ the checkpoint


def warned(tmp_path: Path, caplog: pytest.LogCaptureFixture, ckpt: Path) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        searched(tmp_path, "--ckpt", ckpt)
    return [record.getMessage() for record in caplog.records]


def test_a_uniform_checkpoint_is_allowed_with_the_reason_why_it_ranks_poorly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (message,) = warned(tmp_path, caplog, own_checkpoint(tmp_path / "own.pt", **{**RIGHT, "nonuniform": False}))
    assert message.startswith("own.pt: was trained with uniform widths.") and "groups are ranked poorly" in message


@pytest.mark.parametrize("change", [{"holdout": 11}, {"seed": 1}, {"data": "digits"}])
def test_a_checkpoint_that_knows_the_held_out_images(
    change: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (message,) = warned(tmp_path, caplog, own_checkpoint(tmp_path / "own.pt", **{**RIGHT, **change}))
    assert message.startswith("own.pt: was trained on images that are now held out") and "expected fake, 0, 12" in message


def test_a_checkpoint_that_does_not_say(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (message,) = warned(tmp_path, caplog, own_checkpoint(tmp_path / "own.pt"))
    assert message.startswith("own.pt: does not say how it was trained.")


def test_a_checkpoint_that_held_out_more_is_as_good(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert warned(tmp_path, caplog, own_checkpoint(tmp_path / "own.pt", **{**RIGHT, "holdout": 16})) == []


def test_settings_come_back_and_survive_calibration(tmp_path: Path) -> None:
    ckpt = own_checkpoint(tmp_path / "own.pt", **RIGHT)
    assert open_checkpoint(ckpt).settings == RIGHT
    done("calibrate", config_file(tmp_path / "tiny.yml"), "--ckpt", ckpt)
    assert open_checkpoint(tmp_path / "own_calibrated.pt").settings == RIGHT


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--targets", "2M"), "target 2M MACs: above the network's own 834.7K MACs at its widest"),
        (("--targets", "700K,100K"), "target 100K MACs: below what slimming reaches, 290.4K MACs"),
        (("--targets", ""), "not a number"),
        (("--targets", "many"), "not a number"),
        (("--set", "search_targets="), "no targets. Name the costs to find networks for, as in --targets 150M,300M"),
        (("--set", "search_holdout=0"), "no training images are held out to search on"),
        (("--set", "search_holdout=32"), "holdout is 32, but there are 32 training images"),
        (("--search-images", "13"), "search_images is 13, but only 12 are held out"),
        (("--groups", "0"), "search_groups is 0, expected at least 1"),
        (("--cost", "mac"), "search_cost is 'mac' (did you mean 'macs'?)"),
        (("--cost", "latency"), "a latency table is for search_cost latency, which needs one"),
        (("--latency-table", "t.json"), "a latency table is for search_cost latency"),
        (("--criterion", "loss"), "search_criterion is 'loss'"),
        (("--statistics", "none"), "search_statistics is 'none'"),
        (("--resume", "maybe"), "'maybe' is not one of 'none', 'auto'"),
        (("--set", "search_share=0"), "search_share is 0"),
        (("--set", "search_widths=[0.5]"), "search_widths is [0.5], expected [narrowest, widest]"),
        (("--set", "search_widths=[0.5, 0.25]"), "search_widths is [0.5, 0.25]"),
        (("--set", "network=s_shufflenet", "--set", "width_range=", "--set", "test_widths="), "there is no us_shufflenet"),
        (("--ckpt", "nowhere.pt"), "nowhere.pt: no such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistakes_are_told_before_anything_is_written(
    args: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(run("search", search_file(tmp_path / "tiny.yml"), *args), 2, words)
    assert os.listdir(tmp_path) == ["tiny.yml"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            NetworkSpec("mobilenet_v2", "us", (0.25, 0.5), 10, width_range=(0.25, 0.5), stem_stride=1),
            "holds a us_mobilenet_v2",
        ),
        (NetworkSpec("mobilenet_v1", "s", (0.25, 0.5), 10, stem_stride=1), "holds a s_mobilenet_v1, not a us_mobilenet_v1"),
        (NetworkSpec("mobilenet_v1", "us", (0.125, 0.25), 10, width_range=(0.125, 0.25)), "stem stride 2, the configuration"),
        (NetworkSpec("mobilenet_v1", "us", (0.125, 0.25), 7, width_range=(0.125, 0.25), stem_stride=1), "has 7 classes"),
        (
            NetworkSpec("mobilenet_v1", "us", (0.125, 0.2), 10, width_range=(0.125, 0.2), stem_stride=1),
            "above the network's own",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_moves_nothing_aside(spec: NetworkSpec, words: str, tmp_path: Path) -> None:
    file = search_file(tmp_path / "tiny.yml", output_dir=str(tmp_path / "run"))
    (tmp_path / "run_search").mkdir()
    (tmp_path / "run_search" / "config.yml").write_text("network: us_mobilenet_v1\n")
    ckpt = own_checkpoint(tmp_path / "own.pt", spec, **RIGHT)
    refused(run("search", file, "--ckpt", ckpt), 2, words)
    assert sorted(os.listdir(tmp_path)) == ["own.pt", "run_search", "tiny.yml"]


def test_a_checkpoint_of_other_images_is_refused(tmp_path: Path) -> None:
    """What is found at one size would be trained at another."""
    save(own_content(network_of(US), 32, (0.5,) * 3, (0.25,) * 3, settings=RIGHT), tmp_path / "own.pt")
    file = search_file(tmp_path / "tiny.yml", output_dir=str(tmp_path / "run"))
    refused(run("search", file, "--ckpt", tmp_path / "own.pt"), 2, "takes images of 32 pixels", "Set image_size=32")
    assert sorted(os.listdir(tmp_path)) == ["own.pt", "tiny.yml"]


def test_data_that_is_not_there_moves_nothing_aside(tmp_path: Path) -> None:
    """Even where the number of classes is known without looking."""
    folder = tmp_path / "run_search"
    folder.mkdir()
    (folder / "config.yml").write_text("network: us_mobilenet_v1\n")
    changes = {"data": "folder", "classes": 3, "data_dir": str(tmp_path / "nowhere")}
    file = search_file(tmp_path / "tiny.yml", output_dir=str(tmp_path / "run"), **changes)
    refused(run("search", file), 2, "nowhere: no such folder")
    assert sorted(os.listdir(tmp_path)) == ["run_search", "tiny.yml"]


def test_images_that_cannot_be_read_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ckpt = own_checkpoint(tmp_path / "own.pt", **RIGHT)
    original = FakeSamples.image
    config = supernet_config(read_config(str(search_file(tmp_path / "tiny.yml"))), tmp_path)
    held = data_of(config).test
    bad = {held.name(0), held.name(7)}

    def image(self: FakeSamples, index: int) -> Any:
        if self.name(index) in bad:
            raise OSError("cannot identify image file")
        return original(self, index)

    monkeypatch.setattr(FakeSamples, "image", image)
    outcome, folder = searched(tmp_path, "--ckpt", ckpt)
    assert "on 10 images" in outcome.out
    assert plan(folder, NAMES[0])["images"] == 10
    (folder / "plans" / f"{NAMES[0]}.yml").unlink()
    done("search", tmp_path / "tiny.yml", "--ckpt", ckpt, "--resume", "auto")  # nothing is read again
    assert plan(folder, NAMES[0])["images"] == 10


def test_other_normalization_is_another_search(tmp_path: Path) -> None:
    """A published file does not say how it sees images: the configuration does."""
    ckpt = tmp_path / "published.pt"
    spec = NetworkSpec("mobilenet_v1", "us", (0.125, 0.25), 10, width_range=(0.125, 0.25))
    save(published_content(network_of(spec)), ckpt)
    options = ("--ckpt", ckpt, "--set", "stem_stride=2", "--set", "image_size=32")
    searched(tmp_path, *options)
    outcome = run("search", tmp_path / "tiny.yml", *options, "--resume", "auto", "--set", "mean=[0, 0, 0]")
    refused_late(outcome, 2, "belongs to another search: mean was [0.5, 0.5, 0.5] and is [0.0, 0.0, 0.0]")


@pytest.mark.parametrize(("gib", "times"), [(0, 3), (1, 1)])
def test_images_are_kept_in_the_memory_that_is_given(
    gib: float, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The widest, and two steps: without room every image is opened for each."""
    opened: dict[str, int] = {}
    original = FakeSamples.image

    def image(self: FakeSamples, index: int) -> Any:
        opened[self.name(index)] = opened.get(self.name(index), 0) + 1
        return original(self, index)

    monkeypatch.setattr(FakeSamples, "image", image)
    ckpt = own_checkpoint(tmp_path / "own.pt", **RIGHT)
    _, folder = searched(tmp_path, "--ckpt", ckpt, "--targets", "770K", "--set", f"search_cache_gib={gib}")
    assert len(trace(folder)) == 2 and len(opened) == 12 and set(opened.values()) == {times}


def names_of(samples: Any) -> set[str]:
    return {samples.name(i) for i in range(len(samples))}


def test_what_tests_the_found_networks_chose_none_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `holdout` the tests are on training images kept aside, the search is on others, the rest trains."""
    seen: set[str] = set()
    original = HeldOut.read

    def read(self: HeldOut, numbers: Any) -> Any:
        seen.update(names_of(self.samples))
        return original(self, numbers)

    monkeypatch.setattr(HeldOut, "read", read)
    _, folder = searched(tmp_path, holdout=6, search_holdout=12)
    config = read_config(str(tmp_path / "tiny.yml"))
    search = SearchRequest(config, folder, None, str(tmp_path / "tiny.yml"))
    tests, trained = names_of(data_of(search.final).test), names_of(data_of(search.supernet).train)
    assert (len(tests), len(seen), len(trained)) == (6, 12, 14)
    assert not tests & seen and not tests & trained and not seen & trained
    assert "holdout" not in search.next_command()


def test_images_kept_aside_for_tests_alone_serve_the_search_and_test_nothing_more(tmp_path: Path) -> None:
    outcome, folder = searched(tmp_path, holdout=12, search_holdout=0)
    config = read_config(str(tmp_path / "tiny.yml"))
    search = SearchRequest(config, folder, None, str(tmp_path / "tiny.yml"))
    assert search.supernet.holdout == 12 and search.final.holdout == 0
    assert names_of(data_of(search.final).test) & names_of(data_of(search.supernet).test) == set()
    assert "--set holdout=0" in outcome.lines[-1]


def test_a_share_kept_aside_serves_the_search(tmp_path: Path) -> None:
    outcome, folder = searched(tmp_path, "--targets", "770K", holdout=0.5, search_holdout=0, search_images=10)
    search = SearchRequest(read_config(str(tmp_path / "tiny.yml")), folder, None, str(tmp_path / "tiny.yml"))
    assert len(data_of(search.supernet).test) == 16
    assert any(line.startswith("searching on 10 of 16 images, ") for line in outcome.lines)


def test_killed_loading_processes_end_a_search_and_the_advice_leads_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_loading_processes(monkeypatch, FakeSamples)
    options = ("--ckpt", own_checkpoint(tmp_path / "own.pt", **RIGHT), "--targets", "770K")
    failed = run("search", search_file(tmp_path / "tiny.yml", output_dir=str(tmp_path / "run")), *options, "--workers", "1")
    assert failed.code == 3 and "--workers 0" in failed.err and "--shm-size" in failed.err and "Traceback" not in failed.err
    searched(tmp_path, *options, "--workers", "0")


def test_mistakes_and_help_need_no_torch(tmp_path: Path) -> None:
    shown = without_torch("search", "--help")
    assert shown.returncode == 0 and "--targets LIST" in shown.stdout
    file = search_file(tmp_path / "tiny.yml")
    for args, words in (
        (("search", file, "--set", "search_holdout=0"), "no training images are held out"),
        (("search", file, "--targets", "x"), "not a number"),
        (("train", file, "--plans", tmp_path / "nowhere"), "no such folder. The search writes it"),
        (("train", file, "--plan", "macs_700K"), "--plan macs_700K: of which folder? Name it: --plans DIR"),
    ):
        failed = without_torch(*args)
        assert failed.returncode == 2 and words in failed.stderr and "Traceback" not in failed.stderr, failed
    missing = without_torch("search", file, "--output-dir", tmp_path / "s")
    assert missing.returncode == 3 and "the package torch is not installed" in missing.stderr, missing
    assert "Traceback" not in missing.stderr
    assert os.listdir(tmp_path) == ["tiny.yml"]
