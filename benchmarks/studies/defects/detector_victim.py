"""A detector's file that was exported and proven, and what each way of proving makes of it once it has a defect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch

from benchmarks.studies.defects.victim import BROKEN, CAUGHT, FRESH, PASSES, Once
from slimexport.detectors.form import SCENES
from slimexport.detectors.opening import open_detector
from slimexport.detectors.sources import open_images
from slimexport.detectors.steps import detected_images
from slimexport.job import Job
from slimexport.onnx_files.graph_writer import write_graph
from slimexport.onnx_files.layer_proof.inside import record_inside
from slimexport.onnx_files.runner import onnx_runner
from slimexport.results import results_of
from slimexport.target.arrays import Array
from slimexport.target.precision import EXACT, row_of
from slimexport.target.proof.comparing import Pair
from slimexport.target.proof.detections import Agreement, agreement_of, rules_of
from slimexport.target.proof.verify import verify_again
from slimexport.target.reference import Probes
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.data.images import preprocessing_of
from slimtrain.slimmable.graph_dense import AFFINE_AND_RUNNING, stored_tensors

BATCH = 8


@dataclass(frozen=True)
class Outcome:
    """What a file with a defect comes to at export, where that was tried, and as `--verify-only` does; how its detections of
    fresh scenes differ from the right file's where it passes anywhere."""

    export: str | None
    again: str
    fresh: Agreement | None


class DetectorVictim:
    """A plan of a detector's checkpoint, and how its fp32 file is proven: on so many `probes` at least, None as an export."""

    def __init__(self, ckpt: str, width: float | None, folder: Path, probes: int | None = None) -> None:
        checkpoint = open_checkpoint(ckpt)
        self.detector = open_detector(checkpoint, checkpoint.image_size)
        preprocessing = preprocessing_of(checkpoint, checkpoint.image_size, False)
        shipped = self.detector.checkpoint
        self.plan = shipped.spec.plans[0] if width is None else shipped.spec.plan(width)
        self.path = folder / "file.onnx"
        chosen = detected_images(shipped, [self.plan], preprocessing, probes, None, choosing=True)
        self.fresh = np.stack(open_images(SCENES, preprocessing).some(FRESH, "defects"))
        self.job = Job(
            shipped,
            preprocessing,
            self.detector.count,
            chosen.images,
            (row_of(EXACT),),
            results=results_of(shipped),
            unreached=chosen.unreached,
            detector=self.detector,
        )
        self.expected = self.job.reference(self.plan)
        ((artifact, content, _),) = self.job.emit(self.plan)
        self.model = onnx.load_from_string(content)
        self.path.write_bytes(content)
        check = self.job.verify(self.path, EXACT, self.plan, self.expected)
        assert check.passed, f"the right file is not proven right: {check.reason}"
        self.check, self.artifact = check, replace(artifact, verification=check)
        self.near = self.detector.verifying.near[self.plan]
        self.inside = record_inside(self.path, EXACT, self.job.images)
        self.right = self._on_fresh()

    def try_one(self, content: bytes, at_export: bool = True) -> Outcome:
        """What comes of a file."""
        self.path.write_bytes(content)
        export = self._at_export() if at_export else None
        again = BROKEN if export == BROKEN else self._again()
        return Outcome(export, again, self._differs() if PASSES in (export, again) else None)

    def _at_export(self) -> str:
        try:
            check = self.job.verify(self.path, EXACT, self.plan, self.expected)
        except Exception:  # onnx's and onnxruntime's own kinds
            return BROKEN
        return PASSES if check.passed else CAUGHT

    def _again(self) -> str:
        probes = Probes(self.job.images, self.expected, self.detector.entry, self.near)
        try:
            check = verify_again(Once(onnx_runner(self.path, EXACT)), self.artifact, probes, None, None, self.inside)
        except Exception:  # as above
            return BROKEN
        return PASSES if check.passed else CAUGHT

    def _on_fresh(self) -> dict[str, Array]:
        runner, parts = onnx_runner(self.path, EXACT), []
        for start in range(0, FRESH, BATCH):
            given = runner(self.fresh[start : start + BATCH])
            assert isinstance(given, dict)
            parts.append(given)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _differs(self) -> Agreement:
        """How a file's detections of the fresh scenes differ from the right one's, at the tolerance that it was held to."""
        given = self._on_fresh()
        rules = rules_of(self.detector.entry, self.detector.image_size)
        assert rules is not None
        pairs = [Pair(name, given[name], values) for name, values in self.right.items()]
        return agreement_of(pairs, rules, self.check.tolerance or 0.0)

    def neighbours(self) -> Iterator[tuple[bytes, str]]:
        """Files of which one norm is that of the next switch."""
        network = self.job.checkpoint.network
        plans = list(network.spec.plans)
        place = plans.index(self.plan)
        other = stored_tensors(network, plans[place + 1 if place + 1 < len(plans) else place - 1])
        own = stored_tensors(network, self.plan)
        sizing = network.spec.sizing(self.plan, self.detector.image_size)
        for norm in network.body.of_nodes.values():
            names = [norm.stored[entry].name for entry in AFFINE_AND_RUNNING if entry in norm.stored]
            if any(len(other[name]) < len(own[name]) for name in names):
                continue
            changed = own | {name: other[name][: len(own[name])] for name in names}
            if all(torch.equal(changed[name], own[name]) for name in names):
                continue
            model = write_graph(sizing, changed, inner=self.detector.inner)
            yield model.SerializeToString(deterministic=True), norm.path
