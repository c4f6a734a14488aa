"""What the tests of engines share: a machine with a made-up TensorRT and GPU, and a bundle for it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimexport.target.backends import TRT
from slimexport.target.cuda import device
from slimexport.target.cuda.runtime import Cuda
from slimexport.target.manifest import Accuracy, Artifact, Manifest, read_manifest
from slimexport.target.tensorrt.build_settings import BatchRange, BuildSettings
from slimexport.target.tensorrt.engines import build_engines
from tests.support.bundle_helpers import PROVEN, artifact, manifest, with_file, write_manifest
from tests.support.cuda_fake import FakeCudart
from tests.support.trt_fake import Behaviour, fake_tensorrt, logits_of, network

CLASSES, SIZE = 5, 4
SETTINGS = BuildSettings(batch=BatchRange(1, 4, 6))
INT8_CHECK: dict[str, Any] = {"cosine": 0.999, "least_cosine": 0.97, "tolerance": None, "tolerance_from": None}


@dataclass
class Machine:
    """A board: its TensorRT, its CUDA runtime, and what they do."""

    trt: Any
    library: FakeCudart
    behaviour: Behaviour

    @property
    def gpu(self) -> tuple[Cuda, device.GpuDevice]:
        return device.require_gpu()


def machine(monkeypatch: pytest.MonkeyPatch, version: str = "10.3.0", library: FakeCudart | None = None) -> Machine:
    """This machine is such a board until the test ends; without a cache folder of its own."""
    library = library or FakeCudart()
    behaviour = Behaviour(library)
    trt = fake_tensorrt(version, behaviour)
    trt.__spec__ = ModuleSpec(trt.__name__, None)
    monkeypatch.setitem(sys.modules, trt.__name__, trt)
    monkeypatch.setattr(device, "load_cuda", lambda: Cuda(library))
    monkeypatch.setattr(device, "device_name", lambda: "NVIDIA Test GPU")
    return Machine(trt, library, behaviour)


def write_bundle(
    folder: Path, precisions: Sequence[str] = ("fp32",), widths: Sequence[float | None] = (0.5, 1.0), probes: int = 3
) -> Path:
    """A bundle of networks that the made-up TensorRT runs."""
    folder.mkdir(parents=True)
    images = np.random.default_rng(0).normal(size=(probes, 3, SIZE, SIZE)).astype(np.float32)
    reference: dict[str, Any] = {"images": images}
    artifacts = []
    for width in widths:
        plan = "p" if width is None else f"x{width}".replace(".", "_")
        reference[f"logits_{plan}"] = logits_of(images, CLASSES)
        for precision in precisions:
            check = replace(PROVEN, **INT8_CHECK) if precision.startswith("int8") else PROVEN
            accuracy = Accuracy(top1=0.9, images=10, data="digits")
            described = artifact(f"net_{plan}", width, precision, verification=check, accuracy=accuracy)
            artifacts.append(with_file(folder, described, network(precision, SIZE, CLASSES)))
    np.savez(folder / "reference.npz", **reference)
    return write_manifest(folder, manifest(*artifacts, image_size=SIZE, classes=CLASSES))


def build(bundle: Path, **options: Any) -> Manifest:
    """`build_engines` with small batches, and its timing cache beside the bundle."""
    options = {"settings": SETTINGS, "timing_cache_folder": bundle.parent / "cache", **options}
    return build_engines(bundle, **options)


def engines_of(bundle: Path, form: str = TRT) -> dict[str, Artifact]:
    """The entries of a bundle's engines of a format on disk, by file."""
    return {artifact.file: artifact for artifact in read_manifest(bundle).of_format(form)}


def refuses_measurements(config: Any, cache: Any, ignore_mismatch: bool) -> bool:
    """A configuration's `set_timing_cache` that takes empty caches only, as where another GPU took the measurements."""
    config._cache = None if cache._content else cache
    return not cache._content


def without_modules(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """These modules are not installed until the test ends."""
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has no GPU until the test ends."""
    monkeypatch.setattr(device, "load_cuda", lambda: Cuda(FakeCudart(devices=0)))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
