"""Loading a cell's network on its backend: one small runner for each, all a `benchmarks.cells.cell.Runner`."""

from __future__ import annotations

import functools
from pathlib import Path

from benchmarks.cells.cell import ONNXRUNTIME_CPU, ONNXRUNTIME_CUDA, TENSORRT, Cell, CellRunner, Inputs, Options
from slimexport.target.errors import BundleError
from slimexport.target.manifest import MANIFEST, Artifact, artifact_path, read_manifest


def open_runner(cell: Cell, folder: Path, inputs: Inputs, options: Options) -> CellRunner:
    """Load `cell`'s network out of the bundle in `folder`.

    Raises BundleError where its file is not the manifest's, NotMeasured with the reason where the backend is missing, would
    fall back to another, or cannot run it, OutOfMemory where it lacks memory.
    """
    artifact = find_artifact(folder, cell.file)
    path = checked_path(folder, artifact)
    if cell.backend == ONNXRUNTIME_CPU:
        from benchmarks.runners.ort import OnnxRuntimeCpu

        return OnnxRuntimeCpu(cell, path, inputs, options)
    if cell.backend == ONNXRUNTIME_CUDA:
        from benchmarks.runners.ort_cuda import OnnxRuntimeCuda

        return OnnxRuntimeCuda(cell, path, inputs, options)
    if cell.backend == TENSORRT:
        from benchmarks.runners.trt import TensorRT

        return TensorRT(cell, path, artifact, inputs, options)
    from benchmarks.runners.torch.runners import open_torch

    return open_torch(cell, folder, inputs, options)


def find_artifact(folder: Path, file: str) -> Artifact:
    """The manifest's entry of a file. BundleError where there is none."""
    for artifact in read_manifest(folder)["artifacts"]:
        if artifact.get("file") == file:
            found: Artifact = artifact
            return found
    raise BundleError(f"{folder / MANIFEST}: has no entry for {file}. Give the bundle that the file belongs to.")


def checked_path(folder: Path, artifact: Artifact) -> Path:
    """An artifact's path, once its SHA-256 is seen to be the manifest's; read once for as long as it does not change."""
    path = folder / artifact["file"]
    stamp = (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else None
    return _checked(folder.resolve(), artifact["file"], artifact["sha256"], stamp)


@functools.cache
def _checked(folder: Path, file: str, digest: str, stamp: tuple[int, int] | None) -> Path:
    return artifact_path(folder, {"file": file, "sha256": digest})
