"""A checkpoint in, a bundle of verified dense networks out."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import torch

from slimexport.detectors.form import AS_TRAINED, Detecting
from slimexport.detectors.steps import Measuring, check_sources, detected_images, opened_detector, precision_of, source_of
from slimexport.job import Job
from slimexport.onnx_files.calibration import Calibration
from slimexport.onnx_files.layer_proof.inside import with_inside
from slimexport.onnx_files.methods import usual_images
from slimexport.onnx_files.runner import onnx_runner
from slimexport.onnx_files.weight_bits import weight_bits
from slimexport.probes.choosing import Chosen, choose, far_reaching, most_others, others
from slimexport.probes.large import are_large
from slimexport.probes.sources import other_images, probe_images
from slimexport.report import rejection
from slimexport.request import (
    AS_IT_IS,
    CALIBRATION_IMAGES,
    MOST_PROBES,
    PROBES,
    TO_A_NEW_FOLDER,
    USUAL_PROOF,
    CalibrationImages,
    Proof,
    Reading,
    Writing,
)
from slimexport.results import results_of, shape_of
from slimexport.select import select_plans, without_weights
from slimexport.target.arrays import Array
from slimexport.target.bundle_writer import BundleWriter
from slimexport.target.manifest import (
    MANIFEST,
    REFERENCE,
    Artifact,
    FileEntry,
    FilesRejected,
    Manifest,
    dump_manifest,
)
from slimexport.target.precision import EVERY_TARGET, EXACT, Precision, check_option, files_of
from slimexport.target.reference import IMAGES, MORE_IMAGES, Expected, logits_key, more_key, own_arrays, reference_arrays
from slimexport.target.runners import require_onnxruntime
from slimtrain.base.errors import UserError
from slimtrain.base.files import file_sha256
from slimtrain.base.image_size import ImageSize
from slimtrain.checkpoints.checkpoint import Checkpoint
from slimtrain.costs.cost import CostCounter
from slimtrain.data.class_names import class_names_for
from slimtrain.data.images import Preprocessing, preprocessing_of
from slimtrain.detection.opening import open_checkpoint
from slimtrain.models.channels import ChannelPlan
from slimtrain.slimmable.calibrate import calibrate
from slimtrain.slimmable.ordinary import ordinary_torch

if TYPE_CHECKING:
    from slimexport.detectors.opening import OpenDetector

log = logging.getLogger(__name__)


class VerificationFailed(FilesRejected):
    """Some files were not proven right."""


@ordinary_torch()
def export(
    checkpoint: str | Path | Checkpoint,
    *,
    widths: Sequence[float] | Literal["all"] | None = None,
    macs: Sequence[int] = (),
    channels: Sequence[str | Path] = (),
    precisions: Sequence[str] = (EXACT,),
    image_size: ImageSize | None = None,
    output_dir: str | Path | None = None,
    reading: Reading = AS_IT_IS,
    calibration: CalibrationImages | None = None,
    proof: Proof = USUAL_PROOF,
    writing: Writing = TO_A_NEW_FOLDER,
    detecting: Detecting = AS_TRAINED,
) -> Manifest:
    """Export plans of a checkpoint as ONNX and verify each file; the bundle's manifest.

    `checkpoint` is a path, `random:NETWORK`, or an opened one. `widths` (switch numbers for AutoSlim; "all" that have
    statistics), `macs` (budgets) and `channels` (plan files) add up; none of them means all widths. `precisions` are fp32,
    fp16, bf16 and int8 (which makes three files: in integers throughout, for CPUs; with float32 around the int8 operators, for
    TensorRT 8.6; with fp16 around them, for TensorRT 10 and later; it needs `calibration`, which may choose among them).
    `image_size` in pixels a side, or (height, width) (default 224, or the configuration's). `output_dir` is the bundle's
    folder (default `exports/NETWORK`). `detecting`: how the files of a detector end.

    Raises VerificationFailed when a file is not proven right: it is not in the bundle. Raises UserError and its
    subclasses for anything wrong with the input, MissingBackend without onnxruntime.

    >>> import slimexport
    >>> manifest = slimexport.export("random:us_mobilenet_v1", widths=[0.25], image_size=32, output_dir="mobilenet")
    >>> [(artifact.file, artifact.verification.status) for artifact in manifest.artifacts]
    [('us_mobilenet_v1_x0_25.onnx', 'passed')]
    """
    files = _files(precisions, calibration)
    _check(proof, writing)
    with ExitStack() as stack:

        def bundle_in(folder: str | Path) -> BundleWriter | None:
            """Where files are written, claimed at once: others are to know before they have worked. None in a dry run."""
            return None if writing.dry_run else stack.enter_context(BundleWriter(folder, overwrite=writing.overwrite))

        bundle = None if output_dir is None else bundle_in(output_dir)
        if not isinstance(checkpoint, Checkpoint):
            opened = without_weights(checkpoint) if writing.dry_run else None
            checkpoint = opened or open_checkpoint(
                checkpoint,
                network=reading.network,
                switches=reading.switches,
                config=reading.config,
                weights=reading.weights,
            )
        if output_dir is None:
            bundle = bundle_in(Path("exports") / checkpoint.spec.name)
        return _export(
            checkpoint, widths, macs, channels, files, image_size, reading, calibration, proof, writing, bundle, detecting
        )


def _export(
    checkpoint: Checkpoint,
    widths: Sequence[float] | Literal["all"] | None,
    macs: Sequence[int],
    channels: Sequence[str | Path],
    files: tuple[Precision, ...],
    image_size: ImageSize | None,
    reading: Reading,
    calibration: CalibrationImages | None,
    proof: Proof,
    writing: Writing,
    bundle: BundleWriter | None,
    detecting: Detecting,
) -> Manifest:
    """`export`, of an opened checkpoint, into `bundle`; a dry run without."""
    size = checkpoint.image_size if image_size is None else image_size
    checkpoint.spec.check_image_size(size)
    detector = opened_detector(checkpoint, size, detecting)
    sources = (proof.accuracy_data, proof.images, None if calibration is None else calibration.source)
    check_sources(checkpoint, detector is not None, *sources)
    if detector is not None:
        detector.check_files(files)
        checkpoint = detector.checkpoint
    results = results_of(checkpoint)
    count = CostCounter(checkpoint.spec, size) if detector is None else detector.count
    plans = select_plans(checkpoint, widths, macs, channels, count, calibrating=calibration is not None)
    preprocessing = replace(
        preprocessing_of(checkpoint, size, reading.exif_orientation),
        shape=shape_of(checkpoint),
        padded=detector is not None,
    )
    labeled = None if proof.accuracy_data is None else _measuring(checkpoint, detector, preprocessing, proof)
    names = checkpoint.class_names
    if reading.class_names is not None:
        names = class_names_for(reading.class_names, checkpoint.spec.classes, checkpoint.file)
    ranges = None
    if calibration is not None and not writing.dry_run:
        ranges = _calibrate(checkpoint, plans, calibration, preprocessing, files, detector is not None)
    integers = calibration is not None and any(file.calibrated for file in files)
    source = calibration.source if calibration is not None and integers else None
    probes = _probe_images(checkpoint, plans, preprocessing, proof, source, writing, detector is not None)
    job = Job(
        checkpoint,
        preprocessing,
        count,
        probes.images,
        files,
        ranges,
        names,
        results,
        probes.unreached,
        probes.more,
        detector,
    )
    writing.started(len(plans) * len(files))
    if bundle is None:
        if calibration is not None:  # whether there are any images is seen without taking statistics from them
            source_of(calibration.source, preprocessing, detector is not None)
        return _describe(job, plans, writing.finished)
    return _write(job, plans, bundle, proof.verify, labeled, writing.finished)


def _files(precisions: Sequence[str], calibration: CalibrationImages | None) -> tuple[Precision, ...]:
    """The files of each plan. UserError for a precision without any, and where there is nothing to calibrate them on."""
    for precision in precisions:
        check_option(precision)
    target = EVERY_TARGET if calibration is None else calibration.int8_target
    files = tuple(file for precision in dict.fromkeys(precisions) for file in files_of(precision, target))
    if calibration is None:
        for file in files:
            if file.calibrated:
                raise UserError(
                    f"{file.option} needs images to measure activations on: give --calibration-data FOLDER, a .npy file, or "
                    "digits."
                )
    return files


def _check(proof: Proof, writing: Writing) -> None:
    """UserError where both do not go together, MissingBackend where files cannot be run here."""
    if proof.accuracy_data is not None and writing.dry_run:
        raise UserError("accuracy is measured on files, and a dry run writes none: leave out --accuracy-data or --dry-run.")
    if (proof.verify or proof.accuracy_data is not None) and not writing.dry_run:
        require_onnxruntime()


def _probe_images(
    checkpoint: Checkpoint,
    plans: Sequence[ChannelPlan],
    preprocessing: Preprocessing,
    proof: Proof,
    calibrated: str | Path | None,
    writing: Writing,
    detects: bool,
) -> Chosen:
    """The images that every file is verified on, chosen so that they move the network's channels, and more."""
    if detects:
        return detected_images(
            checkpoint, plans, preprocessing, proof.probes, proof.images, choosing=proof.verify and not writing.dry_run
        )
    images, more = probe_images(checkpoint, preprocessing, proof.probes or PROBES, proof.images, calibrated)
    if writing.dry_run or not proof.verify:
        return Chosen(images)
    chosen = choose(checkpoint.network, plans, images, more, proof.probes or MOST_PROBES)
    count = len(chosen.images) + most_others(preprocessing.input_shape)
    pool = other_images(checkpoint, preprocessing, count, proof.images, calibrated)
    return replace(chosen, more=others(chosen.images, far_reaching(checkpoint.network, plans, chosen.images, pool)))


def _calibrate(
    checkpoint: Checkpoint,
    plans: Sequence[ChannelPlan],
    images: CalibrationImages,
    preprocessing: Preprocessing,
    files: Sequence[Precision],
    detects: bool,
) -> Calibration | None:
    """Give statistics to the plans that have none; what calibrated files are measured on, where there are such."""
    network, calibrated = checkpoint.network, any(file.calibrated for file in files)
    source = source_of(images.source, preprocessing, detects)
    if missing := [plan for plan in dict.fromkeys(plans) if not network.has_statistics(plan)]:
        log.info("calibrating %s", ", ".join(plan.name for plan in missing))
        batches = source.batches(images.batch_size, images.most or CALIBRATION_IMAGES, "statistics")
        calibrate(network, missing, map(torch.from_numpy, batches))
    elif not calibrated:
        log.warning("every width asked for has statistics in the checkpoint: --calibration-data is not used")
    if not calibrated:
        return None
    most = images.most or usual_images(math.prod(preprocessing.input_shape[1:]))
    batches = source.batches(images.batch_size, most, "int8")
    return Calibration.of(batches, images.int8_method, weight_bits(images.int8_weight_bits), images.int8_target)


def _measuring(checkpoint: Checkpoint, detector: OpenDetector | None, preprocessing: Preprocessing, proof: Proof) -> Measuring:
    """What measures files on the images of --accuracy-data."""
    assert proof.accuracy_data is not None
    if detector is not None:
        return precision_of(proof.accuracy_data, detector, preprocessing, proof.workers)
    from slimexport.accuracy import labeled_images, measure  # loads torchvision, a second that no other export needs

    labeled = labeled_images(proof.accuracy_data, checkpoint, preprocessing, proof.workers)
    return lambda runners, _plans, _precisions: measure(runners, labeled)


def _describe(job: Job, plans: Sequence[ChannelPlan], finished: Callable[[FileEntry], None]) -> Manifest:
    """The manifest of a bundle that is not written."""
    artifacts = [artifact for plan in plans for artifact in job.describe(plan)]
    for artifact in artifacts:
        finished(artifact)
    return job.manifest(artifacts)


def _write(
    job: Job,
    plans: Sequence[ChannelPlan],
    bundle: BundleWriter,
    verify: bool,
    measure: Measuring | None,
    finished: Callable[[FileEntry], None],
) -> Manifest:
    """Fill a bundle and publish what is proven right."""
    bundle.check_space(job.space_bytes(plans))
    artifacts: list[Artifact] = []
    rejected: list[FileEntry] = []
    reference: dict[str, Array] = {IMAGES: job.images}
    _ = job.exact  # before there are threads
    with (_in_turn if are_large(job.images) else _beside)(job.reference, plans) as references:
        for plan, pending in zip(plans, references, strict=True):
            for described, content, recorded in job.emit(plan):
                path = bundle.write(described.file, content)
                del content  # as large as the weights
                digest, logits = file_sha256(path), pending.result()
                check, own = described.verification, None
                if verify:
                    check = job.verify(path, described.precision, plan, logits, recorded)
                if check.passed and (check.layers is not None or (recorded is not None and job.detector is not None)):
                    check, own = job.own_outputs(path, described.precision, logits, check)
                artifact = replace(described, sha256=digest, verification=check)
                if verify and check.passed and (own is not None or job.detector is not None):
                    check, inside = with_inside(path, plan.name, artifact, job.images)
                    artifact, reference = replace(artifact, verification=check), reference | inside
                if check.passed:
                    reference |= dict(reference_arrays(logits_key(plan.name), logits))
                    reference |= dict(reference_arrays(more_key(plan.name), job.of_more.get(plan, ())))
                    if job.detector is not None and plan in job.detector.verifying.near:
                        reference |= dict(job.detector.verifying.near[plan].arrays(plan.name))
                    reference |= {} if own is None else dict(own_arrays(plan.name, described.precision, own))
                    if job.more is not None and (own is not None or plan in job.of_more):
                        reference[MORE_IMAGES] = job.more
                    artifacts.append(artifact)
                else:
                    bundle.remove(artifact.file)
                    rejected.append(artifact.rejected())
                finished(artifact)
    _tell_lost(artifacts)
    if measure is not None:
        runners = [onnx_runner(bundle.path(artifact.file), artifact.precision) for artifact in artifacts]
        by_name = {job.name_of(plan): plan for plan in plans}
        accuracies = measure(runners, [by_name[a.name] for a in artifacts], [a.precision for a in artifacts])
        artifacts = [replace(a, accuracy=replace(own, sha256=a.sha256)) for a, own in zip(artifacts, accuracies, strict=True)]
    manifest = job.manifest(artifacts, rejected)
    publishable = bool(artifacts) and not (rejected and bundle.output.exists())
    if publishable:
        with io.BytesIO() as buffer:
            np.savez(buffer, **reference)  # type: ignore[arg-type]
            bundle.write(REFERENCE, buffer.getvalue())
        bundle.write(MANIFEST, dump_manifest(manifest).encode())
        bundle.publish()
    if rejected:
        raise VerificationFailed(rejection(manifest, bundle.output, publishable), manifest)
    return manifest


def _tell_lost(artifacts: Sequence[Artifact]) -> None:
    """Log where weights become 0, a line for each precision, with the file that loses most."""
    for precision in dict.fromkeys(artifact.precision for artifact in artifacts):
        lossy = [
            (artifact.rounding.underflow_to_zero, artifact.rounding.weights, artifact.name)
            for artifact in artifacts
            if artifact.precision == precision and artifact.rounding and artifact.rounding.underflow_to_zero
        ]
        if lossy:
            lost, weights, name = max(lossy)
            others = f" (the most of {len(lossy)} files)" if len(lossy) > 1 else ""
            log.warning("%s: %d of %d weights become 0 in %s%s", name, lost, weights, precision, others)


class Deferred:
    """What is computed when it is asked for, and held then."""

    def __init__(self, compute: Callable[[], tuple[Expected, ...]]) -> None:
        self.result = lru_cache(maxsize=1)(compute)


Pending: TypeAlias = "Future[tuple[Expected, ...]] | Deferred"


@contextmanager
def _in_turn(
    function: Callable[[ChannelPlan], tuple[Expected, ...]], plans: Sequence[ChannelPlan]
) -> Iterator[Sequence[Pending]]:
    """`function` of each plan as `_beside`, nothing beside it: what takes so much memory should be there once."""
    yield [Deferred(partial(function, plan)) for plan in plans]


@contextmanager
def _beside(
    function: Callable[[ChannelPlan], tuple[Expected, ...]], plans: Sequence[ChannelPlan]
) -> Iterator[Sequence[Pending]]:
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
