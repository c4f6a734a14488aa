"""`test` and `calibrate`: a checkpoint's widths on a configuration's images, ours and published ones."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.checkpoints.own_layout import own_content
from slimtrain.checkpoints.published_layout import published_content
from slimtrain.checkpoints.writing import save
from slimtrain.data.loader import test_batches, training_batches
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.calibrate import calibrate
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.training.evaluate import calibrate_on
from slimtrain.training.inputs import CALIBRATION_EPOCH, RunImages, data_of, test_transform_of, train_transform_of
from slimtrain.training.testing import open_with_data
from tests.support.run_helpers import (
    ALONE,
    S2,
    US1,
    US2,
    calibrated_network,
    config,
    config_file,
    done,
    mixed,
    network_of,
    raw,
    refused,
    run,
    same_calibrated,
    same_state,
)

NAMES = tuple(f"class {i}" for i in range(10))
PLAIN = NetworkSpec("mobilenet_v1", "us", (0.25, 0.5), 10, width_range=(0.25, 0.5))
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def own(network: SlimmableNetwork, path: Path, size: int = 16, names: tuple[str, ...] = NAMES) -> Path:
    save(own_content(network, size, MEAN, STD, names), path)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return config_file(tmp_path / "tiny.yml")


def test_whether_photographs_are_turned_is_what_the_checkpoint_says(tmp_path: Path) -> None:
    save(own_content(network_of(US1), 16, MEAN, STD, NAMES, settings={"exif_orientation": True}), tmp_path / "own.pt")
    _, settings, _ = open_with_data(config(tmp_path / "run"), ALONE, str(tmp_path / "own.pt"))
    assert settings.exif_orientation


@pytest.fixture
def published(tmp_path: Path) -> tuple[Path, Path]:
    """A checkpoint in the published layout, 10 classes, and a configuration of its network."""
    save(published_content(calibrated_network(PLAIN, PLAIN.plan(0.4))), tmp_path / "theirs.pt")
    settings = {"width_range": [0.25, 0.5], "stem_stride": 2, "image_size": 32, "test_widths": []}
    return tmp_path / "theirs.pt", config_file(tmp_path / "theirs.yml", **settings)


def rows(*args: Any) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads(done(*args, "--json").out)
    return records


def expected_rows(network: SlimmableNetwork, evaluation: Any) -> list[dict[str, Any]]:
    """Computed image by image."""
    batches = list(test_batches(data_of(evaluation).test, test_transform_of(evaluation), batch_size=1))
    records = []
    for plan in sorted(network.known_plans, key=lambda plan: plan.width or 0):
        with torch.inference_mode(), network.at(plan):
            scores = torch.cat([network(batch.images) for batch in batches]).double()
        labels = torch.cat([batch.labels for batch in batches])
        ranks = (scores > scores.gather(1, labels[:, None])).sum(1)
        loss = -scores.log_softmax(1).gather(1, labels[:, None]).mean()
        top1, top5 = (ranks < 1).double().mean(), (ranks < 5).double().mean()
        records.append({"plan": plan.name, "width": plan.width, "loss": loss.item(), "top1": top1.item(), "top5": top5.item()})
    return records


# ------------------------------------------------------------------------------------------------------------- testing


def test_figures_are_those_of_the_definition(tmp_path: Path, file: Path) -> None:
    network = calibrated_network(US1, US1.plan(0.1875))
    records = rows("test", file, "--ckpt", own(network, tmp_path / "own.pt"))
    expected = expected_rows(network, config(tmp_path / "run"))
    assert [row["plan"] for row in records] == ["x0_125", "x0_1875", "x0_25"]
    for row, other in zip(records, expected, strict=True):
        assert row.pop("images") == 16 and row.keys() == other.keys()
        assert row == {**other, "loss": pytest.approx(other["loss"], rel=1e-5)}


def test_a_published_checkpoint_is_tested(published: tuple[Path, Path]) -> None:
    path, settings = published
    records = rows("test", settings, "--ckpt", path)
    network = open_checkpoint(path).network
    run_config = config(path.parent / "run", width_range=[0.25, 0.5], stem_stride=2, image_size=32, test_widths=[])
    expected = expected_rows(network, run_config)
    assert [row["width"] for row in records] == [0.25, 0.4, 0.5]
    assert [row["loss"] for row in records] == pytest.approx([row["loss"] for row in expected], rel=1e-5)


def test_chosen_widths_and_a_plan_file(tmp_path: Path, file: Path) -> None:
    plan = mixed(US1, "by_hand")
    path = own(calibrated_network(US1, plan), tmp_path / "own.pt")
    (tmp_path / "plan.yml").write_text(yaml.safe_dump({"name": "by_hand", "channels": dict(plan.channels)}))
    assert [r["plan"] for r in rows("test", file, "--ckpt", path, "--widths", "0.25")] == ["x0_25"]
    assert [r["plan"] for r in rows("test", file, "--ckpt", path, "--channels", tmp_path / "plan.yml")] == ["by_hand"]
    both = rows("test", file, "--ckpt", path, "--widths", "0.25,0.125", "--channels", tmp_path / "plan.yml")
    assert [(r["plan"], r["width"]) for r in both] == [("x0_25", 0.25), ("x0_125", 0.125), ("by_hand", None)]
    assert {r["plan"] for r in rows("test", file, "--ckpt", path, "--widths", "all")} == {"x0_125", "x0_25", "by_hand"}
    table = done("test", file, "--ckpt", path, "--widths", "0.25").lines
    assert table[0] == f"{path}, on 16 test images" and table[1].split() == ["width", "loss", "top-1", "top-5"]
    assert table[2].split()[0] == "0.25" and len(table) == 3


def test_widths_that_cannot_be_tested(tmp_path: Path, file: Path) -> None:
    path = own(calibrated_network(US1), tmp_path / "own.pt")
    message = ("width 0.2: own.pt has batch-norm statistics only for 0.125, 0.25", "python -m slimtrain calibrate")
    refused(run("test", file, "--ckpt", path, "--widths", "0.2"), 2, *message)
    refused(run("test", file, "--ckpt", path, "--widths", "0.5"), 2, "width 0.5", "0.125 to 0.25")
    fresh = own(SlimmableNetwork(US1).eval(), tmp_path / "fresh.pt")
    refused(run("test", file, "--ckpt", fresh), 2, "no batch-norm statistics at all", "slimtrain calibrate")


def test_the_checkpoint_says_which_images_it_takes(tmp_path: Path, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    network = calibrated_network(US1)
    path = own(network, tmp_path / "own.pt")
    as_it_says = rows("test", file, "--ckpt", path)
    caplog.clear()
    other = rows("test", file, "--ckpt", path, "--set", "mean=[0,0,0]")
    assert other == as_it_says and "own.pt says which images it takes" in caplog.text
    caplog.clear()
    rows("test", file, "--ckpt", path)
    assert caplog.text == ""


@pytest.mark.parametrize("command", ["test", "calibrate"])
def test_checkpoints_and_data_that_do_not_fit(tmp_path: Path, file: Path, command: str) -> None:
    path = own(calibrated_network(US1), tmp_path / "own.pt")
    before = sorted(os.listdir(tmp_path))

    def says(*words: str, ckpt: Path = path, changes: tuple[str, ...] = (), code: int = 2) -> None:
        options = [word for change in changes for word in ("--set", change)]
        refused(run(command, file, "--ckpt", ckpt, *options), code, *words)

    says("own.pt: has 10 classes, the data has 3", changes=("classes=3",))
    says("holds a us_mobilenet_v1, not a us_mobilenet_v2", changes=("network=us_mobilenet_v2",))
    says("no such file", ckpt=tmp_path / "nowhere.pt")
    says("data_dir is not set", changes=("data=folder",))
    assert sorted(os.listdir(tmp_path)) == before
    (tmp_path / "own.pt").write_bytes(path.read_bytes()[:5000])
    says("own.pt: truncated or damaged")


def test_classes_of_other_names_are_refused(tmp_path: Path, file: Path) -> None:
    """Ten classes and ten classes, and yet labels would not mean the same."""
    names = tuple(f"digit {i}" for i in range(10))
    path = own(calibrated_network(US1), tmp_path / "own.pt", names=names)
    refused(run("test", file, "--ckpt", path), 2, "own.pt: has a class 'digit 0' where the data has 'class 0'")
    unnamed = own(calibrated_network(US1), tmp_path / "unnamed.pt", names=())
    assert len(rows("test", file, "--ckpt", unnamed)) == 2


def test_a_damaged_list_of_names(tmp_path: Path, file: Path) -> None:
    path = own(calibrated_network(US1), tmp_path / "own.pt")
    torch.save({**raw(path), "class_names": ["class 0"]}, path)
    refused(run("test", file, "--ckpt", path), 2, "own.pt: does not name its 10 classes")


def test_labeled_folders(tmp_path: Path, file: Path) -> None:
    draw = np.random.default_rng(0)
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for i in range(3):
                pixels = draw.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / part / name / f"{i}.png")
    spec = NetworkSpec("mobilenet_v1", "us", (0.125, 0.25), 2, width_range=(0.125, 0.25), stem_stride=1)
    path = own(calibrated_network(spec), tmp_path / "own.pt", names=("cat", "dog"))
    folder = ("--set", "data=folder", "--data-dir", tmp_path / "data")
    records = rows("test", file, "--ckpt", path, *folder)
    assert [(row["images"], row["top5"]) for row in records] == [(6, 1.0)] * 2
    (tmp_path / "data" / "val" / "dog" / "0.png").write_bytes(b"no image")
    assert rows("test", file, "--ckpt", path, *folder)[0]["images"] == 5


def test_options_of_the_machine(tmp_path: Path, file: Path) -> None:
    path = own(calibrated_network(US1), tmp_path / "own.pt")
    exact = rows("test", file, "--ckpt", path)
    half = rows("test", file, "--ckpt", path, "--amp", "bf16", "--no-channels-last", "--batch-size", "8", "--workers", "1")
    for a, b in zip(exact, half, strict=True):
        assert a["loss"] != b["loss"] and a["loss"] == pytest.approx(b["loss"], rel=0.1)


# --------------------------------------------------------------------------------------------------------- calibration


def test_statistics_are_those_of_the_training_batches(tmp_path: Path, file: Path) -> None:
    """All plans at once, and the same as each by itself."""
    network = network_of(US1)
    path = own(network, tmp_path / "own.pt")
    outcome = done("calibrate", file, "--ckpt", path, "--widths", "0.125,0.2,0.25")
    assert outcome.out.startswith(f"{tmp_path}/own_calibrated.pt: 3 widths calibrated: x0_125, x0_2, x0_25")
    calibrated = open_checkpoint(tmp_path / "own_calibrated.pt").network
    same_state(network.state_dict(), calibrated.state_dict())
    settings = config(tmp_path / "run")
    batches = training_batches(
        data_of(settings).train, train_transform_of(settings), epochs=9, batch_size=8, seed=settings.seed + CALIBRATION_EPOCH
    )
    images = [next(batches).images for _ in range(settings.calibration_batches)]
    for width in (0.125, 0.2, 0.25):
        alone = network_of(US1)
        calibrate(alone, [US1.plan(width)], images)
        for key, pair in alone.statistics(US1.plan(width)).items():
            for own_value, value in zip(pair, calibrated.statistics(US1.plan(width))[key], strict=True):
                torch.testing.assert_close(own_value, value, rtol=1e-3, atol=1e-3)  # channels last sums otherwise


def test_by_default_the_range_and_the_configurations_widths(tmp_path: Path, file: Path) -> None:
    path = own(network_of(US1), tmp_path / "own.v2.pt")
    before = path.read_bytes()
    done("calibrate", file, "--ckpt", path)
    opened = open_checkpoint(tmp_path / "own_calibrated.pt")
    assert [plan.width for plan in opened.network.calibrated] == [0.125, 0.25, 0.1875]
    assert (opened.image_size, opened.mean, opened.std, opened.class_names) == (16, MEAN, STD, NAMES)
    assert path.read_bytes() == before


def test_plans_that_were_calibrated_before_stay(tmp_path: Path, file: Path) -> None:
    network = calibrated_network(US1, US1.plan(0.2))
    path = own(network, tmp_path / "own.pt")
    done("calibrate", file, "--ckpt", path, "--widths", "0.15", "--output", tmp_path / "more.pt")
    opened = open_checkpoint(tmp_path / "more.pt").network
    assert [plan.width for plan in opened.calibrated] == [0.125, 0.25, 0.2, 0.15]
    opened.calibrated.popitem()
    same_calibrated(network, opened)


def test_a_non_uniform_plan_is_calibrated_and_tested(tmp_path: Path, file: Path) -> None:
    plan = mixed(US1, "by_hand")
    (tmp_path / "plan.yml").write_text(yaml.safe_dump({"name": "by_hand", "channels": dict(plan.channels)}))
    path = own(network_of(US1), tmp_path / "own.pt")
    done("calibrate", file, "--ckpt", path, "--channels", tmp_path / "plan.yml")
    opened = open_checkpoint(tmp_path / "own_calibrated.pt").network
    assert [(p.name, p.width) for p in opened.calibrated] == [("by_hand", None)]
    assert (
        rows("test", file, "--ckpt", tmp_path / "own_calibrated.pt", "--channels", tmp_path / "plan.yml")[0]["width"] is None
    )


def test_a_non_uniform_plan_has_no_place_in_the_published_layout(tmp_path: Path, published: tuple[Path, Path]) -> None:
    (tmp_path / "plan.yml").write_text(yaml.safe_dump(dict(mixed(PLAIN).channels)))
    before = sorted(os.listdir(tmp_path))
    path, settings = published
    options = ("--channels", tmp_path / "plan.yml", "--layout", "published")
    refused(run("calibrate", settings, "--ckpt", path, *options), 2, "no width describes (plan)", "--layout own")
    assert sorted(os.listdir(tmp_path)) == before


def test_a_published_file_is_calibrated_in_its_own_layout(tmp_path: Path, published: tuple[Path, Path]) -> None:
    path, settings = published
    done("calibrate", settings, "--ckpt", path, "--widths", "0.25:0.5:0.05", "--layout", "published")
    content = raw(tmp_path / "theirs_calibrated.pt")
    assert list(content) == ["model", "input", "class_names"] and all(key.startswith("module.") for key in content["model"])
    opened = open_checkpoint(tmp_path / "theirs_calibrated.pt")
    assert opened.spec.switches == (0.25, 0.5, 0.4, 0.3, 0.35, 0.45)
    first = open_checkpoint(path).network
    weights = {k: v for k, v in first.state_dict().items() if ".bn." not in k}
    same_state(weights, {k: v for k, v in opened.network.state_dict().items() if ".bn." not in k})
    run_config = config(tmp_path / "run", width_range=[0.25, 0.5], stem_stride=2, image_size=32, test_widths=[])
    batches = RunImages(run_config, data_of(run_config), ALONE).calibrating()
    calibrate_on(first, [first.spec.plan(0.35)], batches, ALONE, channels_last=True)
    for key, pair in first.statistics(first.spec.plan(0.35)).items():
        other = opened.network.statistics(opened.spec.plan(0.35))[key]
        assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(pair, other, strict=True))


@pytest.mark.parametrize(("layout", "shared"), [("own", False), ("published", True)])
def test_the_shared_tail_is_calibrated_per_plan_in_our_layout_only(tmp_path: Path, layout: str, shared: bool) -> None:
    settings = {"network": "us_mobilenet_v2", "width_range": [0.25, 0.5], "stem_stride": 2, "image_size": 32, "classes": 7}
    file = config_file(tmp_path / "v2.yml", **settings, test_widths=[])
    path = own(network_of(US2), tmp_path / "v2.pt", size=32, names=())
    done("calibrate", file, "--ckpt", path, "--layout", layout)
    calibrated = open_checkpoint(tmp_path / "v2_calibrated.pt").network
    trained = network_of(US2).state_dict()["features.18.1.running_mean"]
    tails = [calibrated.statistics(plan)["features.18.1"][0] for plan in US2.plans]
    assert [torch.equal(tail, trained) for tail in tails] == [shared, shared]
    assert torch.equal(*tails) == shared


def test_switches_are_calibrated_all(tmp_path: Path) -> None:
    settings = {"network": "s_mobilenet_v2", "switches": [0.5, 0.25], "width_range": [], "test_widths": [], "classes": 5}
    file = config_file(tmp_path / "s.yml", **settings, stem_stride=2, image_size=32)
    path = own(network_of(S2), tmp_path / "s.pt", size=32, names=())
    done("calibrate", file, "--ckpt", path)
    assert [p.width for p in open_checkpoint(tmp_path / "s_calibrated.pt").network.calibrated] == [0.5, 0.25]


def test_what_cannot_be_calibrated_writes_nothing(tmp_path: Path, file: Path) -> None:
    path = own(network_of(US1), tmp_path / "own.pt")
    before = sorted(os.listdir(tmp_path))

    def says(*words: str, options: tuple[str, ...]) -> None:
        refused(run("calibrate", file, "--ckpt", path, *options), 2, *words)

    says("width 0.5", options=("--widths", "0.5"))
    says("calibration_batches is 0", options=("--set", "calibration_batches=0"))
    says("one value per channel", options=("--batch-size", "1"))
    says("stem stride of 1", options=("--set", "stem_stride=2", "--layout", "published", "--set", "image_size=32"))
    says("cannot be written", options=("--output", str(file / "inner.pt")))
    assert sorted(os.listdir(tmp_path)) == before
