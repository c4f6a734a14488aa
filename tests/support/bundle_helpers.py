"""Values of a bundle's manifest for tests: whole ones, of which a test says what it is about."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from slimexport.target.arrays import Array
from slimexport.target.backends import ONNX, TRT
from slimexport.target.manifest import MANIFEST, REFERENCE, Artifact, Engine, Manifest, Source, dump_manifest
from slimexport.target.records import to_json
from slimexport.target.tensorrt.build_settings import BuildSettings
from slimexport.target.tensors import Input, Output
from slimexport.target.verification import Verification
from slimtrain.base.files import file_sha256
from tests.support import TESTS
from tests.support.onnx_outlines import outline

SHA256 = "0" * 64
STORED = TESTS / "slimexport" / "target" / "manifests"  # as version 0.1.0 wrote them
# Keys whose values are of the machine, or of the libraries that computed them
OF_THE_MACHINE = (
    *("sha256", "onnx_sha256", "torch", "onnxruntime", "backend", "build_seconds"),
    *("max_rel_error", "cosine", "logit_distance", "spread", "top1", "top1_agreement"),
)
PROVEN = Verification(
    status="passed",
    backend="onnxruntime-cpu",
    max_rel_error=1.1e-6,
    tolerance=1e-4,
    tolerance_from="default",
    top1_agreement=1.0,
    probes=2,
    spread=0.13,
)


def artifact(name: str = "net_x0_5", width: float | None = 0.5, precision: str = "fp32", **changes: Any) -> Artifact:
    """An ONNX file, or what `changes` make of it; its file's name follows from name, precision and format."""
    ending = "plan" if changes.get("format") == TRT else "onnx"
    values: dict[str, Any] = {
        "name": name,
        "width": width,
        "format": ONNX,
        "precision": precision,
        "file": f"{name}{'' if precision == 'fp32' else '.' + precision}.{ending}",
        "sha256": SHA256,
        "size_bytes": 10,
        "macs": 1000,
        "params": 10,
        "channels": {"stem": 8},
        "verification": PROVEN,
        "accuracy": None,
        "engine": None,
    }
    return Artifact(**{**values, **changes})


def engine(**changes: Any) -> Engine:
    """What an engine was built for, by `BuildSettings()`."""
    values: dict[str, Any] = {
        "tensorrt": "10.3.0",
        "cuda": "12.4",
        "driver": "550.54.15",
        "driver_cuda": "12.8",
        "gpu": "NVIDIA Test GPU",
        "compute_capability": "9.0",
        "flags": ("STRONGLY_TYPED",),
        **BuildSettings().as_dict(),
        "build_seconds": 1.5,
        "timing_cache": "cold",
        "plan_bytes": 10,
        "device_memory_bytes": 10,
        "layers_by_precision": {"fp32": 2},
        "weighted_layers_by_precision": {"fp32": 2},
        "precision_used": "used",
        "warnings": (),
        "onnx": "net_x0_5.onnx",
        "onnx_sha256": SHA256,
    }
    return Engine(**{**values, **changes})


def manifest(*artifacts: Artifact, network: str = "net", image_size: int = 4, classes: int = 5, **changes: Any) -> Manifest:
    """The manifest of a bundle with these files."""
    values: dict[str, Any] = {
        "schema_version": 1,
        "source": Source(file="net.pt", sha256=SHA256, network=network),
        "input": Input(name="input", channels=3, image_size=image_size, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
        "output": Output(name="output", classes=classes),
        "created_by": {"slimexport": "0.1.0", "torch": "2.14.1", "onnx": "1.23.2", "onnxruntime": None},
        "artifacts": artifacts,
    }
    return Manifest(**{**values, **changes})


def masked(text: str) -> str:
    """A manifest's text without what differs from machine to machine."""
    keys = "|".join(OF_THE_MACHINE)
    return re.sub(rf'"({keys})": ("[^"]*"|[-+.\w]+)', r'"\1": *', re.sub(r'(?<="created_by": ){[^}]*}', "*", text))


def stored_text(name: str) -> str:
    """A manifest that an earlier version wrote: `exported` or `engines`."""
    return (STORED / f"{name}.json").read_text(encoding="utf-8")


def as_json(*artifacts: Artifact, **changes: Any) -> dict[str, Any]:
    """`manifest` as JSON holds it, for a test to spoil."""
    return to_json(manifest(*artifacts, **changes))


def with_file(folder: Path, described: Artifact, content: bytes = b"") -> Artifact:
    """The artifact, with its file in `folder`: of some content that its SHA-256 is of."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / described.file
    some = f"content of {described.file}\0".encode() * 100
    path.write_bytes(content or (outline(some) if described.format == ONNX else some))
    changes: dict[str, Any] = {"sha256": file_sha256(path), "size_bytes": path.stat().st_size}
    return Artifact(**{**vars(described), **changes})


def write_manifest(folder: Path, described: Manifest) -> Path:
    """A folder with this manifest; nothing else is written."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).write_text(dump_manifest(described), encoding="utf-8")
    return folder


def edit_manifest(bundle: Path, change: Callable[[Any], object]) -> None:
    """Change what `manifest.json` holds, as JSON, in place."""
    path = bundle / MANIFEST
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_reference(bundle: Path, change: Callable[[dict[str, Array]], object]) -> None:
    """Change the arrays of `reference.npz`, by name, in place."""
    with np.load(bundle / REFERENCE) as archive:
        arrays = dict(archive)
    change(arrays)
    np.savez(bundle / REFERENCE, **arrays)
