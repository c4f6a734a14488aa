"""The options of detectors. Neither numpy nor torch is loaded for them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import click

from slimexport.detectors.form import FIXED, NMS, Detecting

detector_options = (
    click.option("--nms", metavar="NAME", help=f"What ends a detector's files: {', '.join(NMS)}.  [default: {FIXED}]"),
    click.option(
        "--score-threshold",
        type=float,
        metavar="X",
        help="What the scores of detections are above.  [default: the checkpoint's]",
    ),
    click.option(
        "--detections", type=int, metavar="D", help="Of an image at most, by a detector.  [default: the checkpoint's]"
    ),
)


@dataclass(frozen=True)
class DetectorOptions:
    """They as click gives them; None where one was not given."""

    nms: str | None
    score_threshold: float | None
    detections: int | None

    @cached_property
    def detecting(self) -> Detecting:
        """UserError for what cannot be."""
        return Detecting(self.nms or FIXED, self.score_threshold, self.detections)

    def check_detecting(self, exports: bool) -> None:
        """UsageError for options of an export where there is none."""
        given = [name for name in ("nms", "score_threshold", "detections") if getattr(self, name) is not None]
        if given and not exports:
            raise click.UsageError(
                f"--{given[0].replace('_', '-')} goes with --ckpt: files are written with what it says, and keep it."
            )
