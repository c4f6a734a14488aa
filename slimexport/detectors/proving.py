"""A detector's file held against the slimmable network: part by part, and from image to boxes."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx

from slimexport.detector_proof.fewer_bits import prove_low_layers
from slimexport.detector_proof.parts import Parts
from slimexport.detector_proof.plugin import NOT_RUN
from slimexport.detector_proof.proof import LEAST_COSINE, at_once
from slimexport.detectors.form import TRT
from slimexport.detectors.kinds import near_equals_of, prove_detector
from slimexport.onnx_files.layer_proof.exact_weights import wrong_weight
from slimexport.onnx_files.parts.writing import PartsRecorded
from slimexport.onnx_files.runner import TWIN, onnx_runner
from slimexport.target.arrays import Array
from slimexport.target.backends import CPU
from slimexport.target.near_equals import NearEquals
from slimexport.target.precision import EXACT, Direction, row_of
from slimexport.target.proof.comparing import finite
from slimexport.target.proof.detections import Agreement, agreement_of, rules_of
from slimexport.target.proof.own_detections import near_detections
from slimexport.target.proof.running import run_on_probes
from slimexport.target.reference import Probes
from slimexport.target.runners import runs_on_cpu
from slimexport.target.tensors import DetectorEntry
from slimexport.target.verification import FAILED, IN_PART, PASSED, Verification
from slimtrain.base.image_size import ImageSize
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.detector import DetectorSettings
from slimtrain.slimmable.graph_dense import stored_tensors
from slimtrain.slimmable.network import SlimmableNetwork

NOTHING = "nothing is detected on the probe images: what chooses detections was seen on drawn values alone"


@dataclass
class DetectorVerifying:
    """The proof of a detector's files. `network`: the dense slimmable detector in float64; `whole`: the same from images to
    boxes, as files are."""

    network: SlimmableNetwork
    whole: SlimmableNetwork
    settings: DetectorSettings
    entry: DetectorEntry
    image_size: ImageSize
    right: list[tuple[onnx.ModelProto, ...]] = field(default_factory=list)  # fp32 parts that were proven right, of one plan
    near: dict[ChannelPlan, NearEquals] = field(default_factory=dict)  # what hangs on roundings, where files chose rightly

    def verify(
        self,
        path: Path,
        precision: str,
        plan: ChannelPlan,
        probes: Probes,
        recorded: PartsRecorded | None = None,
        others: Array | None = None,
    ) -> Verification:
        """The verification of the file at `path`: its parts each on what the file has before it, and what it detects on the
        probe images next to what the whole network does. Of fewer bits, each of its layers on these images and on `others`
        gives what was `recorded`.

        Where near-equals decide a proposal otherwise, what depends on it may be another detection: those count as ties, too.
        """
        if recorded is not None:
            return self._of_fewer_bits(
                path, precision, plan, probes, recorded, probes.images[:0] if others is None else others
            )
        parts = self._exact_parts(onnx.load(path), plan, probes)
        check = self._staged(precision, parts, probes)
        if self.entry.nms == TRT and parts.right:
            return replace(check, status=IN_PART, reason=NOT_RUN)
        rules = rules_of(self.entry, self.image_size)
        if rules is None or not parts.right:
            return check
        assert parts.exact is not None
        expected = {part.name: part.values for part in probes.expected}
        near = near_equals_of(parts.exact, self.settings, self.image_size, expected, parts.tolerance)
        self.near[plan] = near
        parts.exact = None  # its maps are gigabytes of large images
        runner = onnx_runner(path, precision, frugal=True)
        pairs = run_on_probes(runner, probes, self._batches(len(probes.images)))
        return _with_detections(check, parts, agreement_of(pairs, rules, parts.tolerance, near))

    def _batches(self, count: int) -> list[Array]:
        """All images at once, or large ones each alone: a whole file takes a gigabyte for each."""
        every = np.arange(count)
        return [every] if at_once(self.image_size) >= count else [every[image : image + 1] for image in range(count)]

    def _of_fewer_bits(
        self, path: Path, precision: str, plan: ChannelPlan, probes: Probes, recorded: PartsRecorded, others: Array
    ) -> Verification:
        low = prove_low_layers(path, precision, recorded, self.settings, self.image_size, probes.images, others)
        parts = self._parts(onnx.load(path), plan, probes, precision)
        check = self._staged(precision, parts, probes)
        if low.layers is not None:
            layers = low.layers
            check = replace(check, layers=layers.count, worst_layer=layers.worst, layer_error=finite(layers.error))
        if low.fault:
            return replace(check, status=FAILED, reason=low.fault)
        if not parts.right:
            return check
        if fault := self._of_base(recorded, plan, probes):  # which the layers, and what is around them, were held to
            return replace(check, status=FAILED, reason=f"{precision} is written from a model that is wrong: {fault}")
        rules = rules_of(self.entry, self.image_size)
        if rules is None:
            return check
        runner = onnx_runner(path, precision)
        return near_detections(run_on_probes(runner, probes, [np.arange(len(probes.images))]), rules, row_of(precision), check)

    def _of_base(self, recorded: PartsRecorded, plan: ChannelPlan, probes: Probes) -> str:
        """What is wrong with the fp32 model that a file is written from; nothing of one that was proven before."""
        own = recorded.bases
        if any(all(map(operator.is_, own, other)) for other in self.right):
            return ""
        base = self._exact_parts(recorded.base, plan, probes)
        if base.right:
            self.right = [*(other for other in self.right[-1:]), own]
        return base.fault

    def _exact_parts(self, model: onnx.ModelProto, plan: ChannelPlan, probes: Probes) -> Parts:
        """Those of an fp32 model, whose stored numbers are the checkpoint's, too: also those that no image shows."""
        parts = self._parts(model, plan, probes, EXACT)
        wrong = wrong_weight(model, self.whole.spec.sizing(plan, self.image_size), stored_tensors(self.whole, plan))
        if wrong:
            parts.refuse(wrong)
        return parts

    def _parts(self, model: onnx.ModelProto, plan: ChannelPlan, probes: Probes, precision: str) -> Parts:
        rest = self.network, plan, self.settings, self.image_size, probes.images, precision, self.entry.nms
        return prove_detector(model, *rest)

    def _staged(self, precision: str, parts: Parts, probes: Probes) -> Verification:
        """What came of the parts."""
        directed = isinstance(row_of(precision).proof, Direction)
        return Verification(
            status=PASSED if parts.right else FAILED,
            backend=CPU if runs_on_cpu(precision) else TWIN,
            max_rel_error=finite(parts.error),
            tolerance=None if directed else parts.tolerance,
            cosine=finite(parts.cosine) if directed else None,
            least_cosine=LEAST_COSINE if directed else None,
            output=parts.part or None,
            probes=len(probes.images),
            ties=parts.ties,
            reason=parts.fault or None,
        )


def _with_detections(check: Verification, parts: Parts, agreement: Agreement) -> Verification:
    """A verification that passed part by part, with what came of the detections."""
    status = FAILED if not agreement.right else PASSED if agreement.detections else IN_PART
    return Verification(
        **{
            **{name: getattr(check, name) for name in ("backend", "max_rel_error", "tolerance", "output", "probes")},
            "status": status,
            "reason": NOTHING if status == IN_PART else agreement.why or None,
            "detections": agreement.matched,
            "ties": parts.ties + agreement.ties,
            "box_error": finite(agreement.box_error),
            "score_error": finite(agreement.score_error),
        }
    )
