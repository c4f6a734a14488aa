"""The data sets that `data:` names and the augmentations that `augmentation:` names, a row each. No torch.

A new data set takes a row here and the function that its `reader` names: from a `DataRequest` to training images, test images
and the classes' names. All else is in the row. Images with objects, for detectors, are a table of their own.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from slimtrain.base.image_size import ImageSize

FOLDER, DIGITS, FAKE = "folder", "digits", "fake"
SCENES, COCO = "scenes", "coco"
PICTURES = {1: "gray", 3: "red, green and blue", 4: "these and opacity"}  # channels that a picture can be opened with


@dataclass(frozen=True)
class DataSet:
    """`reader` is `MODULE:FUNCTION`, imported when images are opened: readers need torch.

    `source`: where the images come from. A `package` is installed with its images, so that their name takes the place of a
    folder, in `slimexport` too.
    """

    name: str
    reader: str
    title: str  # as messages call it
    source: Literal["data_dir", "package", "generator"]
    classes: int = 0  # 0: as many as the images have
    whole: bool = False  # small images: resized whole to be tested. Of photographs the center is cropped
    channels: int = 3  # of `PICTURES`, that its images are opened with unless a configuration says otherwise


@dataclass(frozen=True)
class DetectionSet:
    """Images with objects in them: what detectors are trained on. `reader` is `MODULE:FUNCTION`, from a `DetectionRequest` to
    a `DetectionData`. `source`, `classes`: as a `DataSet`'s."""

    name: str
    reader: str
    title: str
    source: Literal["data_dir", "package"]
    classes: int = 0
    keypoints: bool = True  # whether its objects may have them


@dataclass(frozen=True)
class DetectionRequest:
    """What a detection set's reader is asked for. Each takes of it what concerns it."""

    folder: str  # data_dir
    masks: bool
    keypoints: bool
    seed: int  # of what is drawn
    image_size: ImageSize  # of drawn images
    train: int  # drawn images to train on
    test: int
    holdout: float = 0  # training images kept aside to test on, in place of the test images; below 1: share


@dataclass(frozen=True)
class Augmentation:
    """How training images are changed at random, see transforms.py."""

    name: str
    smallest_crop: float = 0.0  # share of a photograph's area; 0: not cropped as photographs are
    whole: bool = False  # for small images, which are tested as `DataSet.whole` says


@dataclass(frozen=True)
class DataRequest:
    """What a reader is asked for. Each takes of it what concerns it."""

    dataset: DataSet
    folder: str  # data_dir
    with_test: bool  # False: test images will be held out of the training images
    classes: int  # of generated images; 0: a few
    image_size: ImageSize  # of generated images
    batch_size: int  # of which there are to be a few
    exif_orientation: bool = False  # files are turned as their EXIF says
    channels: int = 3  # of `PICTURES`, that files are opened with


CATALOG = {
    row.name: row
    for row in (
        DataSet("imagenet", "slimtrain.data.folders:open_folders", "ImageNet", "data_dir", classes=1000),
        DataSet(FOLDER, "slimtrain.data.folders:open_folders", "class folders", "data_dir"),
        DataSet("cifar10", "slimtrain.data.cifar:open_cifar", "CIFAR-10", "data_dir", classes=10, whole=True),
        DataSet("cifar100", "slimtrain.data.cifar:open_cifar", "CIFAR-100", "data_dir", classes=100, whole=True),
        DataSet(DIGITS, "slimtrain.data.digits:open_digits", "scikit-learn's digits", "package", classes=10, whole=True),
        DataSet(FAKE, "slimtrain.data.fake:open_fake", "noise", "generator", whole=True),
    )
}
DETECTION_SETS = {
    row.name: row
    for row in (
        DetectionSet(
            *(SCENES, "slimtrain.data.detection.opening:open_scenes", "scikit-learn's digits in scenes", "package"),
            classes=10,
            keypoints=False,
        ),
        DetectionSet(COCO, "slimtrain.data.detection.opening:open_coco_folder", "COCO's annotations", "data_dir"),
    )
}
ALL_DATA: Mapping[str, DataSet | DetectionSet] = ChainMap(DETECTION_SETS, CATALOG)  # type: ignore[arg-type]
AUGMENTATIONS = {
    row.name: row
    for row in (
        Augmentation("basic", smallest_crop=0.08),
        Augmentation("mobile", smallest_crop=0.25),
        Augmentation("inception", smallest_crop=0.08),
        Augmentation("cifar", whole=True),
        Augmentation("digits", whole=True),
        Augmentation("none"),
    )
}


def opened_with() -> str:
    """What a message says of `PICTURES`."""
    *most, last = (f"{channels} ({what})" for channels, what in PICTURES.items())
    return f"pictures are opened with {', '.join(most)} or {last} channels"


def packaged(source: object) -> bool:
    """Whether `source` is the name of images that come with a package, and no path."""
    row = CATALOG.get(str(source))
    return row is not None and row.source == "package"


def tested_whole(data: object, augmentation: object) -> bool:
    """Whether a network that was trained on `data` with `augmentation` takes images resized whole, as small ones are; names
    that are not known are those of photographs."""
    row, change = CATALOG.get(str(data)), AUGMENTATIONS.get(str(augmentation))
    return (row is not None and row.whole) or (change is not None and change.whole)
