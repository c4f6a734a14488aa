"""What a bundle's networks say of photographs, and how long they take. No torch: numpy, Pillow and what runs the files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from slimexport.bundle import open_network
from slimexport.detectors.form import NONE, TRT
from slimexport.detectors.predicting import FoundObject, as_line, objects_of, plain
from slimexport.report import width_text
from slimexport.target.arrays import Array
from slimexport.target.backends import BACKENDS, DEFAULT
from slimexport.target.errors import BundleError
from slimexport.target.manifest import Artifact, Manifest, read_manifest
from slimexport.target.precision import files_of
from slimexport.target.tensors import Input
from slimtrain.base.errors import UserError
from slimtrain.base.image_size import sides
from slimtrain.base.text import some
from slimtrain.base.untrusted.quoting import quoted
from slimtrain.data.images import Images, Preprocessing, fitting
from slimtrain.data.opening import OWN_ARRAYS, check_channels, open_image

MOST_CLASSES = 5
RUNS = 5  # of which the median time is told, after one that is not counted


@dataclass(frozen=True)
class ClassShare:
    """A class that a network gives a share of its softmax; `name` is None where the bundle names no classes."""

    number: int
    name: str | None
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What one file says of one image: the likeliest classes first, or of a detector the surest `objects`, and the
    milliseconds that a run of this image took."""

    image: str
    artifact: Artifact
    latency_ms: float
    top: tuple[ClassShare, ...]
    objects: tuple[FoundObject, ...] | None = None


@dataclass(frozen=True)
class Prepared:
    """A photograph as networks take it: `pixels` [1, channels, H, W], and how large it is therein: width and height over its
    own, where it is not cropped."""

    pixels: Images
    scale: tuple[float, float]
    size: tuple[int, int]


def predict(
    bundle: str | Path,
    images: Sequence[str | Path],
    widths: Sequence[float] | None = None,
    precisions: Sequence[str] = ("fp32",),
    backend: str = DEFAULT,
) -> list[Prediction]:
    """Run every image, prepared as in calibration and tests (for a detector in its proportions, with zeros to the right and
    below), through a bundle's files of `widths` (None: all) and `precisions` on `backend`; image by image, in order of MACs.

    Raises BundleError where the bundle holds no such file, UserError for what is no image, MissingBackend where the backend
    cannot run here.
    """
    folder = Path(bundle)
    manifest = read_manifest(folder)
    check_predictable(folder, manifest)
    chosen = choose_files(folder, manifest, widths, precisions, backend)
    prepared = [prepare(Path(image), manifest.input) for image in images]
    by_image: list[list[Prediction]] = [[] for _ in images]
    for artifact in chosen:
        with open_network(folder, artifact.file, backend=backend) as network:
            for image, photograph, predictions in zip(images, prepared, by_image, strict=True):
                given = network(photograph.pixels)
                times = []
                for _ in range(RUNS):
                    began = time.perf_counter()
                    given = network(photograph.pixels)
                    times.append(1e3 * (time.perf_counter() - began))
                took = median(times)
                predictions.append(_prediction(str(image), artifact, took, given, manifest, photograph))
    return [prediction for predictions in by_image for prediction in predictions]


def _prediction(
    image: str, artifact: Artifact, latency_ms: float, given: Any, manifest: Manifest, photograph: Prepared
) -> Prediction:
    """What a file `given` of an image says. BundleError where that is not what the manifest says of it."""
    names = manifest.output.class_names
    if manifest.detector is not None:
        objects = objects_of(given, artifact.file, manifest.detector, photograph.scale, photograph.size, names)
        return Prediction(image, artifact, latency_ms, (), objects)
    if np.shape(given) != (1, manifest.output.classes):
        shape = quoted(list(np.shape(given)))
        raise BundleError(
            f"{artifact.file}: gives {shape} for an image, expected [1, {manifest.output.classes}]. Export again."
        )
    return Prediction(image, artifact, latency_ms, likeliest(np.asarray(given)[0], names))


def check_predictable(folder: Path, manifest: Manifest) -> None:
    """BundleError where networks take no images, or do not give classes of them."""
    own = "run it on arrays of your own with slimexport.open_network."
    if manifest.detector is not None and manifest.detector.nms not in (NONE, TRT):
        return
    if not manifest.classifies:
        given = ", ".join(f"{result.name} {list(result.shape)}" for result in manifest.results)
        raise BundleError(
            f"{folder}: its networks give {given}, --predict tells the classes that a classifier gives, and what a detector "
            f"finds: {own}"
        )
    if manifest.input.shape is not None:
        raise BundleError(f"{folder}: its networks take {list(manifest.input.shape)}, --predict reads photographs: {own}")


def choose_files(
    folder: Path, manifest: Manifest, widths: Sequence[float] | None, precisions: Sequence[str], backend: str
) -> list[Artifact]:
    """The files to run, in order of MACs. BundleError where there is none."""
    row = BACKENDS[backend]
    names = {name for option in precisions for name in (option, *(file.name for file in files_of(option)))}
    here = [artifact for artifact in manifest.of_format(row.format) if not row.cannot_run(artifact.precision)]
    of_widths = [artifact for artifact in here if widths is None or artifact.width in widths]
    chosen = sorted((a for a in of_widths if a.precision in names), key=lambda artifact: artifact.macs)
    if chosen:
        return chosen
    known = dict.fromkeys(f"{width_text(artifact)} in {artifact.precision}" for artifact in here)
    raise BundleError(
        f"{folder}: holds nothing of these widths in {', '.join(precisions)} that {backend} runs. It has {some(list(known))}: "
        "choose with --widths and --precision, or export what is missing."
    )


def prepare(path: Path, entry: Input) -> Prepared:
    """An image file as the manifest's `input` says. UserError where it cannot be read."""
    # what preprocessing asks for is what the manifest tells, under the same names
    preprocessing = Preprocessing(**{part.name: getattr(entry, part.name) for part in fields(Preprocessing)})
    check_channels(preprocessing.channels, OWN_ARRAYS)
    if not path.is_file():
        raise UserError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}. --predict takes image files.")
    try:
        image = open_image(path, preprocessing.exif_orientation, preprocessing.channels)
        height, width = sides(preprocessing.image_size)
        across, down = fitting(image.size, (width, height))
        return Prepared(preprocessing.prepare(image)[None], (across / image.width, down / image.height), image.size)
    except (UserError, ModuleNotFoundError):
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on a damaged file
        raise UserError(f"{path}: is no image that can be read here ({error}). --predict takes photographs.") from error


def likeliest(logits: Array, class_names: Sequence[str] | None) -> tuple[ClassShare, ...]:
    """The classes of the largest of `logits` [classes], at most five, with their softmax. BundleError where they are not
    finite."""
    if not np.isfinite(logits).all():
        raise BundleError("the network's outputs are not finite for this image. Verify the bundle: --verify-only.")
    exact = np.exp(logits.astype(np.float64) - float(logits.max()))
    shares = exact / exact.sum()
    order = np.argsort(-shares, kind="stable")[:MOST_CLASSES]
    return tuple(
        ClassShare(int(number), class_names[number] if class_names else None, float(shares[number])) for number in order
    )


def as_text(predictions: Sequence[Prediction]) -> str:
    """A block for each image: its name, then a line per width with milliseconds and the likeliest classes."""
    blocks = []
    several = len({prediction.artifact.precision for prediction in predictions}) > 1
    for image in dict.fromkeys(prediction.image for prediction in predictions):
        detects = any(prediction.objects is not None for prediction in predictions)
        lines = [["width", *(["precision"] if several else []), "ms", "objects" if detects else "classes"]]
        for prediction in (prediction for prediction in predictions if prediction.image == image):
            says = _classes(prediction.top) if prediction.objects is None else as_line(prediction.objects)
            precision = [prediction.artifact.precision] if several else []
            lines.append([width_text(prediction.artifact), *precision, f"{prediction.latency_ms:.2f}", says])
        sizes = [max(map(len, column)) for column in zip(*lines, strict=True)]
        rows = [
            "  ".join([*(cell.rjust(size) for cell, size in zip(line[:-1], sizes, strict=False)), line[-1]]) for line in lines
        ]
        blocks.append("\n".join([image, *rows]))
    return "\n\n".join(
        [*blocks, f"ms: the median of {RUNS} runs of this one image here; `slimbench BUNDLE` measures properly"]
    )


def _classes(top: Sequence[ClassShare]) -> str:
    return ", ".join(f"{share.name or f'class {share.number}'} {share.probability:.1%}" for share in top)


def as_json(predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    """The same as plain values: an object for each image and file."""
    return [
        {
            "image": prediction.image,
            "name": prediction.artifact.name,
            "width": prediction.artifact.width,
            "precision": prediction.artifact.precision,
            "file": prediction.artifact.file,
            "latency_ms": prediction.latency_ms,
            **_plain(prediction),
        }
        for prediction in predictions
    ]


def _plain(prediction: Prediction) -> dict[str, Any]:
    """What it says."""
    if prediction.objects is not None:
        return {"objects": plain(prediction.objects)}
    return {"top": [{"class": share.number, "name": share.name, "probability": share.probability} for share in prediction.top]}
