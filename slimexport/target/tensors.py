"""What a bundle's networks take and give, as its manifest says it: names, shapes, and how images are prepared."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from slimexport.target.records import EntryError, Name, Positive, Record, Share, Within
from slimtrain.base.image_size import ImageSize, sides
from slimtrain.base.untrusted.quoting import quoted

BATCH = "batch"
SIZE = re.compile(rf"(?:([1-9]\d{{0,8}})\*)?{BATCH}")
MOST_INPUT = 2**26  # numbers of one input: an image of 4,729 x 4,729 in three colors
MOST_OUTPUT = 2**28  # numbers of one output, for one input
MOST_DIMENSIONS = 8
LEAST_STD = 1e-12  # numbers that are next to nothing give infinities
BOXES, SCORES, LABELS, COUNT = CHOSEN = ("boxes", "scores", "labels", "count")
PLUGIN = "trt"  # the form that TensorRT alone runs, whose detections have names of their own
ITS_COUNT, ITS_BOXES, ITS_SCORES, ITS_CLASSES = ITS_CHOSEN = (
    *("num_detections", "detection_boxes"),
    *("detection_scores", "detection_classes"),
)
DETECTIONS = {"fixed": CHOSEN, "onnx": CHOSEN, PLUGIN: ITS_CHOSEN}  # by the form of NMS, of those that choose
DTYPES = ("float32", "float64", "float16", "int64", "int32", "int8", "uint8", "bool")


@dataclass(frozen=True, kw_only=True)
class Input(Record):
    """Images [N, channels, height, width], less `mean`, over `std`: resized `whole`, or the center of a photograph, turned
    first as EXIF says where `exif_orientation`; or `padded`: resized in its proportions until it fits, zeros to the right and
    below, as of detectors. `image_size` is the side of a square, or height and width, which earlier
    versions do not read. `shape`: of inputs that are no images, [channels, length] of a signal or [channels] of a row of
    numbers; those are not prepared from files."""

    name: Name
    channels: Positive
    image_size: ImageSize
    mean: tuple[Annotated[float, Within(-1e6, 1e6)], ...]
    std: tuple[Annotated[float, Within(-1e6, 1e6)], ...]
    whole: bool = False
    exif_orientation: bool = False
    shape: tuple[int, ...] | None = None
    padded: bool = False

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one input."""
        return (self.channels, *sides(self.image_size)) if self.shape is None else self.shape

    def check(self) -> None:
        """EntryError where no image can be normalized so, or only wrongly, or would fill the memory."""
        if (numbers := math.prod(map(abs, self.input_shape))) > MOST_INPUT:
            raise EntryError(
                f"input is of {' x '.join(map(str, self.input_shape))}, {numbers:,} numbers, expected at most {MOST_INPUT:,}"
            )
        for key, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise EntryError(f"input.{key} has {len(values)} numbers, expected one for each of {self.channels} channels")
        if not all(value >= LEAST_STD for value in self.std):
            raise EntryError(f"input.std is {list(self.std)}, expected numbers above 0")
        if self.shape is not None and (len(self.shape) not in (1, 2) or self.shape[0] != self.channels or min(self.shape) < 1):
            raise EntryError(f"input.shape is {list(self.shape)}, expected [{self.channels}] or [{self.channels}, length]")


@dataclass(frozen=True, kw_only=True)
class Output(Record):
    """Logits [N, classes]; `class_names` by class number, where they are known."""

    name: Name
    classes: Annotated[int, Within(0, MOST_OUTPUT)]
    class_names: tuple[str, ...] | None = None

    def check(self) -> None:
        """EntryError where names are not one for each class."""
        if self.class_names is not None and len(self.class_names) != self.classes:
            raise EntryError(f"output.class_names has {len(self.class_names)} names, expected one for each of {self.classes}")


@dataclass(frozen=True, kw_only=True)
class BoxEntry(Record):
    """What of an image's boxes is given out: scores above `score`, of two of a class that overlap by an IoU above `nms` the
    better one, at most `detections`."""

    score: Share
    nms: Share
    detections: Positive


@dataclass(frozen=True, kw_only=True)
class DetectorEntry(Record):
    """What a detector is, as its checkpoint has it (`slimtrain.models.stored_detector`; what a target needs not is in
    `extra`), and as its files were made: `nms` in fixed shapes, by ONNX's operator, or none; `slim`: what of it a width
    narrows."""

    kind: Name
    classes: Positive
    box: BoxEntry
    nms: Name
    slim: Name

    def check(self, outputs: Sequence[str]) -> None:
        """EntryError where files with these outputs give no detections, though their form of NMS chooses some."""
        if lacking := [name for name in DETECTIONS.get(self.nms, ()) if name not in outputs]:
            raise EntryError(f"outputs are called {quoted(list(outputs))}, expected {', '.join(lacking)} of a detector, too")


@dataclass(frozen=True, kw_only=True)
class Result(Record):
    """One of a network's outputs: what files call it, and its shape, whose first size counts images: `batch`, or `4*batch`
    where there are 4 rows of each."""

    name: Name
    shape: tuple[Any, ...]
    dtype: str

    @property
    def rows(self) -> int:
        """Rows of one image."""
        match = SIZE.fullmatch(str(self.shape[0]))
        assert match is not None
        return int(match[1] or 1)

    @property
    def own_shape(self) -> tuple[int, ...]:
        """Of a row."""
        return tuple(self.shape[1:])

    def check(self) -> None:
        """EntryError where this is no output's shape or type."""
        usable = all(type(size) is int and size > 0 for size in self.own_shape) and len(self.shape) <= MOST_DIMENSIONS
        if not self.shape or not SIZE.fullmatch(str(self.shape[0])) or not usable:
            raise EntryError(f"the shape of output {self.name} is {quoted(list(self.shape))}, expected [batch, sizes above 0]")
        if (numbers := self.rows * math.prod(self.own_shape)) > MOST_OUTPUT:
            raise EntryError(f"output {self.name} has {numbers:,} numbers, expected at most {MOST_OUTPUT:,}")
        if self.dtype not in DTYPES:
            raise EntryError(f"the dtype of output {self.name} is {quoted(self.dtype)}, expected one of {', '.join(DTYPES)}")
