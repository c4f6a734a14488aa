"""Loading a cell's network on its backend: one small runner for each, all a `benchmarks.cells.cell.Runner`."""

from __future__ import annotations

from pathlib import Path

from benchmarks.cells.cell import ONNXRUNTIME_CPU, ONNXRUNTIME_CUDA, TENSORRT, Cell, Inputs, Options, Runner
from slimexport.target.errors import BundleError
from slimexport.target.manifest import MANIFEST, Artifact, artifact_path, read_manifest

# Files that were seen to be their manifest's: path, SHA-256, and time and size, by which a change shows.
CHECKED: set[tuple[Path, str | None, tuple[int, int] | None]] = set()


def open_runner(cell: Cell, folder: Path, inputs: Inputs, options: Options) -> Runner:
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
    for artifact in read_manifest(folder).artifacts:
        if artifact.file == file:
            return artifact
    raise BundleError(f"{folder / MANIFEST}: has no entry for {file}. Give the bundle that the file belongs to.")


def checked_path(folder: Path, artifact: Artifact) -> Path:
    """An artifact's path, once its SHA-256 is seen to be the manifest's; read once for as long as it does not change."""
    path = folder / artifact.file
    stamp = (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else None
    seen = (path.resolve(), artifact.sha256, stamp)
    if seen not in CHECKED:
        artifact_path(folder, artifact)
        CHECKED.add(seen)
    return path
