"""Proof of a detector's file in parts, each on what the file itself has before it.

A) maps, objectness and codes, of images, against float64; B) the file's proposals against what may be chosen of its own
objectness and codes; C) what its heads give against float64 on its own proposals; D) its detections against what may be chosen
of what its heads gave, and masks or keypoints. One after the other they are all of the file, so a near-equal choice in one
hides nothing in another. What probe images do not decide is decided by drawn values, which are put in the place of the file's
own: regions of all levels, and maps and logits with overlaps, small boxes and thresholds in plenty.
"""

from __future__ import annotations

import copy
import hashlib
import math
import string
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch

from slimexport.detector_proof.candidates import (
    crowded,
    detection_candidates,
    detection_limits,
    proposal_candidates,
    proposal_limits,
)
from slimexport.detector_proof.choices import LEEWAY, ROUNDING, Choosing, Judged
from slimexport.detector_proof.crowds import crowd
from slimexport.detector_proof.drawn import SETS, drawn_values
from slimexport.detector_proof.exact import Exact, near_boundaries, regions_of_all_levels
from slimexport.detector_proof.inside import Inside
from slimexport.detector_proof.parts import Parts, likeness
from slimexport.detector_proof.points import judge_points
from slimexport.target.arrays import Array
from slimexport.target.precision import EXACT, Direction, row_of
from slimexport.target.proof.comparing import Comparison, Pair, compare_all
from slimexport.target.proof.detections import MOST_TIES, UNDECIDED
from slimexport.target.proof.running import partitions
from slimexport.target.proof.verify import permitted
from slimtrain.base.image_size import ImageSize, sides
from slimtrain.detection.fixed.detections import Detections, RawDetections
from slimtrain.detection.fixed.keypoints import Keypoints
from slimtrain.detection.fixed.proposals import Proposals
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.detector import DetectorSettings
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.slimmable.rounded import rounded_network

ROWS, MASK_ROWS, LOGITS, CODES = "rows", "mask_rows", "class_logits", "box_deltas"
MASK_LOGITS, POINT_LOGITS = "mask_logits", "keypoint_logits"
SETTLED = "settled"
GIVEN_OUT = ("boxes", "scores", "labels", "count", SETTLED)
DRAWN_IMAGES = 2
RAW = 1e-5  # of the scale: what is computed of a file's own values, without a choice
PIXELS = 2**21  # that a file is run of at once, or two images
SEEN = 1.0  # a spread that narrows no tolerance
LEAST_COSINE = 0.9  # of int8's maps, logits and codes


class Proving:
    """The proof of a two-stage detector's file (`settings` with its own thresholds) with masks, keypoints or neither, on
    float32 `images` [P, 3, H, W], alone, in pairs and, up to PIXELS, all at once. `network`: the dense slimmable
    detector in float64."""

    def __init__(
        self,
        file: Inside,
        network: SlimmableNetwork,
        plan: ChannelPlan,
        settings: DetectorSettings,
        image_size: ImageSize,
        images: Array,
        precision: str,
    ) -> None:
        self.file, self.plan, self.settings, self.image_size, self.images = file, plan, settings, image_size, images
        self.network = network
        self.exact = Exact(network, plan, images)
        self.row = row_of(precision)
        self.proof, self.parts = self.row.proof, Parts(tolerance=self.row.proof.tolerance)
        self.of_detections = next((name for name in (MASK_LOGITS, POINT_LOGITS) if name in file.names), None)
        self.raw = "count" not in file.outputs
        self._single: Exact | None = None
        self._rows: dict[str, int] = {}  # regions of every image, by what reads them

    def prove(self) -> Parts:
        self.on_images()
        if self.parts.right:
            self.on_drawn_regions()
        if self.parts.right:
            self.on_drawn_values()
        self.parts.exact = self.exact
        return self.parts

    # -- on images

    def on_images(self) -> None:
        before: dict[str, bytes] = {}
        for batches in partitions(len(self.images), at_once(self.image_size)):
            values = self._joined([self.file.run(np.ascontiguousarray(self.images[batch])) for batch in batches], batches)
            numbers = {name: _digest(array) for name, array in values.items()}
            if numbers == before:
                continue  # the very same
            before = numbers
            self._rows = {name: len(values[name]) // len(self.images) for name in (ROWS, MASK_ROWS) if name in values}
            self._hold(self.exact.first, values, lambda: self._in_its_numbers().first, "of images")
            if self.parts.right:
                self._choices(values, "of images")
            if self.parts.right:
                self._heads(values)
            if self.parts.right:
                self._limit((0, 0), "of images", f": {UNDECIDED}")
            if not self.parts.right:
                return
            del values  # before there are others

    def _joined(self, parts: list[dict[str, Array]], batches: list[Array]) -> dict[str, Array]:
        """What batches gave as what all images gave: regions tell the number of their image."""
        joined = {}
        for name in list(parts[0]):
            arrays = [part.pop(name) for part in parts]
            if name in (ROWS, MASK_ROWS):
                for array, batch in zip(arrays, batches, strict=True):
                    count = len(array) // len(batch)
                    if not np.array_equal(array[:, 0], np.repeat(np.arange(len(batch)), count)):
                        self.parts.refuse(f"its {name} are of other images than they should be")
                arrays = [
                    np.concatenate([array[:, :1] + batch[0], array[:, 1:]], 1)
                    for array, batch in zip(arrays, batches, strict=True)
                ]
            joined[name] = np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
        return joined

    def _in_its_numbers(self) -> Exact:
        if self._single is None:
            self._single = Exact(self._coarse, self.plan, self.images)
        return self._single

    @cached_property
    def _coarse(self) -> SlimmableNetwork:
        """The network as the file's numbers compute it at best."""
        if self.row.name == EXACT:
            return copy.deepcopy(self.network).float()
        return rounded_network(self.network, self.row.number)

    def _hold(
        self,
        exact: Mapping[str, torch.Tensor],
        values: Mapping[str, Array],
        single: Callable[[], Mapping[str, torch.Tensor]],
        where: str,
        but: Mapping[str, Array] | None = None,
    ) -> None:
        """Hold values of the file to their tolerance, a wider one where float32 itself is too coarse for the network. `but`:
        rows that are held to nothing."""

        def pairs(given: Mapping[str, Array]) -> list[Pair]:
            held = []
            for name, expected in exact.items():
                rows = slice(None) if but is None or name not in but else ~but[name]
                held.append(
                    Pair(name, given[name][rows], expected.numpy()[rows])
                    if given[name].shape == tuple(expected.shape)
                    else Pair(name, given[name], expected.numpy())
                )
            return held

        comparison = compare_all(pairs(values))
        if isinstance(self.proof, Direction):
            self._hold_directions(pairs(values), comparison, where)
            return
        tolerance = self.proof.tolerance
        if not comparison.within(tolerance) and self.proof.factor:
            gap = compare_all(pairs({name: tensor.numpy() for name, tensor in single().items()})).max_rel_error
            tolerance = permitted(self.proof, gap, SEEN)
        self.parts.tolerance = max(self.parts.tolerance, tolerance)
        if not self.parts.error >= comparison.max_rel_error:
            self.parts.error, self.parts.part = comparison.max_rel_error, comparison.output or ""
        if not comparison.within(tolerance):
            self.parts.refuse(
                f"{where} its {comparison.output} is off by {comparison.max_rel_error:.3g} of its scale "
                f"(at most {tolerance:.1e})"
            )

    def _hold_directions(self, pairs: Sequence[Pair], comparison: Comparison, where: str) -> None:
        """Hold values whose steps are coarse by design to their direction; their layers are proven by themselves."""
        if not self.parts.error >= comparison.max_rel_error:
            self.parts.error = comparison.max_rel_error
        families: dict[str, list[Pair]] = {}
        for pair in pairs:
            families.setdefault(pair.name.rstrip(string.digits), []).append(pair)
        for name, family in families.items():
            alike = likeness(family)
            if not self.parts.cosine <= alike:
                self.parts.cosine, self.parts.part = alike, name
            if not alike >= LEAST_COSINE:
                self.parts.refuse(
                    f"{where} its {name} has a cosine of {alike:.3f} with the network's (at least {LEAST_COSINE})"
                )

    def _heads(self, values: Mapping[str, Array]) -> None:
        """What heads give of the file's own regions."""
        regions = [values[name] for name in (ROWS, MASK_ROWS) if name in values]
        names = {LOGITS: ROWS, CODES: ROWS} | ({self.of_detections: MASK_ROWS} if self.of_detections else {})
        near = {name: near_boundaries(values[rows]) for name, rows in names.items()}
        self._hold(
            self.exact.second(*regions), values, lambda: self._in_its_numbers().second(*regions), "on its own regions", near
        )

    # -- choices

    def _choices(self, values: Mapping[str, Array], where: str) -> None:
        read = (LOGITS, CODES, *Proposals(self.settings, self.image_size).input_shapes)
        doubled = {name: torch.from_numpy(values[name].astype(np.float64)) for name in read}
        images = len(values[SETTLED])
        rows = values[ROWS].reshape(images, -1, 5)[..., 1:].astype(np.float64)
        rois = torch.from_numpy(rows)
        chosen, settled = self._settled(doubled, rois), values[SETTLED].astype(bool)
        wrong = chosen & ~settled
        if self.of_detections == POINT_LOGITS:
            wrong &= self._points_settled(values)
        if wrong.any():  # else nothing below would be judged
            self.parts.refuse(f"{where} it says that {int(wrong.sum())} of {images} are not settled, which are")
        settled |= chosen  # where keypoints alone are not
        limits, judged = proposal_limits(self.settings, self.image_size), Judged()
        for image, candidates in enumerate(proposal_candidates(self.settings, self.image_size, doubled)):
            there = rows[image][:, 2] > rows[image][:, 0]
            if (np.diff(there.astype(int)) > 0).any() or rows[image][~there].any():
                judged.faults.append("there are proposals behind those that count")
                break
            if settled[image]:
                judged.add(Choosing(candidates, limits).judge(rows[image][there]))
        self._count(judged, f"{where} its proposals")
        if self.parts.right and self.raw:
            self._raw(values, rois, doubled, where)
        elif self.parts.right:
            self._detections(values, settled, rois, doubled, where)

    def _settled(self, doubled: Mapping[str, torch.Tensor], rois: torch.Tensor) -> Array:
        """Of which images NMS comes to an end, by float64."""
        proposals = Proposals(self.settings, self.image_size)
        settled = proposals(*(doubled[name] for name in proposals.input_shapes))["settled"]
        if not self.raw:
            detections = Detections(self.settings, self.image_size, proposals.kept)
            settled &= detections(rois, _valid(rois), doubled[LOGITS], doubled[CODES])["settled"]
        return np.asarray(settled.numpy())

    def _detections(
        self,
        values: Mapping[str, Array],
        settled: Array,
        rois: torch.Tensor,
        doubled: Mapping[str, torch.Tensor],
        where: str,
    ) -> None:
        limits, judged = detection_limits(self.settings, self.image_size), Judged()
        every = detection_candidates(self.settings, self.image_size, rois, doubled[LOGITS], doubled[CODES])
        for image, candidates in enumerate(every):
            own = {name: array[image] for name, array in values.items() if name in GIVEN_OUT}
            full = crowded(self.settings, candidates)
            judged.add(judged_detections(own, Choosing(candidates, limits), full=full, settled=bool(settled[image])))
        self._count(judged, f"{where} its detections")
        if self.parts.right and self.of_detections == MASK_LOGITS:
            self._masks(values, where)
        if self.parts.right and self.of_detections == POINT_LOGITS:
            self._points(values, where)

    def _raw(self, values: Mapping[str, Array], rois: torch.Tensor, doubled: Mapping[str, torch.Tensor], where: str) -> None:
        raw = RawDetections(self.settings, self.image_size, rois.shape[1])
        expected = raw(rois, _valid(rois), doubled[LOGITS], doubled[CODES])
        self._near(values, {name: tensor.numpy() for name, tensor in expected.items()}, where)

    def _masks(self, values: Mapping[str, Array], where: str) -> None:
        labels = values["labels"]
        logits = values[MASK_LOGITS].astype(np.float64).reshape(*labels.shape, -1, *values[MASK_LOGITS].shape[-2:])
        own = np.take_along_axis(logits, labels[:, :, None, None, None].astype(np.int64), 2)[:, :, 0]
        expected = np.where((labels > 0)[..., None, None], 1 / (1 + np.exp(-own)), 0.0)
        self._near(values, {"masks": expected}, where)

    def _points(self, values: Mapping[str, Array], where: str) -> None:
        judged = Judged()
        logits = values[POINT_LOGITS].reshape(*values["labels"].shape, *values[POINT_LOGITS].shape[1:])
        for image, labels in enumerate(values["labels"]):
            there = labels > 0
            points, scores = values["keypoints"][image], values["keypoint_scores"][image]
            if points[~there].any() or scores[~there].any():
                judged.faults.append("there are keypoints of rows that are no detections")
                break
            settled = bool(values[SETTLED][image])
            own = values["boxes"][image][there], logits[image][there], points[there], scores[there]
            judged.add(judge_points(*own, settled))
        self._count(judged, f"{where} its keypoints")

    def _points_settled(self, values: Mapping[str, Array]) -> Array:
        """Of which images the file must have seen that no keypoint is elsewhere."""
        assert self.settings.keypoints is not None
        logits = torch.from_numpy(values[POINT_LOGITS].astype(np.float64))
        leeway = LEEWAY * ROUNDING * logits.shape[-1] * float(logits.abs().max())
        points = Keypoints(self.settings.keypoints, self.image_size, leeway=leeway)
        boxes, labels = torch.from_numpy(values["boxes"].astype(np.float64)), torch.from_numpy(values["labels"])
        return np.asarray(points(boxes, labels, logits)["settled"].numpy())

    def _near(self, values: Mapping[str, Array], expected: Mapping[str, Array], where: str) -> None:
        comparison = compare_all([Pair(name, values[name], array) for name, array in expected.items()])
        if not comparison.within(RAW):
            what = comparison.output or next(iter(expected))
            self.parts.refuse(
                f"{where} its {what} are off by {comparison.max_rel_error:.3g} of their scale (at most {RAW:.0e})"
            )

    def _count(self, judged: Judged, what: str) -> None:
        self.parts.rows += judged.rows
        self.parts.ties += judged.ties
        if judged.faults:
            more = f" (and {len(judged.faults) - 1} more)" if len(judged.faults) > 1 else ""
            self.parts.refuse(f"{what} are chosen wrongly: {judged.faults[0]}{more}")

    # -- drawn values

    def on_drawn_regions(self) -> None:
        """Heads on regions of all levels."""
        images = self.images[:DRAWN_IMAGES]
        names = {ROWS: (LOGITS, CODES)} | ({MASK_ROWS: (self.of_detections,)} if self.of_detections else {})
        regions = {
            name: regions_of_all_levels(self.image_size, self.settings, len(images), self._rows[name]) for name in names
        }
        values: dict[str, Array] = {}
        for name, ends in names.items():
            values |= self.file.of({name: regions[name]}, images, ends)

        def single() -> Mapping[str, torch.Tensor]:
            return self._in_its_numbers().second(*regions.values())

        near = {end: near_boundaries(regions[name]) for name, ends in names.items() for end in ends}
        self._hold(self.exact.second(*regions.values()), values, single, "on drawn regions", near)

    def on_drawn_values(self) -> None:
        """Choices among drawn boxes and scores."""
        images = np.zeros_like(self.images[:DRAWN_IMAGES])
        wanted = [*([ROWS] if ROWS in self.file.names else []), *self.file.outputs]
        before = self.parts.ties, self.parts.rows
        for number in (*range(self._sets()), None):
            given = self._drawn(len(images), number or 0)
            given = crowd(self.settings, given) if number is None else given
            self._choices({**given, **self.file.of(given, images, wanted)}, "of drawn values")
            if not self.parts.right:
                return
        self._limit(before, "of drawn values")

    def _limit(self, before: tuple[int, int], where: str, advice: str = "") -> None:
        """Few choices may hang on near-equals. `before`: ties and rows that are counted elsewhere."""
        ties, rows = self.parts.ties - before[0], self.parts.rows - before[1]
        if ties > max(1, MOST_TIES * rows):
            self.parts.refuse(
                f"{where} near-equals decide {ties} of {rows} choices otherwise (at most {MOST_TIES:.0%}){advice}"
            )

    def _sets(self) -> int:
        """How many kinds of drawn values there are."""
        return SETS

    def _drawn(self, images: int, number: int) -> dict[str, Array]:
        return drawn_values(self.settings, self.image_size, images, number)


def judged_detections(own: Mapping[str, Array], choosing: Choosing, *, full: bool, settled: bool) -> Judged:
    """What an image's `boxes`, `scores`, `labels`, `count` and `settled` are next to what may be chosen. `full`: there are
    more candidates than are looked at; `settled`: whether its choices are judged."""
    judged, most = Judged(), choosing.limits.count
    count, (boxes, scores, labels) = int(own["count"]), (own[name] for name in ("boxes", "scores", "labels"))
    if bool(own[SETTLED]) and full and count < most:
        judged.faults.append("it says settled, and there were more candidates than room for them")
    if not 0 <= count <= most or boxes[count:].any() or scores[count:].any() or labels[count:].any():
        judged.faults.append(f"it counts {count} detections, and has others behind them")
    elif settled:
        judged.add(choosing.judge(boxes[:count].astype(np.float64), scores[:count].astype(np.float64), labels[:count]))
    return judged


def at_once(image_size: ImageSize) -> int:
    """How many images a file is run of at once: all, of large ones two."""
    return max(2, PIXELS // math.prod(sides(image_size)))


def _digest(array: Array) -> bytes:
    """What tells arrays apart that are not the very same."""
    return hashlib.blake2b(np.ascontiguousarray(array).data).digest()


def _valid(rois: torch.Tensor) -> torch.Tensor:
    """Which RoIs [B, P, 4] count: the others are without a size."""
    return (rois[..., 2] > rois[..., 0]).double()
