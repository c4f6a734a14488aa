"""A bundle's ONNX files in, verified TensorRT engines beside them out. Runs on the device that runs the engines.

Each engine is built, loaded back from disk, verified, given its name, and written into the manifest before the next begins:
whatever ends the work, what is there is whole and proven right.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slimexport.target.backends import ONNX, TRT
from slimexport.target.cuda.device import GpuDevice, require_gpu
from slimexport.target.cuda.runtime import Cuda
from slimexport.target.errors import BundleError
from slimexport.target.manifest import (
    FAILED,
    MANIFEST,
    PASSED,
    Artifact,
    Engine,
    FileEntry,
    FilesRejected,
    Manifest,
    Verification,
    artifact_path,
    dump_manifest,
    read_manifest,
)
from slimexport.target.precision import EXACT
from slimexport.target.reference import Probes, probes_of, read_reference
from slimexport.target.tensorrt.api import require_tensorrt
from slimexport.target.tensorrt.build import BuildFailed, Built, build
from slimexport.target.tensorrt.build_settings import BuildSettings
from slimexport.target.tensorrt.check import NOTHING, check_engine, why_failed
from slimexport.target.tensorrt.engine import TensorRTRunner
from slimexport.target.tensorrt.inspector import NOT_USED, PARTLY, UNKNOWN
from slimexport.target.tensorrt.orders import Order, entry_of, orders
from slimexport.target.tensorrt.timing_cache import TimingCache, cache_path
from slimtrain.base.files import file_sha256, partial_file, replace_both

log = logging.getLogger(__name__)

AFTER = "The ONNX files are written; run again with --format trt."


class EnginesFailed(FilesRejected):
    """Some engines could not be built or were not proven right."""


def build_engines(
    bundle: str | Path,
    *,
    widths: Sequence[float | str] | None = None,
    precisions: Sequence[str] = (EXACT,),
    settings: BuildSettings | None = None,
    timing_cache_folder: Path | None = None,
    started: Callable[[int], None] = lambda total: None,
    building: Callable[[str], None] = lambda file: None,
    finished: Callable[[FileEntry], None] = lambda entry: None,
) -> Manifest:
    """Build and verify engines of a bundle's networks on this machine's GPU, one after the other; the new manifest.

    `widths` (None: all; names too) and `precisions` of fp32, tf32, fp16, bf16, int8. An engine that was there is replaced
    once the new one is proven right. `started` is called with the number of engines, `building` with each file's name before
    its build, `finished` with each entry.

    Raises EnginesFailed at the end where some were not proven right: they are not in the bundle. Raises BundleError for a
    bundle that is damaged or lacks what an engine needs, UserError for an unknown precision, MissingBackend without TensorRT
    or a GPU, CudaError where the device fails.

    >>> import slimexport
    >>> _ = slimexport.export("random:us_mobilenet_v1", widths=[0.25], image_size=32, output_dir="mobilenet")
    >>> [artifact.file for artifact in slimexport.build_engines("mobilenet").artifacts]  # with TensorRT, on a GPU
    ['us_mobilenet_v1_x0_25.onnx', 'us_mobilenet_v1_x0_25.plan']
    """
    folder, settings = Path(bundle), settings or BuildSettings()
    manifest = read_manifest(folder)
    _check_results(folder, manifest)
    reference = read_reference(folder)
    trt = require_tensorrt(AFTER)
    work = orders(folder, manifest, trt, widths, precisions)
    probes = {order.source.name: probes_of(folder, manifest, order.source, reference) for order in work}
    gpu = require_gpu(AFTER)
    started(len(work))
    failures = []
    for order in work:
        building(order.file)
        job = _Job(folder, trt, gpu, settings, timing_cache_folder)
        outcome = job.make(manifest, order, probes[order.source.name])
        manifest = outcome.manifest
        if outcome.failure:
            failures.append(outcome.failure)
        finished(outcome.entry)
    if failures:
        raise EnginesFailed("\n".join(failures), manifest)
    return manifest


def _check_results(folder: Path, manifest: Manifest) -> None:
    """BundleError for outputs that engines are not run with here."""
    for result in manifest.results:
        if result.rows != 1 or result.dtype != "float32":
            raise BundleError(
                f"{folder}: its networks give {result.name}, {result.dtype} {list(result.shape)}; engines are run with "
                "float32 outputs of one row for each image. Use its ONNX files, or export a network without that output."
            )


@dataclass(frozen=True)
class _Outcome:
    """What became of an order: the manifest that tells it, the engine's entry, and why it is not in the bundle, if so."""

    manifest: Manifest
    entry: FileEntry
    failure: str = ""


@dataclass(frozen=True)
class _Job:
    """What building any engine of a bundle needs."""

    bundle: Path
    trt: Any
    gpu: tuple[Cuda, GpuDevice]
    settings: BuildSettings
    cache_folder: Path | None

    def make(self, manifest: Manifest, order: Order, probes: Probes) -> _Outcome:
        """Build and verify one engine, and write it and the manifest."""
        onnx = artifact_path(self.bundle, order.source)
        try:
            built = build(self.trt, onnx, order.emission, self.settings, self._timing_cache(order.emission.flags))
        except BuildFailed as error:
            check = Verification(status=FAILED, reason=str(error))
            return self._reject(manifest, order, replace(entry_of(order), verification=check), str(error))
        final = self.bundle / order.file
        with partial_file(final, built.plan) as partial:
            artifact, engine = self._verified(partial, order, built, probes)
            if artifact.verification.status != PASSED:
                return self._reject(manifest, order, artifact, f"{order.file}: {why_failed(artifact.verification)}.")
            precision = order.emission.precision
            if engine.precision_used == NOT_USED:
                reason = f"no layer computes in {precision}"
                counts = ", ".join(f"{count} {name}" for name, count in engine.layers_by_precision.items())
                check = replace(artifact.verification, status=FAILED, reason=reason)
                return self._reject(
                    manifest, order, replace(artifact, verification=check), f"{order.file}: {reason} ({counts})."
                )
            if engine.precision_used in (PARTLY, UNKNOWN):
                log.warning("%s: %s", order.file, _doubt(precision, engine))
            updated = manifest.with_artifact(artifact)
            path = self.bundle / MANIFEST
            with partial_file(path, dump_manifest(updated).encode()) as described:
                replace_both((partial, final), (described, path))
        return _Outcome(updated, artifact)

    def _timing_cache(self, flags: Sequence[str]) -> TimingCache:
        settings = self.settings
        flags = [*flags, *["VC"] * settings.version_compatible, *["HC"] * settings.hardware_compatible]
        return TimingCache(cache_path(self.gpu[1], self.trt.__version__, flags, self.cache_folder))

    def _verified(self, partial: Path, order: Order, built: Built, probes: Probes) -> tuple[Artifact, Engine]:
        """The entry of a plan, loaded back from disk and run."""
        engine = self._record(order, built)
        artifact = replace(entry_of(order), sha256=file_sha256(partial), size_bytes=len(built.plan), engine=engine)
        with TensorRTRunner(partial, artifact, trt=self.trt, gpu=self.gpu) as runner:
            layers = runner.layers()
            engine = replace(
                engine,
                device_memory_bytes=runner.device_memory_bytes(),
                layers_by_precision=layers.all,
                weighted_layers_by_precision=layers.weighted,
                precision_used=layers.verdict(order.emission.precision),
            )
            sizes = self.settings.batch.sizes()
            check = check_engine(runner, probes, order.emission.precision, sizes, order.source.verification)
        return replace(artifact, verification=check, engine=engine), engine

    def _record(self, order: Order, built: Built) -> Engine:
        """What is known of an engine before it has been loaded."""
        device, source = self.gpu[1], order.source
        assert source.sha256 is not None, "its file was compared with it"
        return Engine(
            tensorrt=self.trt.__version__,
            cuda=device.cuda,
            driver=device.driver,
            driver_cuda=device.driver_cuda,
            gpu=device.gpu,
            compute_capability=device.compute_capability,
            flags=built.flags,
            **self.settings.as_dict(),
            build_seconds=round(built.build_seconds, 3),
            timing_cache=built.timing_cache,
            plan_bytes=len(built.plan),
            device_memory_bytes=0,
            layers_by_precision={},
            weighted_layers_by_precision={},
            precision_used=UNKNOWN,
            warnings=built.warnings,
            onnx=source.file,
            onnx_sha256=source.sha256,
        )

    def _reject(self, manifest: Manifest, order: Order, artifact: Artifact, message: str) -> _Outcome:
        """Note in the manifest why an engine is not there; an earlier one of this name stays."""
        rejected = artifact.rejected()
        updated = manifest.with_rejected(rejected)
        path = self.bundle / MANIFEST
        with partial_file(path, dump_manifest(updated).encode()) as described:
            described.replace(path)
        earlier = (self.bundle / order.file).exists()
        remains = " The earlier engine was left as it was." if earlier else " The engine was not kept."
        return _Outcome(updated, rejected, message + remains)


def _doubt(precision: str, engine: Engine) -> str:
    """What is not sure of an engine's precision."""
    counts = engine.weighted_layers_by_precision or engine.layers_by_precision
    listed = ", ".join(f"{count} {name}" for name, count in counts.items()) or "none told"
    if engine.precision_used == PARTLY:
        return f"fewer than half of the layers with weights compute in {precision} ({listed})"
    return f"TensorRT does not tell whether {precision} is used (layers: {listed})"


def verify_engines(bundle: Path, manifest: Manifest) -> list[tuple[Artifact, Verification]]:
    """Verify every engine of a bundle on this machine against its `reference.npz`; as `verify.verify_bundle`.

    Raises as `build_engines` does, PlanMismatch for engines that were built for another machine.
    """
    engines = manifest.of_format(TRT)
    if not engines:
        raise BundleError(f"{bundle}: its manifest names no engine. Build some with --bundle {bundle} --format trt.")
    reference = read_reference(bundle)
    trt, gpu = require_tensorrt(), require_gpu()
    sources = {(artifact.name, artifact.file): artifact.verification for artifact in manifest.of_format(ONNX)}
    results = []
    for artifact in engines:
        probes = probes_of(bundle, manifest, artifact, reference)
        with TensorRTRunner(artifact_path(bundle, artifact), artifact, trt=trt, gpu=gpu) as runner:
            sizes = sorted({runner.tensors.min_batch, runner.tensors.opt_batch, runner.tensors.max_batch})
            source = NOTHING if artifact.engine is None else sources.get((artifact.name, artifact.engine.onnx), NOTHING)
            results.append((artifact, check_engine(runner, probes, artifact.precision, sizes, source)))
    return results
