"""How a detector's files end: what chooses among overlapping boxes, and how many come out. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from slimtrain.base.errors import UserError, nearest

# `slimtrain.detection.fixed.whole` has them too, which takes torch to be asked for them; a test holds them equal.
FIXED, ONNX, NONE, TRT = "fixed", "onnx", "none", "trt"
NMS = (FIXED, ONNX, NONE, TRT)
SCENES = "scenes"  # of digits: images with objects that need no download
MOST_DETECTIONS = 10_000


@dataclass(frozen=True)
class Detecting:
    """How the files of a detector end. `nms`: `fixed`, in shapes that no image decides on; `onnx`, by ONNX's operator, faster
    on CPUs; `none`, raw boxes and scores for an NMS of your own; `trt`, by EfficientNMS_TRT, a plugin of TensorRT's, which
    nothing else runs. `score`: what a detection's is above, `detections`: of an image at most; None: as the checkpoint says.

    UserError for another `nms`, and for numbers that cannot be.

    >>> from slimexport import Detecting
    >>> Detecting(detections=20).nms  # export("s_faster_rcnn.pt", detecting=Detecting(detections=20))
    'fixed'
    """

    nms: str = FIXED
    score: float | None = None
    detections: int | None = None

    def __post_init__(self) -> None:
        if self.nms not in NMS:
            raise UserError(f"nms {self.nms!r}: not known{nearest(self.nms, NMS)}. Available: {', '.join(NMS)}.")
        if self.score is not None and not 0 <= self.score < 1:  # NaN is none either
            raise UserError(f"score threshold {self.score:g}: expected a number from 0 to below 1.")
        if self.detections is not None and not 1 <= self.detections <= MOST_DETECTIONS:
            raise UserError(f"{self.detections} detections: expected 1 to {MOST_DETECTIONS:,} of an image.")


AS_TRAINED = Detecting()
