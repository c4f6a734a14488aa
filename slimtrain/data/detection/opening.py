"""From a detection set's name to images with objects, what to train on and what to test on."""

from __future__ import annotations

import dataclasses
import pkgutil

import numpy as np

from slimtrain.base.errors import UserError
from slimtrain.data.catalog import DETECTION_SETS, DetectionRequest
from slimtrain.data.detection.coco import DetectionData, open_coco
from slimtrain.data.detection.held_out import DetectionPart, count_held_out, hold_out_objects
from slimtrain.data.detection.scenes import CLASSES, SceneSamples, SceneSettings
from slimtrain.data.digits import digits_split
from slimtrain.data.sampling import share_by_class


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
    data = open_coco(request.folder, request.masks, request.keypoints)
    if not request.holdout:
        return data
    train, test = hold_out_objects(data.train, request.holdout, request.seed)
    return dataclasses.replace(data, train=train, test=test)


def open_scenes(request: DetectionRequest) -> DetectionData:
    """Scenes of scikit-learn's digits, drawn by the seed. Scenes that are held out show digits that those to train on do not:
    as large a share of them."""
    settings = SceneSettings(request.image_size)
    if not request.holdout:
        train = SceneSamples("train", request.train, request.seed, settings)
        return DetectionData(train, SceneSamples("test", request.test, request.seed, settings), CLASSES)
    number = count_held_out(request.train, request.holdout)
    rest, kept = share_by_class(digits_split().train_labels, number / request.train, request.seed)
    shown = SceneSamples("train", request.train - number, request.seed, settings, rest)
    hidden = SceneSamples("train", request.train, request.seed, settings, kept)
    return DetectionData(shown, DetectionPart(hidden, np.arange(request.train - number, request.train)), CLASSES)
