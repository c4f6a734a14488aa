"""A bundle's ONNX files in, engines beside them out: TensorRT's, on the device that runs them, and TensorRT-RTX's, anywhere.

Each engine is built, loaded back from disk, verified, given its name, and written into the manifest before the next begins:
whatever ends the work, what is there is whole and proven right. An engine that this machine cannot run is `built`, and is
called proven nowhere until `verification` has run it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slimexport.target.backends import TRT
from slimexport.target.cuda.device import GpuDevice, require_gpu
from slimexport.target.cuda.runtime import Cuda
from slimexport.target.errors import BundleError, MissingBackend
from slimexport.target.manifest import (
    MANIFEST,
    Artifact,
    Engine,
    FileEntry,
    FilesRejected,
    Manifest,
    artifact_path,
    dump_manifest,
    read_manifest,
)
from slimexport.target.precision import EXACT
from slimexport.target.reference import Probes, probes_of, read_reference
from slimexport.target.tensorrt.api import NUMBERS, check_settings, targets
from slimexport.target.tensorrt.build import BuildFailed, Built, build
from slimexport.target.tensorrt.build_settings import BuildSettings
from slimexport.target.tensorrt.check import check_engine, why_failed
from slimexport.target.tensorrt.engine import TensorRTRunner
from slimexport.target.tensorrt.inspector import NOT_USED, PARTLY, UNKNOWN
from slimexport.target.tensorrt.libraries import LIBRARIES, library_of, require_tensorrt, titled
from slimexport.target.tensorrt.orders import Order, entry_of, of_gpu, orders
from slimexport.target.tensorrt.plan_header import runs_on
from slimexport.target.tensorrt.timing_cache import TimingCache, cache_path
from slimexport.target.verification import BUILT, FAILED, IN_PART, PASSED, Verification
from slimtrain.base.files import file_sha256, partial_file, replace_both
from slimtrain.base.folders.claim import claimed
from slimtrain.base.text import count, kinds, some

log = logging.getLogger(__name__)

AFTER = "The ONNX files are written; run again with --format {}."


class EnginesFailed(FilesRejected):
    """Some engines could not be built or were not proven right."""


def build_engines(
    bundle: str | Path,
    *,
    form: str = TRT,
    widths: Sequence[float | str] | None = None,
    precisions: Sequence[str] = (EXACT,),
    settings: BuildSettings | None = None,
    timing_cache_folder: Path | None = None,
    started: Callable[[int], None] = lambda total: None,
    building: Callable[[str], None] = lambda file: None,
    finished: Callable[[FileEntry], None] = lambda entry: None,
) -> Manifest:
    """Build and verify engines of a bundle's networks on this machine's GPU, one after the other; the new manifest. Those of
    TensorRT-RTX (`form` "trt-rtx") need no GPU here, and are `built` only where they cannot be run.

    `widths` (None: all; names too) and `precisions` of fp32, tf32, fp16, bf16, int8. An engine that was there is replaced
    once the new one is proven right. `started` is called with the number of engines, `building` with each file's name before
    its build, `finished` with each entry.

    Raises EnginesFailed at the end where some were not proven right: they are not in the bundle. Raises BundleError for a
    bundle that is damaged or lacks what an engine needs, UserError for an unknown precision or where another process builds,
    MissingBackend without TensorRT or a GPU, CudaError where the device fails.

    >>> import slimexport
    >>> _ = slimexport.export("random:us_mobilenet_v1", widths=[0.25], image_size=32, output_dir="mobilenet")
    >>> [artifact.file for artifact in slimexport.build_engines("mobilenet").artifacts]  # with TensorRT, on a GPU
    ['us_mobilenet_v1_x0_25.onnx', 'us_mobilenet_v1_x0_25.plan']
    """
    folder, settings, library = Path(bundle), settings or BuildSettings(), LIBRARIES[form]
    with claimed(folder, "Wait for it, or copy the bundle."):  # each would lose what the other notes in the manifest
        manifest = read_manifest(folder)
        _check_results(folder, manifest)
        reference = read_reference(folder)
        after = AFTER.format(form)
        trt = require_tensorrt(after, library)
        check_settings(trt, settings)
        work = orders(folder, manifest, trt, widths, precisions)
        probes = {order.source.name: probes_of(folder, manifest, order.source, reference) for order in work}
        gpu = _gpu_here(trt, settings) if library.builds_anywhere else require_gpu(after)
        started(len(work))
        failures: list[str] = []
        warnings: list[str] = []
        job = _Job(folder, trt, gpu, settings, timing_cache_folder)
        for order in work:
            building(order.file)
            outcome = job.make(manifest, order, probes[order.source.name])
            manifest = outcome.manifest
            warnings += outcome.warnings
            if outcome.failure:
                failures.append(outcome.failure)
            finished(outcome.entry)
        for line in folded(warnings):
            log.warning("%s warns: %s", titled(trt), line)
        if failures:
            raise EnginesFailed("\n".join(_once(failures)), manifest)
        return manifest


def _gpu_here(trt: Any, settings: BuildSettings) -> tuple[Cuda, GpuDevice] | None:
    """This machine's GPU, if there is one that the library knows and that engines for `settings.targets` run on."""
    try:
        gpu = require_gpu()
    except MissingBackend:
        return None
    capability = gpu[1].compute_capability
    return gpu if capability in targets(trt) and runs_on(settings.targets, capability) else None


def folded(warnings: Sequence[str]) -> tuple[str, ...]:
    """Warnings, a line for each kind: RTX says of every int8 scale what it does with it."""
    lines = []
    for first, *more in kinds(" ".join(text.split()) for text in warnings):
        alike = all(text == first for text in more)
        often = f" ({len(more) + 1} times)" if alike else f" (and {len(more)} like it)"
        lines.append(first + often * bool(more))
    return tuple(lines)


def _once(failures: Sequence[str]) -> list[str]:
    """Why engines are not in the bundle: what differs in names and figures only is told once."""
    lines = []
    for first, *more in kinds(failures):
        names = [text.partition(": ")[0] for text in more]
        lines.append(f"{first} The same for {count(len(more), 'other')}: {some(names)}." if more else first)
    return lines


def _check_results(folder: Path, manifest: Manifest) -> None:
    """BundleError for outputs that engines are not run with here."""
    for result in manifest.results:
        if result.rows != 1 or result.dtype not in NUMBERS.values():
            numbers = ", ".join(NUMBERS.values())
            raise BundleError(
                f"{folder}: its networks give {result.name}, {result.dtype} {list(result.shape)}; engines are run with "
                f"outputs of one row for each image, of {numbers}. Use its ONNX files, or export a network without that "
                "output."
            )


@dataclass(frozen=True)
class _Outcome:
    """What became of an order: the manifest that tells it, the engine's entry, and why it is not in the bundle, if so."""

    manifest: Manifest
    entry: FileEntry
    failure: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Job:
    """What building any engine of a bundle needs; no `gpu` where its engines run elsewhere."""

    bundle: Path
    trt: Any
    gpu: tuple[Cuda, GpuDevice] | None
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
            if artifact.verification.status not in (PASSED, IN_PART, BUILT):
                return self._reject(manifest, order, artifact, f"{order.file}: {why_failed(artifact.verification)}.")
            precision = order.emission.precision
            telling = not order.library.builds_anywhere  # RTX fuses networks whole; its types are the file's
            if telling and engine.precision_used == NOT_USED:
                reason = f"no layer computes in {precision}"
                counts = ", ".join(f"{count} {name}" for name, count in engine.layers_by_precision.items())
                check = replace(artifact.verification, status=FAILED, reason=reason)
                return self._reject(
                    manifest, order, replace(artifact, verification=check), f"{order.file}: {reason} ({counts})."
                )
            if telling and engine.precision_used in (PARTLY, UNKNOWN):
                log.warning("%s: %s", order.file, _doubt(precision, engine))
            updated = manifest.with_artifact(artifact)
            path = self.bundle / MANIFEST
            with partial_file(path, dump_manifest(updated).encode()) as described:
                replace_both((partial, final), (described, path))
        return _Outcome(updated, artifact, warnings=built.warnings)

    def _timing_cache(self, flags: Sequence[str]) -> TimingCache | None:
        """Where measurements are kept, if any are taken."""
        if self.gpu is None or library_of(self.trt).builds_anywhere:
            return None
        settings = self.settings
        flags = [*flags, *["VC"] * settings.version_compatible, *["HC"] * settings.hardware_compatible]
        return TimingCache(cache_path(self.gpu[1], self.trt.__version__, flags, self.cache_folder))

    def _verified(self, partial: Path, order: Order, built: Built, probes: Probes) -> tuple[Artifact, Engine]:
        """The entry of a plan, loaded back from disk and run, where it can be."""
        engine = self._record(order, built)
        artifact = replace(entry_of(order), sha256=file_sha256(partial), size_bytes=len(built.plan), engine=engine)
        if self.gpu is None:
            return replace(artifact, verification=Verification(status=BUILT)), engine
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
        source = order.source
        assert source.sha256 is not None, "its file was compared with it"
        return Engine(
            tensorrt=self.trt.__version__,
            **of_gpu(None if self.gpu is None else self.gpu[1]),
            flags=built.flags,
            **self.settings.as_dict(),
            build_seconds=round(built.build_seconds, 3),
            timing_cache=built.timing_cache,
            plan_bytes=len(built.plan),
            device_memory_bytes=None,
            layers_by_precision={},
            weighted_layers_by_precision={},
            precision_used=UNKNOWN,
            warnings=folded(built.warnings),
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
