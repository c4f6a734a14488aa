"""A dry run builds no network, takes no time, and says what an export then writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slimexport import CalibrationImages, Proof, Writing, export
from slimexport.job import file_bytes
from slimexport.target.manifest import FileEntry
from slimexport.target.precision import row_of
from slimtrain.base.errors import BudgetError, UserError
from slimtrain.checkpoints.untrained import untrained_network
from slimtrain.costs.cost import CostCounter
from slimtrain.models.published import PUBLISHED
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.export_helpers import small_spec, write_checkpoint
from tests.support.onnx_writing import plan_onnx

DRY = Writing(dry_run=True)


@pytest.fixture
def no_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*arguments: object, **options: object) -> None:
        raise AssertionError("a dry run builds no network")

    monkeypatch.setattr(SlimmableNetwork, "__init__", build)
    monkeypatch.setattr("slimexport.job.write_graph", build)


@pytest.mark.parametrize("name", PUBLISHED)
def test_untrained_networks_are_described_without_being_built(no_networks: None, name: str) -> None:
    manifest = export(f"random:{name}", widths="all", writing=DRY)
    assert manifest.source.untrained and manifest.source.network == name
    plans = {artifact.name: artifact.channels for artifact in manifest.artifacts}
    assert len(plans) == len(manifest.source.switches or ())
    assert all(artifact.macs > 0 and artifact.size_bytes > 4 * artifact.params for artifact in manifest.artifacts)


def test_a_file_is_read_but_none_of_its_plans_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_checkpoint(tmp_path / "us.pt", small_spec("us"))
    monkeypatch.setattr("slimexport.job.write_graph", lambda *arguments: pytest.fail("built"))
    finished: list[FileEntry] = []
    numbers: list[int] = []
    writing = Writing(dry_run=True, started=numbers.append, finished=finished.append)
    manifest = export(path, precisions=["fp32", "fp16"], image_size=64, writing=writing)
    assert [(a.width, a.precision) for a in manifest.artifacts] == [(w, p) for w in (0.25, 0.5) for p in ("fp32", "fp16")]
    assert numbers == [4] and finished == list(manifest.artifacts)
    assert manifest.source.sha256


@pytest.mark.parametrize("name", ["us_mobilenet_v2", "s_shufflenet"])
def test_sizes_are_right_to_one_per_cent(name: str) -> None:
    network = untrained_network(name, classes=10)
    plan = min(network.spec.plans, key=lambda plan: plan.width or 0)
    content = plan_onnx(network, plan, 64, name=f"{name}_{plan.name}").SerializeToString()
    assert file_bytes(row_of("fp32"), CostCounter(network.spec, 64)(plan)) == pytest.approx(len(content), rel=0.01)


def test_what_is_asked_for_is_checked_as_in_an_export(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="no width meets 1K MACs"):
        export("random:us_mobilenet_v1", macs=[1000], writing=DRY)
    with pytest.raises(UserError, match="no such folder"):
        export("random:us_mobilenet_v1", proof=Proof(images=tmp_path / "none"), writing=DRY)
    with pytest.raises(UserError, match="none"):
        export("random:us_mobilenet_v1", calibration=CalibrationImages(tmp_path / "none"), writing=DRY)
    np.save(tmp_path / "images.npy", np.zeros((3, 3, 64, 64), np.float32))
    calibration = CalibrationImages(tmp_path / "images.npy")
    manifest = export("random:us_mobilenet_v1", widths=[0.33], image_size=64, calibration=calibration, writing=DRY)
    assert manifest.artifacts[0].width == 0.33
