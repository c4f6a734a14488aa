"""What the less common arguments of an export say, grouped by what they are about. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from slimexport.onnx_files.methods import AUTO, check_method
from slimexport.onnx_files.weight_bits import check_bits
from slimexport.target.precision import EVERY_TARGET, check_int8_target
from slimtrain.base.errors import UserError

if TYPE_CHECKING:
    from slimexport.target.manifest import FileEntry

CALIBRATION_BATCH_SIZE = 64
CALIBRATION_IMAGES = 2048  # for statistics
PROBES, MOST_PROBES = 2, 16


def _nothing(value: object) -> None:
    """What is done where nobody listens."""


@dataclass(frozen=True)
class Reading:
    """How a checkpoint is read where it does not tell itself what it is, as for `open_checkpoint`: the `network`'s name, its
    `switches` or widths in stored order, the published `config` it was trained with; whether its images are turned as their
    EXIF says (None: as they were in training, where it tells, else not). `weights` chooses among several sets of weights in
    it: a dotted key, `model` or `ema`. `class_names` is a file with a name for each class, or `imagenet`: they go into the
    files in place of the checkpoint's own.

    >>> from slimexport import Reading
    >>> Reading(network="us_mobilenet_v1").network  # export("mine.pt", reading=Reading(network="us_mobilenet_v1"))
    'us_mobilenet_v1'
    """

    network: str | None = None
    switches: Sequence[float] | None = None
    config: str | Path | None = None
    exif_orientation: bool | None = None
    class_names: str | Path | None = None
    weights: str | None = None


@dataclass(frozen=True)
class CalibrationImages:
    """Images that give statistics to plans without any, and scales to int8: `source` is a folder, a `.npy` or `.npz` file, or
    `digits`. `int8_method` is max, percentile, or auto: the one that agrees better with fp32 on a fifth of the images.
    `int8_weight_bits` of files for CPUs is 8, 7, or auto: 7 where this machine's CPU is an x86 without VNNI. `most` images are
    drawn, as many of each class folder as can be (None: 2,048 for statistics, 512 for int8's scales). `int8_target` is whose
    int8 files are written: cpu, tensorrt, or all.

    UserError for another method, other bits, another target, and for no images.

    >>> from slimexport import CalibrationImages
    >>> CalibrationImages("train/").int8_method  # export("mine.pt", widths=[0.33], calibration=CalibrationImages("train/"))
    'auto'
    """

    source: str | Path
    batch_size: int = CALIBRATION_BATCH_SIZE
    int8_method: str = AUTO
    int8_weight_bits: str = AUTO
    most: int | None = None
    int8_target: str = EVERY_TARGET

    def __post_init__(self) -> None:
        check_method(self.int8_method)
        check_bits(self.int8_weight_bits)
        check_int8_target(self.int8_target)
        if self.most is not None and self.most < 1:
            raise UserError(f"calibration images {self.most}: expected at least 1.")


@dataclass(frozen=True)
class Proof:
    """What files are held against. `probes` images of noise, or of `images` (a folder, an array file or `digits`), are run
    through each, unless it is not to `verify`; None: PROBES, and as many more, up to MOST_PROBES, as it takes to move nearly
    all channels. `accuracy_data` (`digits`, or a folder of class folders) is what every file's accuracy is measured on, its
    images loaded by `workers` processes (None: up to 4).

    UserError for fewer than two probes: one cannot show that logits depend on the image.

    >>> from slimexport import Proof
    >>> Proof(probes=8, accuracy_data="val/").verify  # export("mine.pt", proof=Proof(probes=8, accuracy_data="val/"))
    True
    """

    verify: bool = True
    images: str | Path | None = None
    probes: int | None = None
    accuracy_data: str | Path | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.probes is not None and self.probes < 2:
            raise UserError(f"probes {self.probes}: at least 2 images are needed to see that logits depend on the image.")


@dataclass(frozen=True)
class Writing:
    """What becomes of the files. `overwrite` replaces a bundle that is there; `dry_run` writes and verifies nothing: costs
    come from the layers' shapes, and the files' sizes from these, to about 1 %. `started` is called with the number of files,
    `finished` with each file's entry.

    >>> from slimexport import Writing
    >>> Writing(dry_run=True).overwrite  # export("mine.pt", writing=Writing(dry_run=True))
    False
    """

    overwrite: bool = False
    dry_run: bool = False
    started: Callable[[int], None] = _nothing
    finished: Callable[[FileEntry], None] = _nothing


AS_IT_IS = Reading()
USUAL_PROOF = Proof()
TO_A_NEW_FOLDER = Writing()
