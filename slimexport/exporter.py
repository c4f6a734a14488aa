"""A checkpoint in, a bundle of verified dense networks out."""

from __future__ import annotations

import copy
import importlib.metadata
import io
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from slimexport.accuracy import LabeledImages, labeled_images, measure
from slimexport.bundle_writer import BundleWriter
from slimexport.dense import dense_network, traced
from slimexport.onnx_files.calibration import Calibration, calibration_batches
from slimexport.onnx_files.graph import to_onnx
from slimexport.onnx_files.ranges import METHODS
from slimexport.onnx_files.runner import onnx_runner
from slimexport.onnx_files.writers import WRITERS, Original
from slimexport.select import select_plans
from slimexport.target.errors import NotProven
from slimexport.target.manifest import (
    MANIFEST,
    ONNX,
    REFERENCE,
    SCHEMA_VERSION,
    SKIPPED,
    UNVERIFIABLE,
    Artifact,
    Entry,
    Input,
    Manifest,
    Output,
    Source,
    Verification,
    dump_manifest,
)
from slimexport.target.precision import EXACT, Precision, files_of
from slimexport.target.runners import require_onnxruntime
from slimexport.target.verify import Probes, compare, prove
from slimtrain.base.errors import CheckpointError, UserError
from slimtrain.base.files import file_sha256
from slimtrain.base.version import __version__
from slimtrain.checkpoints.checkpoint import Checkpoint, open_checkpoint
from slimtrain.costs.cost import CostCounter
from slimtrain.data.images import Preprocessing, readable, spread_files
from slimtrain.data.noise import noise_images
from slimtrain.models.channels import ChannelPlan
from slimtrain.slimmable.calibrate import calibrate

log = logging.getLogger(__name__)

PROBES = 2
PROBE_SEED = 1  # untrained networks take their statistics from seed 0
CALIBRATION_BATCH_SIZE = 64
OVERHEAD_BYTES = 200_000  # per file, generously: graph, manifest entry, logits
Logits = NDArray[np.float64]


class VerificationFailed(NotProven):
    """Some files were not proven right. `manifest` is the bundle's, with the reasons under `rejected`."""

    def __init__(self, message: str, manifest: Manifest) -> None:
        super().__init__(message)
        self.manifest = manifest


def export(
    checkpoint: str | Path | Checkpoint,
    *,
    widths: Sequence[float] | Literal["all"] | None = None,
    macs: Sequence[int] = (),
    precisions: Sequence[str] = (EXACT,),
    int8_calibration: str = "auto",
    channels: Sequence[str | Path] = (),
    output_dir: str | Path | None = None,
    image_size: int | None = None,
    calibration_data: str | Path | None = None,
    calibration_batch_size: int = CALIBRATION_BATCH_SIZE,
    verify: bool = True,
    verify_data: str | Path | None = None,
    probes: int = PROBES,
    accuracy_data: str | Path | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    network: str | None = None,
    switches: Sequence[float] | None = None,
    config: str | Path | None = None,
    started: Callable[[int], None] = lambda total: None,
    finished: Callable[[Entry], None] = lambda entry: None,
) -> Manifest:
    """Export plans of a checkpoint as ONNX and verify each file; the bundle's manifest.

    `precisions` are fp32, fp16, bf16 and int8 (which makes two files: float32 around the int8 operators, for TensorRT 8.6
    and onnxruntime, and fp16 around them, for TensorRT 10 and later). Int8 is calibrated on `calibration_data` by
    `int8_calibration`: max, percentile, or auto, the one that agrees better with fp32 on a fifth of the images.

    `widths` (switch numbers for AutoSlim; "all" that have statistics), `macs` (budgets) and `channels` (plan files) add
    up; none of them means all widths. `image_size` in pixels (default 224, or the configuration's).
    `calibration_data` gives statistics to plans that have none. `probes` images are compared, noise or taken from the
    folder `verify_data`. `accuracy_data` (`digits`, or a folder of class folders) is what every file's accuracy is measured
    on. `dry_run` computes everything but writes and verifies nothing. `network`, `switches` and
    `config` as for `open_checkpoint`. `started` is called with the number of plans, `finished` with each artifact.

    Raises VerificationFailed when a file is not proven right: it is not in the bundle. Raises UserError and its
    subclasses for anything wrong with the input, MissingBackend without onnxruntime.
    """
    if int8_calibration not in ("auto", *METHODS):
        raise UserError(f"int8 calibration {int8_calibration!r}: expected auto, {' or '.join(METHODS)}.")
    files = tuple(file for precision in precisions for file in files_of(precision))
    calibrated = [file.option for file in files if file.calibrated]
    if calibrated and calibration_data is None:
        raise UserError(
            f"{calibrated[0]} needs images to measure activations on: give --calibration-data FOLDER, a .npy file, or digits."
        )
    if probes < 2:
        raise UserError(f"probes {probes}: at least 2 images are needed to see that logits depend on the image.")
    if accuracy_data is not None and dry_run:
        raise UserError("accuracy is measured on files, and a dry run writes none: leave out --accuracy-data or --dry-run.")
    if (verify or accuracy_data is not None) and not dry_run:
        require_onnxruntime()
    if not isinstance(checkpoint, Checkpoint):
        writer = None if output_dir is None or dry_run else BundleWriter(output_dir, overwrite=overwrite)
        if writer:
            writer.check()  # before a large file is read
        checkpoint = open_checkpoint(checkpoint, network=network, switches=switches, config=config)
    spec = checkpoint.spec
    size = checkpoint.image_size if image_size is None else image_size
    spec.check_image_size(size)
    count = CostCounter(spec, size)
    plans = select_plans(checkpoint, widths, macs, channels, count, calibrating=calibration_data is not None)
    preprocessing = Preprocessing(size, checkpoint.mean, checkpoint.std)
    images = _probe_images(preprocessing, probes, verify_data)
    labeled = None if accuracy_data is None else labeled_images(accuracy_data, checkpoint, size)
    if calibration_data is not None:
        batches = calibration_batches(calibration_data, preprocessing, calibration_batch_size)
        _calibrate(checkpoint, plans, batches, needed=not calibrated)
    job = _Job(checkpoint, preprocessing, count, images, files)
    if calibrated:
        assert calibration_data is not None
        batches = calibration_batches(calibration_data, preprocessing, calibration_batch_size)
        job.calibration = Calibration.of(batches, int8_calibration)
    started(len(plans) * len(job.files))
    if dry_run:
        described = []
        for plan in plans:
            for artifact, _ in job.emit(plan):
                described.append(artifact)
                finished(artifact)
        return job.manifest(described)
    with BundleWriter(output_dir or Path("exports") / spec.name, overwrite=overwrite) as bundle:
        return _write(job, plans, bundle, verify, labeled, finished)


def _write(
    job: _Job,
    plans: Sequence[ChannelPlan],
    bundle: BundleWriter,
    verify: bool,
    labeled: LabeledImages | None,
    finished: Callable[[Entry], None],
) -> Manifest:
    """Fill a bundle and publish what is proven right."""
    artifacts: list[Artifact] = []
    rejected: list[Entry] = []
    weight_bytes = sum(file.weight_bytes or 0 for file in job.files)
    overhead = OVERHEAD_BYTES * len(job.files)
    bundle.check_space(sum(weight_bytes * job.count(plan).params + overhead for plan in plans) + job.images.nbytes)
    reference: dict[str, NDArray[Any]] = {"images": job.images}
    with _beside(job.reference, plans) as references:
        for plan, pending in zip(plans, references, strict=True):
            for described, content in job.emit(plan):
                path = bundle.write(described.file, content)
                digest, logits = file_sha256(path), pending.result()
                check = job.verify(path, described.precision, plan, logits) if verify else described.verification
                artifact = replace(described, sha256=digest, verification=check)
                if artifact.verification.passed:
                    reference[f"logits_{plan.name}"] = logits
                    artifacts.append(artifact)
                else:
                    bundle.remove(artifact.file)
                    rejected.append(artifact.rejected())
                finished(artifact)
    if labeled is not None:
        runners = [onnx_runner(bundle.path(artifact.file), artifact.precision) for artifact in artifacts]
        accuracies = measure(runners, labeled)
        artifacts = [replace(a, accuracy=accuracy) for a, accuracy in zip(artifacts, accuracies, strict=True)]
    manifest = job.manifest(artifacts, rejected)
    publishable = bool(artifacts) and not (rejected and bundle.output.exists())
    if publishable:
        with io.BytesIO() as buffer:
            np.savez(buffer, **reference)  # type: ignore[arg-type]
            bundle.write(REFERENCE, buffer.getvalue())
        bundle.write(MANIFEST, dump_manifest(manifest).encode())
        bundle.publish()
    if rejected:
        raise VerificationFailed(_rejection(manifest, bundle.output, publishable), manifest)
    return manifest


@contextmanager
def _beside(function: Callable[[ChannelPlan], Logits], plans: Sequence[ChannelPlan]) -> Iterator[list[Future[Logits]]]:
    """Run `function` for each plan in a second thread, in order, while the caller does something else.

    torch gets one thread in each: two threads that work on different things use two cores better than two that wait
    for each other at the end of every layer, and on a busy machine that waiting took 15 times the work.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield [pool.submit(function, plan) for plan in plans]
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _rejection(manifest: Manifest, output: Path, published: bool) -> str:
    """What failed, why, what became of the rest, and what to do."""
    lines = []
    for entry in manifest.rejected:
        check = entry.verification
        if check.status == UNVERIFIABLE:
            lines.append(
                f"{entry.name}: unverifiable, the probe images' logits differ by {check.spread:.1e} of their scale "
                "only, so that most defects would go unseen. Give photographs with --verify-data FOLDER (or skip the proof "
                "with --no-verify)."
            )
        else:
            if check.least_cosine is not None:
                lines.append(
                    f"{entry.name} {entry.precision}: failed, its logits point elsewhere (cosine "
                    f"{check.cosine or float('nan'):.3f}, expected at least {check.least_cosine}). The file was not "
                    "kept. Calibrate with more images, or with --int8-calibration max."
                )
                continue
            error = check.max_rel_error
            what = "outputs that are not finite" if error is None else f"a difference of {error:.1e} of the logits' scale"
            lines.append(
                f"{entry.name}: failed, {what}, expected at most {check.tolerance:.0e}. The file was not kept. "
                "Please report this with the checkpoint's layout."
            )
    if not manifest.artifacts:
        lines.append("Nothing was written.")
    elif published:
        lines.append(f"The other {len(manifest.artifacts)} files are in {output}.")
    else:
        lines.append(f"{output} was left as it was.")
    return "\n".join(lines)


@dataclass
class _Job:
    """Everything that exporting one plan needs."""

    checkpoint: Checkpoint
    preprocessing: Preprocessing
    count: CostCounter
    images: NDArray[np.float32]
    files: tuple[Precision, ...]  # of each plan
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        traced(self.checkpoint.spec)  # before there are threads
        self.exact = copy.deepcopy(self.checkpoint.network).double()

    def emit(self, plan: ChannelPlan) -> Iterator[tuple[Artifact, bytes]]:
        """Of each file of a plan: its entry in the manifest, without hash and verification, and its content."""
        spec = self.checkpoint.spec
        dense = dense_network(self.checkpoint.network, plan)
        cost = self.count(plan)
        name = f"{spec.name}_{plan.name}"
        exact = to_onnx(dense, self.preprocessing.image_size, self._metadata(plan, cost.macs, cost.params), name)
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

    def _metadata(self, plan: ChannelPlan, macs: int, params: int) -> dict[str, str]:
        return {
            "network": self.checkpoint.spec.name,
            "width": plan.name if plan.width is None else str(plan.width),
            "channels": ",".join(f"{group}={count}" for group, count in plan.channels.items()),
            "macs": str(macs),
            "params": str(params),
            "image_size": str(self.preprocessing.image_size),
            "mean": ",".join(map(str, self.preprocessing.mean)),
            "std": ",".join(map(str, self.preprocessing.std)),
            "source_sha256": self.checkpoint.sha256 or "untrained",
            "precision": EXACT,
        }

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

    def manifest(self, artifacts: Sequence[Artifact], rejected: Sequence[Entry] = ()) -> Manifest:
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
            ),
            input=Input(
                name="input",
                channels=3,
                image_size=self.preprocessing.image_size,
                mean=checkpoint.mean,
                std=checkpoint.std,
            ),
            output=Output(name="output", classes=spec.classes),
            created_by={"slimexport": __version__, **_versions()},
            artifacts=tuple(artifacts),
            rejected=tuple(rejected),
        )


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"torch": str(torch.__version__), "onnx": onnx.__version__, "onnxruntime": None}
    for package in ("onnxruntime-gpu", "onnxruntime"):
        try:
            found["onnxruntime"] = importlib.metadata.version(package)
            break
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@torch.inference_mode()
def _logits(network: nn.Module, plan: ChannelPlan, images: NDArray[Any]) -> NDArray[Any]:
    with network.at(plan):  # type: ignore[operator]
        logits: NDArray[Any] = network(torch.from_numpy(images)).numpy()
    return logits


def _probe_images(preprocessing: Preprocessing, count: int, folder: str | Path | None) -> NDArray[np.float32]:
    """The images that every file is verified on: photographs of a folder, or noise."""
    if folder is None:
        return noise_images(count, preprocessing.image_size, PROBE_SEED)
    if not os.path.isdir(folder):
        raise UserError(f"{folder}: no such folder. --verify-data takes a folder of images.")
    images = list(readable(spread_files(Path(folder), count), preprocessing))
    if len(images) < 2:
        raise UserError(f"{folder}: at least 2 readable images are needed for verification, found {len(images)}.")
    return np.stack(images)


def _calibrate(checkpoint: Checkpoint, plans: Sequence[ChannelPlan], batches: Any, needed: bool) -> None:
    """Give statistics to the plans that have none; `needed`: the images are for nothing else."""
    network = checkpoint.network
    missing = [plan for plan in dict.fromkeys(plans) if not network.has_statistics(plan)]
    if not missing:
        if needed:
            log.warning("every width asked for has statistics in the checkpoint: --calibration-data is not used")
        return
    log.info("calibrating %s", ", ".join(plan.name for plan in missing))
    calibrate(network, missing, map(torch.from_numpy, batches))
