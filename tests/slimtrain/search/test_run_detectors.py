"""A search of a detector: trained, searched, its plans trained and exported; from a checkpoint; killed and resumed."""

from __future__ import annotations

import csv
import dataclasses
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from slimtrain.base.errors import UserError
from slimtrain.base.packages import is_installed
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.config.config import Config
from slimtrain.config.reading import read_config
from slimtrain.costs.cost import CostCounter
from slimtrain.detection.fixed.shipped import dense_spec
from slimtrain.detection.training.inputs import data_of
from slimtrain.detection.training.run import detector_start
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.plan_file import read_plan_file
from slimtrain.search.detectors import DetectionEvaluator
from slimtrain.search.from_plans import plans_config
from slimtrain.search.greedy import CandidateScore
from slimtrain.search.request import SearchRequest
from slimtrain.search.run import search
from slimtrain.slimmable.graph_dense import stored_tensors
from tests.support.detector_runs import detector_config
from tests.support.run_helpers import tree
from tests.support.search_helpers import trace

pytestmark = pytest.mark.skipif(not is_installed("faster_coco_eval"), reason="pip install '.[detection]'")
SIZE = 64
TARGETS = ("1.9M", "0.9M")
NAMES = ("macs_1_9M", "macs_900K")
SEARCH: dict[str, Any] = {
    **{"search_targets": TARGETS, "search_widths": [0.5, 1.0], "search_groups": 2, "search_share": 1.0, "epochs": 1},
    **{"search_holdout": 4, "search_batch": 4, "search_error": "loss", "calibration_batches": 1, "detector": {"scenes": 12}},
}


def searching(folder: Path, **changes: Any) -> Config:
    own = {**SEARCH["detector"], **changes.pop("detector", {})}
    return detector_config(folder / "run", **{**SEARCH, **changes, "detector": own})


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search with all that comes after it. It is not changed."""
    folder = tmp_path_factory.mktemp("detectors")
    search(searching(folder, search_finish=True), output_dir=folder / "s")
    return folder / "s"


def plan_file(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((folder / "plans" / f"{name}.yml").read_text())
    return content


def test_a_universal_detector_is_trained_non_uniformly_on_what_is_not_held_out(searched: Path) -> None:
    supernet = open_checkpoint(searched / "supernet" / "us_faster_rcnn.pt")
    settings = supernet.settings
    assert (settings["nonuniform"], settings["holdout"], settings["distill"]) == (True, 4, False)
    assert supernet.spec.name == "us_faster_rcnn" and supernet.spec.range == (0.5, 1.0)
    assert "8 images to train, 4 to test" in (searched / "supernet" / "train.log").read_text()


def test_plans_cost_what_the_whole_detector_does(searched: Path) -> None:
    spec = open_checkpoint(searched / "supernet" / "us_faster_rcnn.pt").spec
    assert isinstance(spec, GraphSpec) and spec.detector is not None
    count = CostCounter(dense_spec(spec, spec.detector, SIZE), SIZE)
    for name, target in zip(NAMES, (1_900_000, 900_000), strict=True):
        content = plan_file(searched, name)
        assert content["macs"] == content["cost"] == count(ChannelPlan(name, content["channels"])).macs <= target
        assert content["network"] == "us_faster_rcnn" and "error_percent" not in content and content["loss"] > 0
        assert list(content["channels"]) == list(spec.groups.sizes)


def test_what_is_found_is_trained_beside_uniform_widths_exported_and_proven(searched: Path) -> None:
    trained = open_checkpoint(searched / "found" / "autoslim_faster_rcnn.pt")
    assert trained.spec.name == "autoslim_faster_rcnn"
    assert [dict(plan.channels) for plan in trained.spec.plans] == [
        plan_file(searched, name)["channels"] for name in reversed(NAMES)
    ]
    with (searched / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["plan"] for row in rows] == list(NAMES)
    assert {"ap", "ap50", "uniform_ap", "uniform_ap50"} < rows[0].keys() and rows[0]["images"] == "4"
    for row, name in zip(rows, NAMES, strict=True):
        assert int(row["macs"]) == plan_file(searched, name)["macs"]
        assert float(row["uniform_macs"]) == pytest.approx(float(row["macs"]), rel=0.15)
    manifest = yaml.safe_load((searched / "exports" / "manifest.json").read_text())
    assert [artifact["verification"]["status"] for artifact in manifest["artifacts"]] == ["passed"] * 2
    assert [artifact["macs"] for artifact in manifest["artifacts"]] == [
        plan_file(searched, n)["macs"] for n in reversed(NAMES)
    ]


def test_a_checkpoint_is_searched_and_the_next_command_told(
    searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By precision, and of a number of the images that are held out."""
    ckpt = searched / "supernet" / "us_faster_rcnn.pt"
    config = searching(tmp_path, search_error="ap50", search_images=3, search_targets=["1.6M"])
    (path,) = search(config, ckpt=ckpt, output_dir=tmp_path / "s")
    content = yaml.safe_load(path.read_text())
    assert 0 <= content["error_percent"] <= 100 and content["images"] == 3
    out = capsys.readouterr().out
    assert "searching on 3 of 4 images" in out and "held-out error" in out
    command = shlex.split(out.splitlines()[-1])
    assert command[3:] == ["train", str(tmp_path / "s" / "config.yml"), "--plans", str(tmp_path / "s" / "plans")]
    source = tmp_path / "other.yml"
    source.write_text((tmp_path / "s" / "config.yml").read_text().replace("neck: 8", "neck: 16"))
    request = SearchRequest(config, tmp_path / "s", str(ckpt), str(source))
    assert "--set detector.neck=8 " in request.next_command() and "detector=" not in request.next_command()


class Killed(BaseException):
    """As a kill is, nothing catches it."""


def test_killed_in_its_second_step_it_ends_with_the_same_plans(
    searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ckpt = searched / "supernet" / "us_faster_rcnn.pt"
    calls: list[int] = []
    real = DetectionEvaluator.__call__

    def dies(self: DetectionEvaluator, *given: Any) -> list[CandidateScore]:
        calls.append(1)
        if len(calls) == 3:  # the first is of the widest
            raise Killed
        return real(self, *given)

    config = searching(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(DetectionEvaluator, "__call__", dies)
        with pytest.raises(Killed):
            search(config, ckpt=ckpt, output_dir=tmp_path / "s")
    assert len(trace(tmp_path / "s")) == 1
    search(config, ckpt=ckpt, output_dir=tmp_path / "s", resume=True)
    assert trace(tmp_path / "s") == trace(searched)
    assert tree(tmp_path / "s" / "plans").keys() == tree(searched / "plans").keys()
    for name in NAMES:
        assert plan_file(tmp_path / "s", name) == plan_file(searched, name)
    with pytest.raises(UserError, match="belongs to another search: error was 'loss' and is 'ap'"):
        search(dataclasses.replace(config, search_error="ap"), ckpt=ckpt, output_dir=tmp_path / "s", resume=True)


def test_what_a_search_of_a_detector_cannot_be(searched: Path, tmp_path: Path) -> None:
    ckpt = searched / "supernet" / "us_faster_rcnn.pt"
    config = searching(tmp_path)
    for changes, message in (
        ({"search_holdout": 0}, "no training images are held out to search on"),
        ({"search_holdout": 12}, "holdout is 12, but there are 12 training images"),
        ({"search_targets": ["9M"]}, "target 9M MACs: above the network's own"),
        ({"search_targets": ["1K"]}, "below what slimming reaches"),
        ({"search_images": 5}, "search_images is 5, but only 4 are held out"),
    ):
        with pytest.raises(UserError, match=message):
            search(dataclasses.replace(config, **changes), output_dir=tmp_path / "s")
    other = searching(tmp_path, search_finish=True, detector={"neck": 16})
    with pytest.raises(UserError, match="of other channel groups than the one that what is found would be trained as"):
        search(other, ckpt=ckpt, output_dir=tmp_path / "s")
    trained = searched / "found" / "autoslim_faster_rcnn.pt"
    with pytest.raises(
        UserError, match=r"a search needs a universally slimmable network.*Train a us_faster_rcnn with nonuniform"
    ):
        search(config, ckpt=trained, output_dir=tmp_path / "s")
    assert not (tmp_path / "s").exists()
    with pytest.raises(UserError, match="search_error is ap50, which is a detector's, and us_mobilenet_v1 is a classifier"):
        read_config("digits", ["search_error=ap50"])
    with pytest.raises(UserError, match="norms: frozen: us_faster_rcnn has statistics for some of its widths only"):
        search(searching(tmp_path, detector={"norms": "frozen"}), output_dir=tmp_path / "s")


def test_where_the_backbone_alone_is_slimmed_pyramid_and_heads_stay_whole(tmp_path: Path) -> None:
    """As published; what is found costs what the target allows, and is trained as it was found."""
    target = 1_300_000
    config = searching(tmp_path, detector={"slim": "backbone"}, search_targets=["1.3M"])
    (path,) = search(config, output_dir=tmp_path / "s")
    network = open_checkpoint(tmp_path / "s" / "supernet" / "us_faster_rcnn.pt").network
    spec = network.spec
    assert isinstance(spec, GraphSpec) and spec.detector is not None
    content = yaml.safe_load(path.read_text())
    groups = content["channels"]
    assert list(groups) == list(spec.groups.sizes) and all(name.startswith("backbone.body.") for name in groups)
    assert any(groups[name] < size for name, size in spec.groups.sizes.items())
    plan = ChannelPlan("found", groups)
    count = CostCounter(dense_spec(spec, spec.detector, SIZE), SIZE)
    assert content["macs"] == count(plan).macs <= target < count(spec.widest).macs
    trained, _ = plans_config(config, tmp_path / "s" / "plans")
    begun = detector_start(trained, data_of(trained)).network
    assert begun.spec.name == "autoslim_faster_rcnn" and [dict(switch.channels) for switch in begun.spec.plans] == [groups]
    slim, whole = stored_tensors(begun, begun.spec.plans[0]), stored_tensors(network, spec.widest)
    smaller = {name for name, tensor in slim.items() if tensor.shape != whole[name].shape}
    laterals = {name for name in smaller if not name.startswith("backbone.body.")}
    assert laterals and all(name.startswith("backbone.fpn.inner_blocks.") for name in laterals)
    assert all(slim[name].shape[0] == whole[name].shape[0] for name in laterals), "they read less, and give as much"


def test_plan_files_of_a_detector_are_switches(searched: Path, tmp_path: Path) -> None:
    config, notes = plans_config(searching(tmp_path), searched / "plans")
    assert config.network == "autoslim_faster_rcnn" and len(config.channel_lists) == 2
    assert [note.partition(":")[0] for note in notes] == ["switch 1", "switch 2"]
    assert notes[0].startswith("switch 1: macs_900K")
    alone, _ = plans_config(searching(tmp_path), searched / "plans", NAMES[0])
    assert alone.channel_lists == config.channel_lists[1:]
    spec = open_checkpoint(searched / "found" / "autoslim_faster_rcnn.pt").spec
    assert read_plan_file(searched / "plans" / f"{NAMES[0]}.yml", spec) == spec.plan(2)
