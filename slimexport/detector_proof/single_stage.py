"""Proof of a single-stage detector's file in parts, each on what the file itself has before it.

A) class logits and codes of every level, of images, against float64; B) the file's detections against what may be chosen of
its own logits and codes. What probe images do not decide is decided by drawn values, which are put in the place of the file's
own.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from slimexport.detector_proof.candidates import boxes_of, crowded
from slimexport.detector_proof.choices import Candidates, Choosing, Judged, Limits
from slimexport.detector_proof.drawn_anchors import anchor_sets, drawn_anchors
from slimexport.detector_proof.proof import GIVEN_OUT, SETTLED, Proving, judged_detections
from slimexport.target.arrays import Array
from slimtrain.base.image_size import ImageSize
from slimtrain.detection.fixed.anchors import level_anchors
from slimtrain.detection.fixed.coding import leading
from slimtrain.detection.fixed.single_stage import RawSingleStage, of_single_stage
from slimtrain.models.detector import RETINA, SSDLITE, DetectorSettings

NEAR = 1e-5  # below the least score: what may be one by roundings is among these
Maps = Mapping[str, Tensor]


def anchor_limits(settings: DetectorSettings, image_size: ImageSize) -> Limits:
    rules, form = settings.box, of_single_stage(settings, image_size)
    ssd = settings.kind == SSDLITE
    room = rules.top_k if ssd else rules.candidates
    return Limits(rules.score, rules.least_size, rules.nms, form.kept, room, apart=ssd)


def anchor_candidates(settings: DetectorSettings, image_size: ImageSize, maps: Maps) -> list[Candidates]:
    """What of every image is chosen from, by the `class_logits0`, ... and `box_deltas0`, ... of all levels [B, ...] in
    float64. Groups are classes."""
    every = [anchors.double() for anchors in level_anchors(settings, image_size)]
    columns = settings.classes + (settings.kind == SSDLITE)
    logits = [by_place(maps[f"class_logits{level}"], columns) for level in range(len(every))]
    codes = [by_place(maps[f"box_deltas{level}"], 4) for level in range(len(every))]
    of_image = _of_levels if settings.kind == RETINA else _of_classes
    result = []
    for image in range(len(logits[0])):
        places, numbers, scores = of_image(settings, [level[image] for level in logits])
        own, anchors = torch.cat([level[image] for level in codes])[places], torch.cat(every)[places]
        boxes, margins = boxes_of(settings, image_size, own, anchors, settings.box.weights)
        result.append(Candidates(boxes.numpy(), margins.numpy(), scores.numpy(), (numbers + 1).numpy()))
    return result


def by_place(level: Tensor, columns: int) -> Tensor:
    """A map [B, A columns, h, w] place by place: [B, h w A, columns]."""
    images, channels, height, width = level.shape
    split = level.reshape(images, channels // columns, columns, height * width)
    return split.permute(0, 3, 1, 2).reshape(images, -1, columns)


def _of_levels(settings: DetectorSettings, logits: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """RetinaNet's, by the logits of every level [n, C]: anchors, classes and scores. The best of each level are there by
    numbers that both sides have alike, so that it is exact which they are."""
    chosen, offset = [], 0
    for level in logits:
        best, places = leading(level.reshape(-1), min(settings.box.top_k, level.numel()))
        scores = torch.sigmoid(best)
        near = scores > settings.box.score - NEAR
        classes = level.shape[1]
        chosen.append((offset + places[near] // classes, places[near] % classes, scores[near]))
        offset += len(level)
    places, numbers, scores = (torch.cat(column) for column in zip(*chosen, strict=True))
    return places, numbers, scores


def _of_classes(settings: DetectorSettings, logits: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """SSDLite's: of every class those that may be among its best."""
    scores = F.softmax(torch.cat(logits), -1)[:, 1:]
    room = min(settings.box.top_k, len(scores))
    least = scores.topk(room, 0).values[-1]
    places, numbers = (scores > torch.maximum(least, torch.tensor(settings.box.score).to(least)) - NEAR).nonzero(as_tuple=True)
    return places, numbers, scores[places, numbers]


class SingleStageProving(Proving):
    """The proof of a file of RetinaNet or SSDLite."""

    def _heads(self, values: Mapping[str, Array]) -> None:
        """There are no regions that heads are computed on."""

    def on_drawn_regions(self) -> None:
        """As there."""

    def _sets(self) -> int:
        return anchor_sets(self.settings)

    def _drawn(self, images: int, number: int) -> dict[str, Array]:
        return drawn_anchors(self.settings, self.image_size, images, number)

    def _choices(self, values: Mapping[str, Array], where: str) -> None:
        form = of_single_stage(self.settings, self.image_size)
        single = {name: torch.from_numpy(values[name]) for name in form.input_shapes}
        maps = {name: tensor.double() for name, tensor in single.items()}
        if self.raw:
            raw = RawSingleStage(self.settings, self.image_size).double()(*maps.values())
            self._near(values, {name: tensor.numpy() for name, tensor in raw.items()}, where)
            return
        settled = values[SETTLED].astype(bool)
        # Near-equals in another order may take more rounds: of one precision alone that is no fault.
        wrong = (form(*single.values())[SETTLED] & form.double()(*maps.values())[SETTLED]).numpy() & ~settled
        if wrong.any():  # else nothing below would be judged
            self.parts.refuse(f"{where} it says that {int(wrong.sum())} of {len(wrong)} are not settled, which are")
        limits, judged = anchor_limits(self.settings, self.image_size), Judged()
        for image, candidates in enumerate(anchor_candidates(self.settings, self.image_size, maps)):
            given = {name: array[image] for name, array in values.items() if name in GIVEN_OUT}
            full = self.settings.kind == RETINA and crowded(self.settings, candidates)
            judged.add(judged_detections(given, Choosing(candidates, limits), full=full, settled=bool(settled[image])))
        self._count(judged, f"{where} its detections")
