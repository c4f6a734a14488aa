"""One plan of a checkpoint as files: emitted, and held against the slimmable network."""

from __future__ import annotations

import copy
import importlib.metadata
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from slimexport.dense import dense_network, traced
from slimexport.onnx_files.calibration import Calibration
from slimexport.onnx_files.graph import INPUT, OUTPUT, to_onnx
from slimexport.onnx_files.runner import onnx_runner
from slimexport.onnx_files.writers import WRITERS, Original
from slimexport.target.arrays import Array
from slimexport.target.backends import ONNX
from slimexport.target.manifest import (
    SCHEMA_VERSION,
    SKIPPED,
    Artifact,
    FileEntry,
    Input,
    Manifest,
    Output,
    Source,
    Verification,
)
from slimexport.target.precision import EXACT, Precision
from slimexport.target.reference import Probes
from slimexport.target.verify import compare, prove
from slimtrain.base.errors import CheckpointError
from slimtrain.base.version import __version__
from slimtrain.checkpoints.checkpoint import Checkpoint
from slimtrain.costs.cost import Cost, CostCounter
from slimtrain.data.images import Images, Preprocessing
from slimtrain.models.channels import ChannelPlan

log = logging.getLogger(__name__)

OVERHEAD_BYTES = 200_000  # per file, generously: graph, manifest entry, logits
Logits = NDArray[np.float64]


@dataclass
class Job:
    """Everything that exporting any plan of a checkpoint needs. `images` [P, 3, S, S] are what files are verified on, `files`
    those of each plan. `class_names` are those that the files tell, by class number; none where they are not known."""

    checkpoint: Checkpoint
    preprocessing: Preprocessing
    count: CostCounter
    images: Images
    files: tuple[Precision, ...]
    calibration: Calibration | None = None
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        traced(self.checkpoint.spec)  # before there are threads
        self.exact = copy.deepcopy(self.checkpoint.network).double()

    def emit(self, plan: ChannelPlan) -> Iterator[tuple[Artifact, bytes]]:
        """Of each file of a plan: its entry in the manifest, without hash and verification, and its content."""
        name, cost = f"{self.checkpoint.spec.name}_{plan.name}", self.count(plan)
        dense = dense_network(self.checkpoint.network, plan)
        exact = to_onnx(dense, self.preprocessing.image_size, self._metadata(plan, cost), name)
        del dense
        original = Original(exact, self.calibration)
        for file in self.files:
            written = WRITERS[file.name](original)
            if written.rounding and (lost := written.rounding.underflow_to_zero):
                log.warning("%s: %d of %d weights become 0 in %s", name, lost, written.rounding.weights, file.name)
            content = written.model.SerializeToString(deterministic=True)
            onnx.checker.check_model(content, full_check=True)
            artifact = Artifact(
                name=name,
                width=plan.width,
                format=ONNX,
                precision=file.name,
                file=f"{name}{file.infix}.onnx",
                sha256=None,
                size_bytes=len(content),
                macs=cost.macs,
                params=cost.params,
                activations=cost.activations,
                layers=cost.layers,
                channels=dict(plan.channels),
                verification=Verification(status=SKIPPED),
                accuracy=None,
                engine=None,
                rounding=written.rounding,
                int8=written.int8,
            )
            yield artifact, content

    def _metadata(self, plan: ChannelPlan, cost: Cost) -> dict[str, str]:
        """What the fp32 file says of itself; writers of other precisions change that one entry."""
        names = {"class_names": json.dumps(self.class_names)} if self.class_names else {}
        return {
            "network": self.checkpoint.spec.name,
            "width": plan.name if plan.width is None else str(plan.width),
            "channels": ",".join(f"{group}={count}" for group, count in plan.channels.items()),
            "macs": str(cost.macs),
            "params": str(cost.params),
            "image_size": str(self.preprocessing.image_size),
            "mean": ",".join(map(str, self.preprocessing.mean)),
            "std": ",".join(map(str, self.preprocessing.std)),
            "source_sha256": self.checkpoint.sha256 or "untrained",
            "precision": EXACT,
            **names,
        }

    def space_bytes(self, plans: Sequence[ChannelPlan]) -> int:
        """What the files of `plans` take on a disk at most."""
        weight_bytes = sum(file.weight_bytes or 0 for file in self.files)
        overhead = OVERHEAD_BYTES * len(self.files)
        return sum(weight_bytes * self.count(plan).params + overhead for plan in plans) + self.images.nbytes

    def reference(self, plan: ChannelPlan) -> Logits:
        """Logits [P, classes] of the slimmable network in float64: what every file is held against."""
        logits = _logits(self.exact, plan, self.images.astype(np.float64))
        if not np.isfinite(logits).all():
            raise CheckpointError(
                f"{self.checkpoint.file}: at {plan.name} the checkpoint itself computes logits that are not finite. Its "
                "weights or statistics are damaged, take an earlier checkpoint."
            )
        return logits

    def verify(self, path: Path, precision: str, plan: ChannelPlan, logits: Logits) -> Verification:
        """The verification of one file, read back from disk."""

        def float32_gap() -> float:
            return compare(_logits(self.checkpoint.network, plan, self.images), logits).max_rel_error

        return prove(onnx_runner(path, precision), Probes(self.images, logits), precision, float32_gap)

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
                channels=3,
                image_size=self.preprocessing.image_size,
                mean=checkpoint.mean,
                std=checkpoint.std,
            ),
            output=Output(name=OUTPUT, classes=spec.classes, class_names=self.class_names or None),
            created_by={"slimexport": __version__, **_versions()},
            artifacts=tuple(artifacts),
            rejected=tuple(rejected),
        )


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
def _logits(network: nn.Module, plan: ChannelPlan, images: Array) -> Array:
    with network.at(plan):  # type: ignore[operator]
        logits: Array = network(torch.from_numpy(images)).numpy()
    return logits
