"""How a file was proven, as a manifest tells it."""

from __future__ import annotations

from dataclasses import dataclass

from slimexport.target.records import Count, Magnitude, Positive, Record, Share, null_where

PASSED, IN_PART, FAILED, UNVERIFIABLE, SKIPPED = "passed", "partly", "failed", "unverifiable", "skipped"
BUILT = "built"  # by TensorRT-RTX for another machine: nothing has run it yet


@dataclass(frozen=True, kw_only=True)
class BatchFigures(Record):
    """An engine's outputs at one batch next to the reference; null where they are not finite."""

    batch: Positive
    max_rel_error: float | None
    top1_agreement: Share | None
    cosine: float | None


@dataclass(frozen=True, kw_only=True)
class OwnShares(Record):
    """What one of the roundings that were tried out did to a file's outputs at the most, as a multiple of what the others did:
    on average, to one image, and to all images alike."""

    usual: Magnitude
    of_one: Magnitude
    in_common: Magnitude


@dataclass(frozen=True, kw_only=True)
class Verification(Record):
    """How a file was proven, or why it was not. `max_rel_error` is the largest difference relative to the largest absolute
    reference logit, `cosine` that of the logits' directions; null where outputs were not finite. Which of `tolerance` and
    `least_cosine` there is says which of the two decided. Engines tell all `batches`, the worst of which counts. Of several
    outputs the worst counts too: `output` is its name. `top1_agreement` is the share of images, or of places in dense outputs,
    whose largest class is the same; there is none of outputs that name no classes. Of files of fewer bits each of `layers` was
    held by itself against what it should give; the `worst_layer` is off by `layer_error`, of what rounding explains (1: all
    that it does, null: not finite). Of int8 files also what differs between images is held against the reference's: its cosine
    (`difference_cosine`), its size as a multiple (`magnitude`), and how far off is what images have in common (`shift`, of the
    scale). What a file of fewer bits gave when it was proven may be off by `own_tolerance` of its scale elsewhere, where
    roundings fall otherwise, and by little more than `own_shares`; `own_error` is how far it is off here; where `own_runtime`
    runs it, it gives the same again. Of the `watched` channels that layers read, `unexercised` are the same everywhere on all
    probe images, so that what is wrong with them goes unseen: where other images move many of these, the status is `partly`.
    Of a detector so many `detections` were matched one to one, off by `box_error` pixels and `score_error` at most; `ties`
    were decided otherwise by near-equals. Of fewer bits all `detections` of the reference are as far `alike` those of the
    file, 1 where they are the same, and `least_alike` at least; `own_tolerance` and `own_error` are what they may lack of that
    elsewhere, and do. So many values `inside` the file, what its layers give one by one of drawn numbers, are held to those
    of when it was proven; `inside_error` is how far off the worst is, of what is permitted (1: all that is)."""

    status: str
    backend: str | None = None
    max_rel_error: float | None = null_where(lambda check: check.backend is not None)
    cosine: float | None = null_where(lambda check: check.least_cosine is not None)
    least_cosine: float | None = None
    least_top1_agreement: float | None = None
    tolerance: Magnitude | None = None
    tolerance_from: str | None = None
    float32_gap: float | None = null_where(lambda check: check.tolerance is not None and check.batches is None)
    rounding_gap: Magnitude | None = None
    top1_agreement: Share | None = None
    difference_cosine: float | None = None
    magnitude: Magnitude | None = None
    shift: Magnitude | None = None
    output: str | None = None
    probes: Count | None = None
    spread: Magnitude | None = None
    unexercised: Count | None = None
    watched: Count | None = None
    own_tolerance: Magnitude | None = None
    own_error: float | None = null_where(lambda check: check.own_tolerance is not None and check.status == FAILED)
    own_shares: OwnShares | None = None
    own_runtime: str | None = None
    inside: Count | None = None
    inside_error: float | None = null_where(lambda check: check.inside is not None and check.status == FAILED)
    layers: Count | None = None
    worst_layer: str | None = None
    layer_error: float | None = null_where(lambda check: check.layers is not None)
    detections: Count | None = None
    ties: Count | None = None
    alike: Share | None = None
    least_alike: float | None = None
    box_error: Magnitude | None = None
    score_error: Magnitude | None = None
    batches: tuple[int, ...] | None = None
    by_batch: tuple[BatchFigures, ...] | None = None
    reason: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the file may stay: it was proven right, or no proof was asked for."""
        return self.status in (PASSED, IN_PART, SKIPPED)
