"""`--accuracy-data`: accuracies that a bundle does not know are measured on its files, as the export would have done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.cells.accuracy import with_accuracies
from benchmarks.cells.plan_cells import Wanted, open_bundle, plan_cells
from slimexport import export
from slimexport.request import CalibrationImages, Proof
from slimexport.target.errors import MissingBackend
from slimexport.target.records import to_json
from slimtrain.base.errors import UserError
from slimtrain.checkpoints.own_layout import own_content
from slimtrain.checkpoints.writing import save
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.network import SlimmableNetwork

SIZE, CLASSES = 32, ("ant", "bee", "cat")
UNVERIFIED = Proof(verify=False)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(0)
    for name in CLASSES:
        (folder / name).mkdir()
        for number in range(4):
            coarse = Image.fromarray(draw.integers(0, 256, (4, 4, 3), np.uint8))
            coarse.resize((60, 50), Image.Resampling.BICUBIC).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    network = SlimmableNetwork(NetworkSpec("mobilenet_v1", "us", (0.25, 0.4), len(CLASSES), width_range=(0.25, 0.4))).eval()
    torch.nn.init.normal_(network.get_parameter("classifier.0.weight"), 0, 0.3)
    images = torch.randn(4, 3, SIZE, SIZE)
    for plan in network.spec.plans:
        with torch.no_grad(), network.at(plan), network.averaging(1.0):
            network(images)
    path = tmp_path_factory.mktemp("checkpoint") / "own.pt"
    save(own_content(network, SIZE, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), CLASSES), path)
    return path


def test_the_figures_are_those_of_an_export_with_accuracy(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"widths": [0.25, 0.4], "image_size": SIZE, "calibration": CalibrationImages(photos)}
    known = export(checkpoint, output_dir=tmp_path / "known", proof=Proof(verify=False, accuracy_data=photos), **options)
    export(checkpoint, output_dir=tmp_path / "unknown", proof=UNVERIFIED, **options)
    bundle = open_bundle(tmp_path / "unknown")
    cells, _ = plan_cells(bundle, Wanted(("onnxruntime-cpu", "torch-eager"), (1, 8)))
    assert all(cell.accuracy is None for cell in cells)
    measured = with_accuracies(cells, bundle, str(photos))
    expected = {artifact.name: to_json(artifact.accuracy) for artifact in known.artifacts if artifact.accuracy}
    assert all(accuracy.pop("sha256") for accuracy in expected.values())  # a cell says the file
    assert len(measured) == 8
    for before, after in zip(cells, measured, strict=True):
        assert after.accuracy == {**expected[after.name], "measured_on": after.file}
        assert replace(after, accuracy=None) == before


def exported(checkpoint: Path, photos: Path, folder: Path) -> None:
    calibration = CalibrationImages(photos)
    export(checkpoint, widths=[0.25], image_size=SIZE, output_dir=folder, calibration=calibration, proof=UNVERIFIED)


def test_images_of_other_classes(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    exported(checkpoint, photos, tmp_path / "bundle")
    bundle = open_bundle(tmp_path / "bundle")
    cells, _ = plan_cells(bundle, Wanted(("onnxruntime-cpu",), (1,)))
    with pytest.raises(UserError, match="bundle has 3"):
        with_accuracies(cells, bundle, "digits")


def test_without_torch(checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported(checkpoint, photos, tmp_path / "bundle")
    bundle = open_bundle(tmp_path / "bundle")
    monkeypatch.setattr("benchmarks.cells.accuracy.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingBackend, match="slimexport --accuracy-data"):
        with_accuracies([], bundle, str(photos))
