"""Found plans are trained as one AutoSlim network or alone, go on when killed, and are exported as any other network."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner

from slimexport.cli import main as slimexport
from slimexport.dense import materialize
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.plan_file import read_plan_file
from slimtrain.models.spec import NetworkSpec
from slimtrain.training.run import Run
from tests.support.plan_files import write_plan
from tests.support.run_helpers import config_file, differences, done, export_words, noise, raw, refused, run
from tests.support.search_helpers import searched
from tests.support.specs import spec_of

V1 = NetworkSpec("mobilenet_v1", "us", (0.125, 0.25), 10, width_range=(0.125, 0.25), stem_stride=1)
V2 = NetworkSpec("mobilenet_v2", "us", (0.25, 1.0), 10, width_range=(0.25, 1.0))
WIDTHS = {"macs_400K": 0.15, "macs_600K": 0.2, "macs_800K": 0.25}


@pytest.fixture
def plans(tmp_path: Path) -> Path:
    """Three plans of MobileNet v1, whose names do not sort as their costs do."""
    for i, (name, width) in enumerate(WIDTHS.items()):
        channels = {**V1.plan(width).channels, "features.0": 8 * (i + 1)}
        write_plan(tmp_path / "plans" / f"{9 - i}.yml", V1, ChannelPlan(name, channels), 16)
    return tmp_path / "plans"


def lists(folder: Path) -> tuple[tuple[int, ...], ...]:
    """Channel lists straight from the files, by ascending MACs as they say."""
    contents = sorted((yaml.safe_load(path.read_text()) for path in folder.iterdir()), key=lambda content: content["macs"])
    return tuple(tuple(content["channels"][f"features.{i}"] for i in range(14)) for content in contents)


def same_dense(path: Path, *plans: ChannelPlan) -> None:
    """Every switch, or `plan`, materialized, computes what the slimmable network does. In float64: after a few steps
    activations are large, and rounding is amplified."""
    checkpoint = open_checkpoint(path)
    network = checkpoint.network.double()
    images = noise(3, 32, 9).double()
    for plan in plans or checkpoint.spec.plans:
        dense = materialize(path, plan=plan, dtype=torch.float64)
        with torch.inference_mode(), network.at(plan):
            expected = network(images)
            assert expected.std() > 1e-3
            torch.testing.assert_close(dense(images), expected, rtol=1e-9, atol=1e-9)


# ----------------------------------------------------------------------------------------------------------- training


def test_plans_are_trained_jointly_with_norms_of_their_own(plans: Path, tmp_path: Path) -> None:
    file = config_file(tmp_path / "tiny.yml", output_dir=str(tmp_path / "run"), weights="us.pt", layout="own")
    outcome = done("train", file, "--plans", plans)
    folder = tmp_path / "run_found"
    path = folder / "autoslim_mobilenet_v1.pt"
    spec = spec_of(open_checkpoint(path))
    assert (spec.name, spec.channel_lists, spec.switches) == ("autoslim_mobilenet_v1", lists(plans), (1, 2, 3))
    state = raw(path)["model"]
    sizes = [state[f"features.0.1.bn.{i}.running_mean"].numel() for i in range(3)]
    assert sizes == [8, 16, 24]
    assert not any(torch.equal(state[f"features.0.1.bn.{i}.weight"][:8], torch.ones(8)) for i in range(3))  # all have learned
    said = [line for line in outcome.lines if line.startswith("switch")]
    assert [line.split(",")[0] for line in said] == [f"switch {i}: {name}" for i, name in enumerate(WIDTHS, 1)]
    assert "\n".join(said) in (folder / "train.log").read_text()
    assert export_words(outcome) == ["--ckpt", str(path), "--widths", "1,2,3"]
    same_dense(path)


def test_a_plan_is_trained_alone(plans: Path, tmp_path: Path) -> None:
    file = config_file(tmp_path / "tiny.yml", output_dir=str(tmp_path / "run"))
    done("train", file, "--plans", plans, "--plan", "macs_600K")
    path = tmp_path / "run_macs_600K" / "autoslim_mobilenet_v1.pt"
    assert spec_of(open_checkpoint(path)).channel_lists == lists(plans)[1:2]
    assert not (tmp_path / "run").exists() and not (tmp_path / "run_found").exists()
    same_dense(path)


def test_an_output_dir_that_is_named_is_taken(plans: Path, tmp_path: Path) -> None:
    done("train", config_file(tmp_path / "tiny.yml"), "--plans", plans, "--output-dir", tmp_path / "mine")
    assert (tmp_path / "mine" / "autoslim_mobilenet_v1.pt").exists()


@pytest.mark.parametrize("named", [True, False], ids=["plans named again", "from its own config.yml"])
def test_the_run_goes_on_with_or_without_its_plans(named: bool, plans: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """The resolved configuration holds the channel lists."""
    file = config_file(tmp_path / "tiny.yml", output_dir=str(tmp_path / "run"))
    done("train", file, "--plans", plans, "--output-dir", tmp_path / "whole")
    original = Run.train_step

    def step(self: Run, batch: Any) -> Any:
        if self.state.step == 5:
            raise KeyboardInterrupt
        return original(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "train_step", step)
        assert run("train", file, "--plans", plans).code == 130
    folder = tmp_path / "run_found"
    if named:
        done("train", file, "--plans", plans, "--resume", "auto")
    else:
        done("train", folder / "config.yml", "--resume", "auto")
    one, other = (raw(path / "autoslim_mobilenet_v1.pt") for path in (folder, tmp_path / "whole"))
    assert differences(one, other) == []


def test_other_plans_are_another_run(plans: Path, tmp_path: Path) -> None:
    file = config_file(tmp_path / "tiny.yml", output_dir=str(tmp_path / "run"), epochs=1)
    done("train", file, "--plans", plans)
    content = yaml.safe_load((plans / "9.yml").read_text())
    content["channels"]["features.13"] -= 8
    (plans / "9.yml").write_text(yaml.safe_dump(content))
    refused(
        run("train", file, "--plans", plans, "--resume", "auto"),
        2,
        "last.pt: is a autoslim_mobilenet_v1 of other channel lists",
    )


def test_a_dry_run_shows_the_switches(plans: Path, tmp_path: Path) -> None:
    outcome = done("train", config_file(tmp_path / "tiny.yml"), "--plans", plans, "--dry-run")
    shown = yaml.safe_load(outcome.out)
    assert tuple(map(tuple, shown["channel_lists"])) == lists(plans)
    assert [line for line in outcome.lines if line.startswith("# switch 3: macs_800K, ")]
    assert outcome.lines[-1].startswith("# dry run: ")


# ------------------------------------------------------------------------------------------------------------- wiring


def chance(tmp_path: Path) -> Path:
    """Two plans of MobileNet v2 in which, unlike in the network they are of, the first block's ends agree, and in which one
    block's expansion is none: features.3 reads the 8 channels of features.2."""
    for name, width in (("small", 0.25), ("large", 0.35)):
        channels = {**V2.plan(width).channels, "features.0": 8, "features.1": 8, "features.2": 8, "features.3.expand": 8}
        write_plan(tmp_path / "chance" / f"{name}.yml", V2, ChannelPlan(name, channels), 32)
    return tmp_path / "chance"


TINY_V2 = {
    **{"network": "us_mobilenet_v2", "width_range": None, "test_widths": None, "stem_stride": 2, "image_size": 32},
    **{"epochs": 1, "batch_size": 4},
}


@pytest.mark.parametrize("layout", ["own", "published"])
def test_counts_that_agree_by_chance_train_and_load_alike(layout: str, tmp_path: Path) -> None:
    """The file of either layout is read as the network that was trained: what it said while testing, the dense network
    computes."""
    file = config_file(tmp_path / "v2.yml", **TINY_V2, layout=layout, calibration_batches=0, output_dir=str(tmp_path / "run"))
    outcome = done("train", file, "--plans", chance(tmp_path))
    warnings = [line for line in outcome.lines if line.startswith("warning: ")]
    assert [line.split()[1] for line in warnings] == ["features.1", "features.3.expand"]
    path = tmp_path / "run_found" / "autoslim_mobilenet_v2.pt"
    spec = spec_of(open_checkpoint(path))
    first, third = spec.wiring.blocks[0], spec.wiring.blocks[2]
    assert first.residual and third.hidden == third.inp == "features.2"  # type: ignore[attr-defined]
    assert not V2.wiring.blocks[0].residual  # type: ignore[attr-defined]
    same_dense(path)
    shown = done("test", file, "--set", "network=autoslim_mobilenet_v2", "--ckpt", path)
    tested = [line.split()[1:] for line in outcome.lines if line.split()[:1] in (["1"], ["2"])][-2:]
    assert [line.split()[1:] for line in shown.lines[-2:]] == tested


# ------------------------------------------------------------------------------------------------------------- export


def test_found_networks_are_exported_and_verified(plans: Path, tmp_path: Path) -> None:
    file = config_file(tmp_path / "tiny.yml", output_dir=str(tmp_path / "run"), epochs=1)
    outcome = done("train", file, "--plans", plans)
    words = export_words(outcome)
    exported = CliRunner().invoke(slimexport, [*words, "--output-dir", str(tmp_path / "bundle"), "--json"])
    assert exported.exit_code == 0, exported.output
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    macs = sorted(yaml.safe_load(path.read_text())["macs"] for path in plans.iterdir())
    assert [artifact["macs"] for artifact in manifest["artifacts"]] == macs
    assert all(artifact["verification"]["status"] == "passed" for artifact in manifest["artifacts"])
    assert all(math.isfinite(artifact["verification"]["max_rel_error"]) for artifact in manifest["artifacts"])


def test_a_plan_of_the_search_is_exported_from_the_network_that_was_searched(tmp_path: Path) -> None:
    """Without any training: its statistics are calibrated, and the plan file names it."""
    _, folder = searched(tmp_path)
    plan_path = folder / "plans" / "macs_450K.yml"
    file = folder / "supernet" / "config.yml"
    done(
        "calibrate",
        file,
        "--ckpt",
        folder / "supernet" / "us_mobilenet_v1.pt",
        "--channels",
        plan_path,
        "--output",
        tmp_path / "c.pt",
    )
    options = ["--ckpt", str(tmp_path / "c.pt"), "--channels", str(plan_path), "--output-dir", str(tmp_path / "bundle")]
    exported = CliRunner().invoke(slimexport, options)
    assert exported.exit_code == 0, exported.output
    assert (tmp_path / "bundle" / "us_mobilenet_v1_macs_450K.onnx").exists()
    same_dense(tmp_path / "c.pt", read_plan_file(plan_path, open_checkpoint(tmp_path / "c.pt").spec))
