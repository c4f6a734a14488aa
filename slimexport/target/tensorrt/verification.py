"""A bundle's engines run again, on this machine: TensorRT's, and TensorRT-RTX's, which nothing may have run before.

What was only `built` becomes `passed`, with the GPU that ran it in its entry, or goes; an engine that had been proven stays,
whatever comes out here, as any file does.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from slimexport.target.backends import ONNX, TRT
from slimexport.target.cuda.device import GpuDevice, require_gpu
from slimexport.target.errors import BundleError, MissingBackend
from slimexport.target.manifest import MANIFEST, Artifact, Manifest, artifact_path, dump_manifest
from slimexport.target.reference import probes_of, read_reference
from slimexport.target.tensorrt.check import NOTHING, check_engine
from slimexport.target.tensorrt.engine import TensorRTRunner
from slimexport.target.tensorrt.libraries import LIBRARIES, require_tensorrt
from slimexport.target.tensorrt.orders import of_gpu
from slimexport.target.verification import BUILT, FAILED, IN_PART, PASSED, UNVERIFIABLE, Verification
from slimtrain.base.errors import UserError
from slimtrain.base.files import write_atomically


def verify_engines(bundle: Path, manifest: Manifest, form: str = TRT) -> list[tuple[Artifact, Verification]]:
    """Verify every engine of a format of a bundle on this machine against its `reference.npz`; as `verify.verify_bundle`.
    Those that were only built get their verdict in the manifest, and are removed where that is not `passed`. One that does not
    load here is not proven, with the reason, and stays.

    Raises as `build_engines` does, and the first reason where no engine loads: PlanMismatch where they were built for another
    machine.
    """
    library = LIBRARIES[form]
    engines = manifest.of_format(form)
    if not engines:
        raise BundleError(
            f"{bundle}: its manifest names no {library.engine}. Build some with --bundle {bundle} --format {form}."
        )
    reference = read_reference(bundle)
    trt = require_tensorrt(library=library)
    try:
        gpu = require_gpu()
    except MissingBackend as error:
        if not library.builds_anywhere:
            raise
        reason = str(error).partition(". ")[0].rstrip(".")
        raise MissingBackend(
            f"{bundle}: {library.title} engines cannot run here, {reason}. Copy the bundle to a machine with their GPU, and "
            f"there: slimexport --bundle {bundle} --verify-only --backend {library.backend}"
        ) from error
    sources = {(artifact.name, artifact.file): artifact.verification for artifact in manifest.of_format(ONNX)}
    results: list[tuple[Artifact, Verification]] = []
    refusals: list[UserError] = []
    for artifact in engines:
        source = NOTHING if artifact.engine is None else sources.get((artifact.name, artifact.engine.onnx), NOTHING)
        try:
            probes = probes_of(bundle, manifest, artifact, reference)
            with TensorRTRunner(artifact_path(bundle, artifact), artifact, trt=trt, gpu=gpu) as runner:
                sizes = sorted({runner.tensors.min_batch, runner.tensors.opt_batch, runner.tensors.max_batch})
                check = check_engine(runner, probes, artifact.precision, sizes, source)
                memory_bytes = runner.device_memory_bytes()
        except (BundleError, MissingBackend) as error:  # says nothing of the engines after it, nor whether this one is right
            refusals.append(error)
            status = FAILED if isinstance(error, BundleError) else UNVERIFIABLE
            results.append((artifact, Verification(status=status, reason=str(error))))
            continue
        results.append((artifact, check))
        if artifact.verification.status == BUILT:
            manifest = _settle(bundle, manifest, replace(artifact, verification=check), gpu[1], memory_bytes)
    if len(refusals) == len(results):
        raise refusals[0]
    return results


def _settle(bundle: Path, manifest: Manifest, artifact: Artifact, device: GpuDevice, memory_bytes: int) -> Manifest:
    """The manifest, also on disk, once an engine that was only built has run: proven, or gone."""
    if artifact.engine is not None:
        ran_on = replace(artifact.engine, **of_gpu(device), device_memory_bytes=memory_bytes)
        artifact = replace(artifact, engine=ran_on)
    right = artifact.verification.status in (PASSED, IN_PART)
    updated = manifest.with_artifact(artifact) if right else manifest.without(artifact)
    write_atomically(bundle / MANIFEST, dump_manifest(updated).encode())
    if not right:
        (bundle / artifact.file).unlink()
    return updated
