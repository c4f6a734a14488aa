"""What a target does with a bundle's files: prove that they are right, and run one. No torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimexport.target.backends import BACKENDS, DEFAULT, ENGINES, FORMATS, backend_for, format_of
from slimexport.target.errors import BundleError
from slimexport.target.manifest import Artifact, Manifest, artifact_path, read_manifest
from slimexport.target.precision import EXACT
from slimexport.target.proof.verify import verify_files
from slimexport.target.runners import OpenRunner
from slimexport.target.tensorrt.verification import verify_engines
from slimexport.target.verification import PASSED, Verification
from slimtrain.base.errors import nearest
from slimtrain.base.text import some


def verify_bundle(bundle: str | Path, backend: str = DEFAULT) -> list[Artifact]:
    """Verify a bundle's files against its `reference.npz`: its ONNX files (`backend` is `onnxruntime-cpu`, `onnxruntime-cuda`
    or `openvino`), or its engines (`tensorrt`, `tensorrt-rtx`). Each comes back with the `verification` that it has now, at
    the tolerance that the manifest records. An engine that nothing had run before is removed where it is not right.

    Raises BundleError for a missing, changed or unreadable file, MissingBackend where the backend cannot run here.

    >>> import slimexport
    >>> _ = slimexport.export("random:us_mobilenet_v1", widths=[0.25], image_size=32, output_dir="mobilenet")
    >>> [artifact.verification.status for artifact in slimexport.verify_bundle("mobilenet")]
    ['passed']
    """
    _check_backend(backend)
    folder = Path(bundle)
    manifest = read_manifest(folder)
    form = format_of(backend)
    checks = verify_engines(folder, manifest, form) if form in ENGINES else verify_files(folder, manifest, backend)
    return [_verified(artifact, verification) for artifact, verification in checks]


def _verified(artifact: Artifact, verification: Verification) -> Artifact:
    """The entry as it is now. An accuracy is told of the file that it was measured on, where that was not found wrong: of
    earlier versions, which did not say on which, where the file was proven right."""
    accuracy = artifact.own_accuracy
    shown = accuracy is not None and (verification.passed if accuracy.sha256 else verification.status == PASSED)
    return replace(artifact, verification=verification, accuracy=accuracy if shown else None)


class OpenNetwork:
    """One file of a bundle, ready to run: float32 images [N, C, H, W], normalized as the manifest's `input` says, in, logits
    [N, classes] out; of a network that gives something else, its output, and of several a dictionary by name. `artifact` is
    its entry in the manifest. Close it, or use it in a `with` block."""

    def __init__(self, artifact: Artifact, runner: OpenRunner) -> None:
        self.artifact, self.backend = artifact, runner.backend
        self._runner: OpenRunner | None = runner

    def __call__(self, images: NDArray[np.float32]) -> Any:
        if self._runner is None:
            raise BundleError(f"{self.artifact.file}: is closed. Open it again.")
        return self._runner(np.ascontiguousarray(images, np.float32))

    def close(self) -> None:
        """Free what it holds; nothing happens the second time."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            runner.close()

    def __enter__(self) -> OpenNetwork:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def open_network(bundle: str | Path, which: str | float, precision: str = EXACT, *, backend: str | None = None) -> OpenNetwork:
    """Open one file of a bundle: by its name, or by its width (or switch number, or name of network) and `precision`.

    `backend` is `onnxruntime-cpu`, `onnxruntime-cuda`, `openvino`, `tensorrt`, `tensorrt-rtx`; by default the format decides:
    ONNX files run in onnxruntime on the CPU, engines in what built them. The file's SHA-256 is checked before it is loaded.

    Raises BundleError for a file that is not in the bundle, missing, changed, or not run by the backend, MissingBackend
    where the backend cannot run here.

    >>> import numpy, slimexport
    >>> _ = slimexport.export("random:us_mobilenet_v1", widths=[0.25], image_size=32, output_dir="mobilenet")
    >>> with slimexport.open_network("mobilenet", 0.25) as network:
    ...     network(numpy.zeros((2, 3, 32, 32), numpy.float32)).shape
    (2, 1000)
    """
    if backend is not None:
        _check_backend(backend)
    folder = Path(bundle)
    artifact = _find(folder, read_manifest(folder), which, precision, None if backend is None else format_of(backend))
    if artifact.format not in FORMATS:
        raise BundleError(f"{artifact.file}: has format {artifact.format!r}, expected one of {', '.join(FORMATS)}.")
    row = BACKENDS[backend or backend_for(artifact.format)]
    if artifact.format != row.format:
        raise BundleError(f"{artifact.file}: {row.name} runs {row.format} files. Use {backend_for(artifact.format)}.")
    path = artifact_path(folder, artifact)
    if reason := row.cannot_run(artifact.precision):
        raise BundleError(f"{artifact.file}: {reason}. Use another precision or backend.")
    return OpenNetwork(artifact, row.open(path, artifact))


def _check_backend(backend: str) -> None:
    if backend not in BACKENDS:
        raise BundleError(f"backend {backend!r}: not known{nearest(backend, BACKENDS)}. Available: {', '.join(BACKENDS)}.")


def _find(folder: Path, manifest: Manifest, which: str | float, precision: str, form: str | None) -> Artifact:
    """The artifact asked for: of format `form`, unless that is None: then an ONNX file comes before an engine."""
    if isinstance(which, str):
        for artifact in manifest.artifacts:
            if artifact.file == which:
                return artifact
    for wanted in FORMATS if form is None else (form,):
        for artifact in manifest.of_format(wanted):
            if which in (artifact.width, artifact.name, manifest.plan_name(artifact)) and artifact.precision == precision:
                return artifact
    files = [artifact.file for artifact in manifest.artifacts]
    close = nearest(which, files) if isinstance(which, str) else ""
    raise BundleError(f"{folder}: holds no {which} in {precision}{close}. It has {some(files)}.")
