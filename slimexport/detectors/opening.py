"""A detector's checkpoint as what an export ships: a slimmable network from image to boxes."""

from __future__ import annotations

import copy
import gc
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx

from slimexport.detectors.form import AS_TRAINED, Detecting
from slimexport.detectors.proving import DetectorVerifying
from slimexport.detectors.steadiness import steady_detections
from slimexport.onnx_files.calibration import Calibration
from slimexport.onnx_files.graph_writer import INNER
from slimexport.onnx_files.parts.writing import PartsOriginal
from slimexport.target.precision import EXACT, Precision, row_of
from slimexport.target.proof.own_detections import own_likeness
from slimexport.target.reference import Own, Probes
from slimexport.target.tensors import DETECTIONS, PLUGIN, BoxEntry, DetectorEntry
from slimexport.target.verification import Verification
from slimtrain.base.errors import UserError
from slimtrain.base.image_size import ImageSize
from slimtrain.checkpoints.checkpoint import Checkpoint
from slimtrain.costs.cost import CostCounter
from slimtrain.detection.fixed.shipped import dense_spec, detector_spec, inner_values, whole_network
from slimtrain.detection.making import ALL, BACKBONE, NECK_AND_HEADS
from slimtrain.graph.graph import Value
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.detector import DetectorSettings
from slimtrain.models.stored_detector import plain_detector
from slimtrain.slimmable.network import SlimmableNetwork

NODE_BYTES = 102  # measured


@dataclass(frozen=True)
class Doubled:
    """A detector's networks in float64: `dense` of its layers alone, `whole` from images to boxes, of the same weights."""

    dense: SlimmableNetwork
    whole: SlimmableNetwork


@dataclass(frozen=True)
class OpenDetector:
    """`dense`: the network as it was trained; `spec`: the same for images of `image_size` and as many regions as they have;
    `checkpoint`: the one from images to boxes, which shares its weights."""

    dense: SlimmableNetwork
    spec: GraphSpec
    checkpoint: Checkpoint
    settings: DetectorSettings
    image_size: ImageSize
    nms: str

    @property
    def count(self) -> CostCounter:
        """Costs of the whole detector: of its layers, on all regions. What chooses regions and boxes is no layer, and is not
        counted."""
        return CostCounter(self.spec, self.image_size)

    @property
    def inner(self) -> dict[str, Value]:
        """What the dense network gives, and the regions it is given, in the graph of the whole."""
        return inner_values(self.spec.graph, self.checkpoint.spec.graph)

    @property
    def entry(self) -> DetectorEntry:
        """What a manifest tells of it."""
        plain = plain_detector(self.settings)
        slim = BACKBONE if set(NECK_AND_HEADS) <= set(self.spec.groups.policy.fixed) else ALL
        known = {one.name for one in fields(DetectorEntry)}
        rest = {key: value for key, value in plain.items() if key not in known}
        return DetectorEntry(
            kind=self.settings.kind,
            classes=self.settings.classes,
            box=_box(plain["box"]),
            nms=self.nms,
            slim=slim,
            extra=rest,
        )

    @property
    def metadata(self) -> dict[str, str]:
        """What its files say beside what all do."""
        box = self.settings.box
        return {
            "detector": self.settings.kind,
            "classes": str(self.settings.classes),
            "nms": self.nms,
            "nms_threshold": str(box.nms),
            "score_threshold": str(box.score),
            "detections": str(box.detections),
        }

    @property
    def fixed_bytes(self) -> int:
        """What a file holds beside its layers: anchors and the like, and nodes that choose regions and boxes."""
        graph = self.checkpoint.spec.graph
        constants = sum(array.nbytes for array in graph.constants.values())
        return constants + NODE_BYTES * (len(graph.nodes) - len(self.spec.graph.nodes))

    def check_files(self, files: Sequence[Precision]) -> None:
        """UserError for files that a detector has none of."""
        refused = next((file for file in files if file.name != EXACT), None)
        provable = [form for form in DETECTIONS if form != PLUGIN]  # which is proven up to what TensorRT alone runs
        if refused is not None and self.nms not in provable:
            raise UserError(
                f"--precision {refused.option}: with --nms {self.nms} a file gives candidates in the order of their scores, "
                f"which fewer bits rank otherwise, so that nobody could tell theirs from wrong ones. Expected --nms "
                f"{' or '.join(provable)}, or {EXACT}."
            )

    def original(self, model: onnx.ModelProto, calibration: Calibration | None) -> PartsOriginal:
        """The fp32 model of a plan, as files of fewer bits are written from it: of all layers but the last, whatever chooses
        by their numbers stays float32."""
        stored = {entry.key: entry.value for entry in model.metadata_props}
        return PartsOriginal(model, json.loads(stored[INNER]), calibration)

    def own_outputs(self, path: Path, precision: str, probes: Probes, check: Verification) -> tuple[Verification, Own]:
        """What a file of fewer bits that was proven gives itself, and its verification, which says how nearly it is to give it
        elsewhere."""
        own, moved, runtime = steady_detections(path, precision, probes)
        return replace(check, own_tolerance=own_likeness(row_of(precision), moved), own_runtime=runtime), own

    @cached_property
    def verifying(self) -> DetectorVerifying:
        """What proves its files."""
        return DetectorVerifying(self.doubled.dense, self.doubled.whole, self.settings, self.entry, self.image_size)

    @cached_property
    def doubled(self) -> Doubled:
        """Both networks in float64 and with all statistics."""
        self.dense.replace_calibrated(self.checkpoint.network.calibrated)
        dense, whole = copy.deepcopy((self.dense, self.checkpoint.network))  # at once: weights stay shared
        return Doubled(dense.double(), whole.double())


def open_detector(checkpoint: Checkpoint, image_size: ImageSize, detecting: Detecting = AS_TRAINED) -> OpenDetector:
    """A detector's checkpoint as it is shipped. UserError where it cannot end so, or takes no images of that size."""
    network = checkpoint.network
    whole = whole_network(network, image_size, nms=detecting.nms, score=detecting.score, detections=detecting.detections)
    _, settings = detector_spec(whole)
    spec, _ = detector_spec(network)
    shipped = replace(checkpoint, network=whole)
    gc.collect()  # programs that torch traced are circles, and hold copies of the weights
    return OpenDetector(network, dense_spec(spec, settings, image_size), shipped, settings, image_size, detecting.nms)


def _box(plain: Mapping[str, Any]) -> BoxEntry:
    known = {one.name for one in fields(BoxEntry)} - {"extra"}
    rest = {key: value for key, value in plain.items() if key not in known}
    return BoxEntry(**{name: plain[name] for name in known}, extra=rest)
