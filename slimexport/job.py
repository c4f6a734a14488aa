"""One plan of a checkpoint as files: emitted, and held against the slimmable network."""

from __future__ import annotations

import copy
import importlib.metadata
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from torch import nn

from slimexport.onnx_files.calibration import Calibration
from slimexport.onnx_files.graph_writer import INPUT, write_graph
from slimexport.onnx_files.layer_proof.exact_weights import wrong_weight
from slimexport.onnx_files.layer_proof.proof import computes_exactly, prove_layers, why_wrong
from slimexport.onnx_files.layer_proof.steadiness import steadiness
from slimexport.onnx_files.layer_proof.stored import wrong_number
from slimexport.onnx_files.pairs import Recorded
from slimexport.onnx_files.parts.writing import PartsOriginal, PartsRecorded
from slimexport.onnx_files.runner import model_runner, onnx_runner
from slimexport.onnx_files.writers import WRITERS, Original
from slimexport.probes.choosing import most_exact
from slimexport.probes.large import batches_of
from slimexport.probes.reach import of_all_images, watching
from slimexport.references.bands import InBands
from slimexport.target.arrays import Array
from slimexport.target.backends import ONNX
from slimexport.target.manifest import SCHEMA_VERSION, Artifact, FileEntry, Manifest, Source
from slimexport.target.precision import EXACT, Difference, Precision, row_of
from slimexport.target.proof.comparing import Pair, compare_all, finite, least_spread
from slimexport.target.proof.verify import MOST_UNREACHED, held_to_more, in_part, permitted, prove
from slimexport.target.reference import Expected, Own, Probes, reference_bytes
from slimexport.target.runners import OnnxRuntimeRunner
from slimexport.target.tensors import Input, Output, Result
from slimexport.target.verification import FAILED, SKIPPED, Verification
from slimtrain.base.errors import CheckpointError
from slimtrain.base.image_size import format_size
from slimtrain.base.version import __version__
from slimtrain.checkpoints.checkpoint import Checkpoint
from slimtrain.costs.cost import Cost, CostCounter
from slimtrain.data.images import Images, Preprocessing
from slimtrain.models.channels import ChannelPlan
from slimtrain.slimmable.graph_dense import stored_tensors
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.slimmable.rounded import rounded_network
from slimtrain.tracing.outputs import tensors_of

if TYPE_CHECKING:
    from slimexport.detectors.opening import OpenDetector

log = logging.getLogger(__name__)

OVERHEAD_BYTES = 200_000  # per file, generously: manifest entry, logits, and what a graph has whatever its layers
LAYER_OVERHEAD_BYTES = (
    20_000  # of a layer, generously: nodes, and int8's scales, biases and zero points of up to 1,000 channels
)
# What a file holds beside its weights, names and shapes, for each layer: 377 to 475 bytes in all networks.
LAYER_BYTES = 400


@dataclass
class Job:
    """Everything that exporting any plan of a checkpoint needs. `images` [P, channels, H, W] are what files are verified on,
    `files` those of each plan. `class_names` are those that the files tell, by class number; none where they are not known.
    `results`: what the network gives."""

    checkpoint: Checkpoint
    preprocessing: Preprocessing
    count: CostCounter
    images: Images
    files: tuple[Precision, ...]
    calibration: Calibration | None = None
    class_names: tuple[str, ...] = ()
    results: tuple[Result, ...] = ()
    unreached: float = 0.0  # share of the channels that could be moved and are not, see `probes/choosing.py`
    more: Array | None = None  # float16 [M, channels, H, W]: files are held against these, too, as far as that is cheap
    detector: OpenDetector | None = None  # of which `checkpoint` is the network from images to boxes
    bases: list[onnx.ModelProto] = field(default_factory=list)  # of the plan at hand: fp32 models that were proven right
    of_more: dict[ChannelPlan, tuple[Expected, ...]] = field(default_factory=dict)  # what the network gives of more images
    exercised: dict[ChannelPlan, tuple[int, int]] = field(default_factory=dict)  # channels that the images move, and all
    rounded: dict[str, nn.Module] = field(default_factory=dict)  # the slimmable network in smaller numbers, by their name

    @cached_property
    def exact(self) -> SlimmableNetwork:
        """The slimmable network in float64."""
        if self.detector is not None:
            return self.detector.doubled.whole
        return copy.deepcopy(self.checkpoint.network).double()

    def describe(self, plan: ChannelPlan) -> Iterator[Artifact]:
        """What `emit` gives, without building the network: the sizes are right to about 1 %, of int8 files to 15 %."""
        cost = self.count(plan)
        for file in self.files:
            yield self._artifact(plan, cost, file, file_bytes(file, cost) + self._fixed_bytes)

    def name_of(self, plan: ChannelPlan) -> str:
        """What a plan's network is called."""
        return f"{self.checkpoint.spec.name}_{plan.name}"

    @property
    def _fixed_bytes(self) -> int:
        """What a file holds whatever its plan."""
        return 0 if self.detector is None else self.detector.fixed_bytes

    def emit(self, plan: ChannelPlan) -> Iterator[tuple[Artifact, bytes, Recorded | PartsRecorded | None]]:
        """Of each file of a plan: its entry in the manifest, without hash and verification, its content, and what that is to
        compute, if it has fewer bits than the fp32 file."""
        name, cost = self.name_of(plan), self.count(plan)
        self.bases.clear()
        exact = self._exact(plan, cost, name)
        original = Original(exact, self.calibration)
        parts = None if self.detector is None else self.detector.original(exact, self.calibration)
        for file in self.files:
            yield self._emitted(plan, cost, file, original if parts is None else parts)

    def _emitted(
        self, plan: ChannelPlan, cost: Cost, file: Precision, original: Original | PartsOriginal
    ) -> tuple[Artifact, bytes, Recorded | PartsRecorded | None]:
        """One file, of which nothing is held here."""
        written = original.write(file) if isinstance(original, PartsOriginal) else WRITERS[file.name](original)
        content = written.model.SerializeToString(deterministic=True)
        onnx.checker.check_model(content, full_check=True)
        artifact = self._artifact(plan, cost, file, len(content))
        return replace(artifact, rounding=written.rounding, int8=written.int8), content, written.recorded

    def _exact(self, plan: ChannelPlan, cost: Cost, name: str) -> onnx.ModelProto:
        """The fp32 file of a plan."""
        network = self.checkpoint.network
        sizing = network.spec.sizing(plan, self.preprocessing.image_size)
        inner = None if self.detector is None else self.detector.inner
        metadata = self._metadata(plan, cost)
        return write_graph(sizing, stored_tensors(network, plan), name=name, metadata=metadata, inner=inner)

    def _artifact(self, plan: ChannelPlan, cost: Cost, file: Precision, size_bytes: int) -> Artifact:
        """A file's entry in the manifest, as far as it is known without the file."""
        name = self.name_of(plan)
        return Artifact(
            name=name,
            width=plan.width,
            format=ONNX,
            precision=file.name,
            file=f"{name}{file.infix}.onnx",
            sha256=None,
            size_bytes=size_bytes,
            macs=cost.macs,
            params=cost.params,
            activations=cost.activations,
            layers=cost.layers,
            channels=dict(plan.channels),
            verification=Verification(status=SKIPPED),
            accuracy=None,
            engine=None,
            made_for=file.made_for if file.name != EXACT else (),  # fp32 is for all
        )

    def _metadata(self, plan: ChannelPlan, cost: Cost) -> dict[str, str]:
        """What the fp32 file says of itself; writers of other precisions change that one entry."""
        names = {"class_names": json.dumps(self.class_names)} if self.class_names else {}
        return {
            "network": self.checkpoint.spec.name,
            "width": plan.name if plan.width is None else str(plan.width),
            "channels": ",".join(f"{group}={count}" for group, count in plan.channels.items()),
            "macs": str(cost.macs),
            "params": str(cost.params),
            "image_size": format_size(self.preprocessing.image_size),
            "mean": ",".join(map(str, self.preprocessing.mean)),
            "std": ",".join(map(str, self.preprocessing.std)),
            "source_sha256": self.checkpoint.sha256 or "untrained",
            "precision": EXACT,
            **names,
            **({} if self.detector is None else self.detector.metadata),
        }

    def space_bytes(self, plans: Sequence[ChannelPlan]) -> int:
        """What the files of `plans` take on a disk at most."""
        weight_bytes = sum(file.weight_bytes or 0 for file in self.files)
        costs = [self.count(plan) for plan in plans]
        of_file = OVERHEAD_BYTES + self._fixed_bytes
        overhead = sum(len(self.files) * (of_file + LAYER_OVERHEAD_BYTES * cost.layers) for cost in costs)
        images = len(self.images) + (0 if self.more is None else len(self.more))
        outputs = reference_bytes(images, self.results)  # the reference's, and what files of fewer bits give
        probes = len(plans) * max(1, len(self.files)) * outputs + self.images.nbytes
        probes += 0 if self.more is None else self.more.nbytes
        return sum(weight_bytes * cost.params for cost in costs) + overhead + probes

    def reference(self, plan: ChannelPlan) -> tuple[Expected, ...]:
        """What the slimmable network gives in float64, logits [P, classes] or all its outputs: what every file is held
        against."""
        parts, reaches = [], []
        for batch in batches_of(self.images):
            with InBands(), watching(self.exact, len(batch)) as watcher:
                parts.append(_outputs(self.exact, plan, batch.astype(np.float64)))
            reaches.append(watcher.reach())
        outputs = [np.concatenate(arrays) if len(arrays) > 1 else arrays[0] for arrays in zip(*parts, strict=True)]
        reach = of_all_images(reaches)
        self.exercised[plan] = reach.channels - reach.still(np.arange(len(self.images))), reach.channels
        for result, values in zip(self.results, outputs, strict=True):
            if not np.isfinite(values).all():
                what = "logits that are" if len(outputs) == 1 else f"values of output {result.name} that are"
                raise CheckpointError(
                    f"{self.checkpoint.file}: at {plan.name} the checkpoint itself computes {what} not finite. Its "
                    "weights or statistics are damaged, take an earlier checkpoint."
                )
        return tuple(Expected(result.name, values) for result, values in zip(self.results, outputs, strict=True))

    def verify(
        self,
        path: Path,
        precision: str,
        plan: ChannelPlan,
        expected: tuple[Expected, ...],
        recorded: Recorded | PartsRecorded | None = None,
    ) -> Verification:
        """The verification of one file, read back from disk: it is near the checkpoint, and, where it has fewer bits, every
        layer gives what was `recorded` that it is to give. It says how many channels the images did not move."""
        if self.detector is not None:
            assert not isinstance(recorded, Recorded)
            probes, held = Probes(self.images, expected, self.detector.entry), self._held_back()
            check = self.detector.verifying.verify(path, precision, plan, probes, recorded, held)
        else:
            assert not isinstance(recorded, PartsRecorded)
            check = self._verify(path, precision, plan, expected, recorded)
        moved, channels = self.exercised[plan]
        counted = replace(check, unexercised=channels - moved, watched=channels)
        return in_part(counted, self.unreached > MOST_UNREACHED)

    def _verify(
        self, path: Path, precision: str, plan: ChannelPlan, expected: tuple[Expected, ...], recorded: Recorded | None
    ) -> Verification:
        runner = onnx_runner(path, precision, spinning=False)  # references are computed beside, and need the other cores
        check = self._prove(runner, precision, plan, expected)
        if not check.passed:
            return check
        model = onnx.load(path)
        wrong = self._wrong_weight(model, plan) if recorded is None else wrong_number(model, recorded)
        if wrong:
            return replace(check, status=FAILED, reason=wrong)
        if recorded is None or not computes_exactly(recorded):
            return check
        images = np.concatenate([self._with_cheap_ones(), self._held_back()])
        layers = prove_layers(model, recorded, images)
        check = replace(check, layers=layers.count, worst_layer=layers.worst, layer_error=finite(layers.error))
        if not layers.right:
            return replace(check, status=FAILED, reason=why_wrong(layers))
        if not any(base is recorded.base for base in self.bases):  # which the layers were held against
            base = self._prove(model_runner(recorded.base), EXACT, plan, expected)
            wrong = self._wrong_weight(recorded.base, plan)
            if not base.passed or wrong:
                more = f": {wrong}" if wrong else ""
                return replace(base, status=FAILED, reason=f"{precision} is written from a model that is wrong{more}")
            self.bases.append(recorded.base)
        return check

    def _wrong_weight(self, model: onnx.ModelProto, plan: ChannelPlan) -> str:
        """What is wrong with the weights that an fp32 model stores, in words."""
        network = self.checkpoint.network
        return wrong_weight(model, network.spec.sizing(plan, self.preprocessing.image_size), stored_tensors(network, plan))

    def _held_back(self) -> Images:
        """Some of the images that int8 is made on, which move channels that noise does not; none without them."""
        held = () if self.calibration is None else self.calibration.held
        return held[0] if held else self.images[:0]

    def own_outputs(
        self, path: Path, precision: str, expected: tuple[Expected, ...], check: Verification
    ) -> tuple[Verification, Own]:
        """What a file of fewer bits that was proven gives itself, which it is to give elsewhere too; its verification says how
        nearly."""
        if self.detector is not None:
            return self.detector.own_outputs(path, precision, Probes(self.images, expected, self.detector.entry), check)
        more = self.images[:0] if self.more is None else self.more
        tried = steadiness(path, precision, Probes(self.images, expected), more)
        held = replace(check, own_tolerance=tried.tolerance, own_shares=tried.shares, own_runtime=tried.runtime)
        return held, tried.own

    def _prove(
        self, runner: OnnxRuntimeRunner, precision: str, plan: ChannelPlan, expected: tuple[Expected, ...]
    ) -> Verification:
        def own_gap() -> float:
            if precision == EXACT:
                outputs = _outputs(self.checkpoint.network, plan, self.images)
            else:
                outputs = _outputs(self._rounded(row_of(precision).number), plan, self.images.astype(np.float64))
            given = zip(outputs, expected, strict=True)
            return compare_all([Pair(part.name, values, part.values) for values, part in given]).max_rel_error

        check = prove(runner, Probes(self.images, expected), precision, own_gap)
        if precision != EXACT or not check.passed:
            return check
        return self._on_more(runner, plan, self._with_cheap_ones()[len(self.images) :], check)

    def _with_cheap_ones(self) -> Images:
        """The probe images, and as many more as cost next to nothing, whatever runs them."""
        if self.more is None:
            return self.images
        return np.concatenate([self.images, self.more[: most_exact(self.more.shape[1:])].astype(np.float32)])

    def _on_more(self, runner: OnnxRuntimeRunner, plan: ChannelPlan, images: Images, check: Verification) -> Verification:
        """An fp32 file's verification, once it also gives of more images what the slimmable network does: in float32, and,
        where that is too far off, in float64."""
        if not len(images):
            return check
        network = self.checkpoint.network
        held = self._held_to_more(runner, network, plan, images, check)
        if not held.passed:
            single = self.of_more[plan]
            held = self._held_to_more(runner, copy.deepcopy(network).double(), plan, images.astype(np.float64), check)
            double = self.of_more[plan]
            pairs = [Pair(one.name, one.values, other.values) for one, other in zip(single, double, strict=True)]
            proof = row_of(EXACT).proof
            assert isinstance(proof, Difference)
            gap, seen = compare_all(pairs).max_rel_error, least_spread(Probes(images, double))
            if not held.passed and (held.max_rel_error or np.inf) <= permitted(proof, gap, seen):
                # images that float32 itself is too coarse for prove no more than that: a bundle keeps none of them
                del self.of_more[plan]
                return check
        return held

    def _held_to_more(
        self, runner: OnnxRuntimeRunner, network: nn.Module, plan: ChannelPlan, images: Array, check: Verification
    ) -> Verification:
        outputs = _outputs(network, plan, images)  # all at once: together they are no larger than one of a usual size
        if not all(np.isfinite(values).all() for values in outputs):  # so far from what it was made for: that says nothing
            return check
        expected = tuple(Expected(result.name, values) for result, values in zip(self.results, outputs, strict=True))
        self.of_more[plan] = expected
        return held_to_more(runner, Probes(images.astype(np.float32), expected), check)

    def _rounded(self, number: str) -> nn.Module:
        """The slimmable network with numbers rounded to `number`, made once. From the checkpoint's: `exact` is in use
        beside."""
        if number not in self.rounded:
            self.rounded[number] = rounded_network(self.checkpoint.network, number)
        return self.rounded[number]

    def manifest(self, artifacts: Sequence[Artifact], rejected: Sequence[FileEntry] = ()) -> Manifest:
        """The manifest of a bundle with these files."""
        checkpoint, spec = self.checkpoint, self.checkpoint.spec
        return Manifest(
            schema_version=SCHEMA_VERSION,
            source=Source(
                file=checkpoint.file,
                sha256=checkpoint.sha256,
                network=spec.name,
                switches=spec.switches,
                untrained=checkpoint.untrained,
                weights=checkpoint.weights,
            ),
            input=Input(
                name=INPUT,
                channels=spec.in_channels,
                image_size=self.preprocessing.image_size,
                mean=checkpoint.mean,
                std=checkpoint.std,
                whole=self.preprocessing.whole,
                exif_orientation=self.preprocessing.exif_orientation,
                shape=self.preprocessing.shape,
                padded=self.preprocessing.padded,
            ),
            output=Output(name=self.results[0].name, classes=spec.classes, class_names=self.class_names or None),
            outputs=() if spec.classifies else self.results,
            created_by={"slimexport": __version__, **_versions()},
            artifacts=tuple(artifacts),
            rejected=tuple(rejected),
            detector=None if self.detector is None else self.detector.entry,
        )


def file_bytes(file: Precision, cost: Cost) -> int:
    """About how large an ONNX file of a plan of this `cost` is."""
    return (file.weight_bytes or 0) * cost.params + LAYER_BYTES * cost.layers


def _versions() -> dict[str, str | None]:
    """Of what computed and wrote the files."""
    versions: dict[str, str | None] = {"torch": str(torch.__version__), "onnx": onnx.__version__, "onnxruntime": None}
    for package in ("onnxruntime-gpu", "onnxruntime"):
        try:
            versions["onnxruntime"] = importlib.metadata.version(package)
            break
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@torch.inference_mode()
def _outputs(network: nn.Module, plan: ChannelPlan, images: Array) -> list[Array]:
    with network.at(plan):  # type: ignore[operator]
        return [tensor.numpy() for tensor in tensors_of(network(torch.from_numpy(images)))]
