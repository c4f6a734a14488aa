"""A search of a user's module: trained, searched, its plans trained and exported; from a checkpoint without the module."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from slimtrain.base.errors import UserError, WidthError
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.config.reading import make_config, read_config
from slimtrain.costs.cost import CostCounter
from slimtrain.costs.latency_table import write_latency_table
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.channels import ChannelPlan
from slimtrain.search.from_plans import plans_config
from slimtrain.search.supernet import supernet_config
from slimtrain.tracing.starting import starting
from slimtrain.training.run import Run, train
from tests.support.latency_tables import table_of
from tests.support.run_helpers import done, refused, run, same_state, tree
from tests.support.search_helpers import refused_late, trace
from tests.support.traced_search import FULL, SIZE, build, narrow

MODEL = f"{build.__module__}:build"
KEYS: dict[str, Any] = {
    **{"model": MODEL, "data": "fake", "classes": 7, "image_size": SIZE, "batch_size": 8, "epochs": 2, "workers": 0},
    **{"augmentation": "none", "calibration_batches": 2, "warmup_epochs": 0, "search_holdout": 12, "search_batch": 6},
    **{"search_groups": 2, "device": "cpu"},
}
TARGETS = "900K,400K"
HALF = {"stem.0": 16, "block.0.0": 8, "fc1": 5, "a.0": 8, "b.0": 24}


def words(**changes: Any) -> list[str | Path]:
    keys = {key: value for key, value in {**KEYS, **changes}.items() if value is not None}
    return [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished search with everything after it. It is not changed."""
    folder = tmp_path_factory.mktemp("any") / "s"
    done("search", "us_any", *words(), "--targets", TARGETS, "--finish", "--output-dir", folder)
    return folder


def plan_files(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: yaml.safe_load(path.read_text()) for path in sorted((folder / "plans").iterdir())}


def test_a_module_is_trained_searched_and_what_is_found_is_trained_and_exported(searched: Path) -> None:
    supernet = open_checkpoint(searched / "supernet" / "us_build.pt")
    assert supernet.settings["nonuniform"] is True and supernet.spec.range == (0.25, 1.0)
    plans = plan_files(searched)
    assert list(plans) == ["macs_400K", "macs_900K"]
    count = CostCounter(supernet.spec, SIZE)
    for name, content in plans.items():
        assert list(content["channels"]) == list(FULL) and content["network"] == "us_build"
        assert content["macs"] == count(ChannelPlan(name, content["channels"])).macs <= content["target"]
    trained = open_checkpoint(searched / "found" / "autoslim_build.pt")
    assert isinstance(trained.spec, GraphSpec) and trained.spec.name == "autoslim_build"
    assert [dict(plan.channels) for plan in trained.spec.plans] == [
        plans["macs_400K"]["channels"],
        plans["macs_900K"]["channels"],
    ]
    assert sorted(path.name for path in (searched / "exports").glob("*.onnx")) == [
        "autoslim_build_s1.onnx",
        "autoslim_build_s2.onnx",
    ]
    assert len((searched / "comparison.csv").read_text().splitlines()) == 3


def test_a_finished_search_is_gone_on_with_and_nothing_is_done_again(searched: Path) -> None:
    before = tree(searched / "found"), trace(searched)
    done("search", "us_any", *words(), "--targets", TARGETS, "--no-finish", "--output-dir", searched, "--resume", "auto")
    assert (tree(searched / "found"), trace(searched)) == before


def test_a_checkpoint_is_searched_without_the_module(searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ckpt = searched / "supernet" / "us_build.pt"
    options: tuple[str | Path, ...] = (
        *words(model=None),
        "--ckpt",
        ckpt,
        "--targets",
        TARGETS,
        "--output-dir",
        tmp_path / "again",
    )
    with monkeypatch.context() as patch:
        patch.setattr("slimtrain.tracing.starting.build_module", lambda *args: pytest.fail("built the module"))
        refused(run("search", "us_any", *options, "--finish"), 2, f"Name it: --model {MODEL}", "--no-finish")
        outcome = done("search", "us_any", *options)
    assert trace(tmp_path / "again") == trace(searched)
    following = shlex.split(outcome.lines[-1])
    assert following[3:5] == ["train", "us_any"] and f"model={MODEL}" in following
    assert "autoslim_any" in done(*following[3:], "--set", "classes=7", "--dry-run").out
    other = f"{narrow.__module__}:Counted"
    refused_late(
        run("search", "us_any", *options[:-1], tmp_path / "b", "--set", f"model={other}", "--finish"),
        2,
        "is a us_build of other",
    )


def test_what_is_found_is_read_where_the_module_is_not(searched: Path, tmp_path: Path) -> None:
    checkpoint = searched / "found" / "autoslim_build.pt"
    for command, rest in (("test", ()), ("calibrate", ("--output", str(tmp_path / "c.pt")))):
        done(command, "us_any", *words(model=None), "--ckpt", checkpoint, *rest)
    assert {plan.name for plan in open_checkpoint(tmp_path / "c.pt").network.calibrated} == {"s1", "s2"}
    plan = searched / "plans" / "macs_400K.yml"  # of its universally slimmable sibling: the switch with these channels
    assert "    1  " in done("test", "us_any", *words(model=None), "--ckpt", checkpoint, "--channels", plan).out


def test_other_costs(searched: Path, tmp_path: Path) -> None:
    options: tuple[str | Path, ...] = (*words(model=None), "--ckpt", searched / "supernet" / "us_build.pt")
    done("search", "us_any", *options, "--targets", "12K", "--cost", "params", "--output-dir", tmp_path / "p")
    (content,) = plan_files(tmp_path / "p").values()
    assert content["unit"] == "parameters" and content["cost"] <= 12_000


def test_a_latency(searched: Path, tmp_path: Path) -> None:
    """From a table of the network's layers: of the checkpoint's, and before training of the module's."""
    spec = open_checkpoint(searched / "supernet" / "us_build.pt").spec
    table = table_of(spec, lambda layer, inp, out: 1e-3 * (inp if layer.single else 2 * inp + out), size=SIZE)
    write_latency_table(tmp_path / "t.json", table)
    low, high = table.cost_ms(spec.plan(0.25)), table.cost_ms(spec.widest)
    latency: list[str | Path] = ["--cost", "latency", "--latency-table", tmp_path / "t.json", "--latency-device", "a CPU"]
    target = f"{(low + high) / 2:.3f}"
    options = (*words(model=None), "--ckpt", searched / "supernet" / "us_build.pt", *latency, "--targets", target)
    assert "latencies are those of a CPU" in done("search", "us_any", *options, "--output-dir", tmp_path / "s").out
    (content,) = plan_files(tmp_path / "s").values()
    assert content["unit"] == "ms"
    assert content["cost"] == table.cost_ms(ChannelPlan("p", content["channels"])) <= float(target)
    other = (*words(conv_groups="inner", heads="inner", image_size=32), *latency, "--targets", target)
    message = "us_build at 16 px, 7 classes, this is us_build at 32 px"
    advice = (
        "channels MODEL --image-size 32 --classes 7 --heads inner --conv-groups inner --range 0.25:1 (MODEL: its checkpoint"
    )
    refused_late(run("search", "us_any", *other), 2, message, advice)
    content = json.loads((tmp_path / "t.json").read_text())
    (tmp_path / "t.json").write_text(json.dumps({**content, "layers": content["layers"][:-1]}))
    refused_late(run("search", "us_any", *options), 2, "latency table for us_build at 16 px, 7 classes: lacks the layer head")


# -------------------------------------------------------------------------------------------- plans of a module, trained


def planned(folder: Path, *plans: dict[str, int], **changes: Any) -> Any:
    (folder / "plans").mkdir(exist_ok=True)
    for number, channels in enumerate(plans):
        content = {"network": "us_build", "name": f"p{number}", "channels": channels}
        (folder / "plans" / f"{number}.yml").write_text(yaml.safe_dump(content))
    config = make_config({"network": "us_any", **KEYS, "output_dir": str(folder / "run"), **changes}, "test")
    return plans_config(config, folder / "plans")


def test_plan_files_become_switches_whatever_order_their_groups_have(tmp_path: Path) -> None:
    config, notes = planned(tmp_path, FULL, dict(reversed(HALF.items())), HALF)
    assert notes == ["p2 is the same network as p1: it is trained once", "switch 1: p1", "switch 2: p0"]
    start = starting(config, 7)
    assert start is not None
    assert [dict(plan.channels) for plan in start.network.spec.plans] == [HALF, FULL]
    again = read_config(str(written(tmp_path / "c.yml", config)))
    assert again == config


def written(path: Path, config: Any) -> Path:
    from slimtrain.config.config import dump_config

    path.write_text(dump_config(config))
    return path


def test_switches_begin_with_the_leading_weights_of_pretrained_ones(tmp_path: Path) -> None:
    """At its widest it is the module, and at a list the module written narrower; from a checkpoint of ours just the same."""
    torch.manual_seed(4)
    module = build(7).eval()
    torch.save(module.state_dict(), tmp_path / "w.pth")
    config, _ = planned(tmp_path, FULL, HALF, pretrained=str(tmp_path / "w.pth"), order="none")
    start = starting(config, 7)
    assert start is not None and start.loaded
    x = torch.randn(4, 3, SIZE, SIZE)
    with start.network.at(start.network.plan(2)), torch.no_grad():
        assert torch.allclose(start.network.eval()(x), module(x), atol=1e-5)
    for key, norm in start.network.norms.items():
        for number, channels in enumerate((HALF, FULL)):
            with start.network.at(start.network.plan(number + 1)):
                size = norm.dim.active(channels)
                assert torch.equal(norm.scale_and_shift()[0], module.get_submodule(key).weight[:size])  # type: ignore[index]
    universal = train(make_config({"network": "us_any", **KEYS, "output_dir": str(tmp_path / "us")}, "test"))
    config, _ = planned(tmp_path, FULL, HALF, pretrained=str(universal), lr=0.0)
    network, theirs = open_checkpoint(train(config)).network, open_checkpoint(universal).network
    same_state({"w": network.state_dict()["head.weight"]}, {"w": theirs.state_dict()["head.weight"]})
    norm = network.norms["stem.1"]
    with network.at(network.plan(1)):
        assert torch.equal(norm.scale_and_shift()[0], theirs.state_dict()["stem.1.weight"][:16])


def test_plans_of_other_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WidthError, match=r"1\.yml: has other channel groups than the plans beside it \(fc1\)"):
        planned(tmp_path, FULL, {key: value for key, value in FULL.items() if key != "fc1"})
    with pytest.raises(WidthError, match=r"1\.yml: group fc1 has 0 channels"):
        planned(tmp_path, FULL, {**FULL, "fc1": 0})
    config, _ = planned(tmp_path, FULL, {**FULL, "fc1": 64})
    with pytest.raises(WidthError, match="switch 2: group fc1 has 64 channels, expected a whole number from 1 to 8"):
        starting(config, 7)
    (tmp_path / "plans" / "1.yml").write_text(yaml.safe_dump({"network": "us_other", "name": "p", "channels": FULL}))
    with pytest.raises(WidthError, match="is a plan for us_other, the configuration trains autoslim_build"):
        planned(tmp_path, FULL)
    with pytest.raises(UserError, match="of which module"):
        planned(tmp_path, FULL, model="")


def test_a_frozen_teacher_is_refused_for_it_would_be_no_full_network(tmp_path: Path) -> None:
    config, _ = planned(tmp_path, HALF, teacher="frozen", pretrained="w.pth")
    with pytest.raises(UserError, match=r"teacher is frozen.*--teacher inplace"):
        starting(config, 7)


def test_a_killed_training_of_plans_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, _ = planned(tmp_path, FULL, HALF, ema=0.9, checkpoint_every=1)
    whole = open_checkpoint(train(config)).network

    class Killed(Exception):
        pass

    original = Run.train_step

    def step(run: Run, batch: Any) -> Any:
        if run.state.step == 5:
            raise Killed
        return original(run, batch)

    part = dataclasses.replace(config, output_dir=str(tmp_path / "part"))
    with monkeypatch.context() as patch:
        patch.setattr(Run, "train_step", step)
        with pytest.raises(Killed):
            train(part)
    monkeypatch.setattr("slimtrain.tracing.starting.build_module", lambda *args: pytest.fail("built the module again"))
    gone_on = open_checkpoint(train(dataclasses.replace(part, resume="auto"))).network
    assert gone_on.spec == whole.spec
    same_state(whole.state_dict(), gone_on.state_dict())


def test_the_network_to_slim_is_the_module_s_own_widest_and_keeps_its_start(tmp_path: Path) -> None:
    config = make_config({"network": "us_any", **KEYS, "search_widths": [0.2, 1.5], "pretrained": "w.pth"}, "test")
    supernet = supernet_config(config, tmp_path)
    assert (supernet.network, supernet.weights, supernet.pretrained) == ("us_any", "us_build.pt", "w.pth")
    assert supernet.width_range == (0.2, 1.0) and supernet.nonuniform
    digits = supernet_config(read_config("digits", [f"model={MODEL}"]), tmp_path)
    assert (digits.network, digits.weights, digits.width_range) == ("us_any", "us_build.pt", (0.15, 1.0))


def test_bad_requests(tmp_path: Path) -> None:
    refused(run("search", "us_any", *words(model=None), "--targets", "1M", "--output-dir", tmp_path), 2, "--ckpt PATH")
    options = ("--targets", "1M", "--output-dir", tmp_path)
    refused(run("search", "digits", "--pretrained", "w.pth", *options), 2, "--pretrained w.pth", "--model MODULE")
    refused(run("search", "us_any", *words(), "--targets", "1K", "--output-dir", tmp_path), 2, "below what slimming reaches")
