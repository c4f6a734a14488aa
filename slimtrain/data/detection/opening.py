"""From a detection set's name to images with objects, what to train on and what to test on."""

from __future__ import annotations

import pkgutil

from slimtrain.base.errors import UserError
from slimtrain.data.catalog import DETECTION_SETS, DetectionRequest
from slimtrain.data.detection.coco import DetectionData, open_coco
from slimtrain.data.detection.scenes import CLASSES, SceneSamples, SceneSettings


def open_detection_data(kind: str, request: DetectionRequest, classes: int = 0) -> DetectionData:
    """The images of `kind`, a row of the catalog's detection sets. `classes` is the number that is expected, 0 for any.

    UserError where files are missing, laid out in another way, or of another number of classes; ResourceError where a package
    is missing.
    """
    row = DETECTION_SETS[kind]
    if row.source == "data_dir" and not request.folder:
        raise UserError(f"data_dir is not set, expected the folder that holds {row.title}. Set it: --data-dir FOLDER.")
    data: DetectionData = pkgutil.resolve_name(row.reader)(request)
    if classes and classes != len(data.classes):
        raise UserError(
            f"classes is {classes}, but the data has {len(data.classes)}. Leave classes out: the detector gets as many as the "
            "data has."
        )
    return data


def open_coco_folder(request: DetectionRequest) -> DetectionData:
    """COCO's annotations and images in a folder. Errors as of `open_coco`."""
    return open_coco(request.folder, request.masks, request.keypoints)


def open_scenes(request: DetectionRequest) -> DetectionData:
    """Scenes of scikit-learn's digits, drawn by the seed."""
    settings = SceneSettings(request.image_size)
    train = SceneSamples("train", request.train, request.seed, settings)
    return DetectionData(train, SceneSamples("test", request.test, request.seed, settings), CLASSES)
