"""`--accuracy-data`: the accuracy of a bundle's files, measured where the manifest does not know it. Needs torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from benchmarks.cells.cell import Cell
from benchmarks.cells.plan_cells import Bundle
from slimexport.target.backends import ONNX
from slimexport.target.errors import MissingBackend
from slimexport.target.manifest import artifact_path
from slimexport.target.records import to_json
from slimtrain.base.errors import UserError


def with_accuracies(cells: Sequence[Cell], bundle: Bundle, source: str, workers: int | None = None) -> list[Cell]:
    """The cells, each with the accuracy of its ONNX file on `source`: a folder of class folders, or `digits`; `workers`
    processes load it.

    An engine has that of the ONNX file of its name and precision. Raises UserError where the images are not of the
    network's classes, MissingBackend without torch and torchvision, which read them.
    """
    measured = _measure(bundle, source, workers, {(cell.name, cell.precision) for cell in cells})
    return [replace(cell, accuracy=measured.get((cell.name, cell.precision), cell.accuracy)) for cell in cells]


def _measure(
    bundle: Bundle, source: str, workers: int | None, wanted: set[tuple[str, str]]
) -> dict[tuple[str, str], Mapping[str, Any]]:
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("torchvision") is None:
        raise MissingBackend(
            "--accuracy-data reads images with torch and torchvision, which are not installed here. Measure accuracy where "
            "you export (slimexport --accuracy-data), it travels in the manifest."
        )
    from slimexport.accuracy import images_for, measure
    from slimexport.onnx_files.runner import onnx_runner
    from slimtrain.data.images import Preprocessing

    image = bundle.manifest.input
    if bundle.manifest.detector is not None:
        raise UserError(
            f"{bundle.folder}: --accuracy-data is for classifiers. A detector's average precision is measured where it is "
            "exported (slimexport --accuracy-data), it travels in the manifest."
        )
    if not bundle.manifest.classifies or image.shape is not None:
        raise UserError(f"{bundle.folder}: --accuracy-data is for classifiers of images, this network is none. Leave it out.")
    preprocessing = Preprocessing(image.image_size, image.mean, image.std, image.whole, image.exif_orientation)
    images = images_for(source, bundle.manifest.output.classes, preprocessing, bundle.name, workers=workers)
    files = {
        (artifact.name, artifact.precision): artifact_path(bundle.folder, artifact).name
        for artifact in bundle.manifest.of_format(ONNX)
        if (artifact.name, artifact.precision) in wanted
    }
    runners = [onnx_runner(bundle.folder / file, key[1]) for key, file in files.items()]
    accuracies = measure(runners, images)
    pairs = zip(files.items(), accuracies, strict=True)
    return {key: {**to_json(accuracy), "measured_on": file} for (key, file), accuracy in pairs}
