"""Bundles: `manifest.json` as a value, and the files that it describes.

`manifest.json` has schema version 1; keys may be added to it, those there are stay. It is read once, by `read_manifest`, and
written from the value that this gives. Fields are its keys, in the order in which they are written.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slimexport.target.errors import BundleError, NotProven
from slimexport.target.records import EntryError, Record, from_json, null_where, to_json
from slimexport.target.tensors import BATCH, Input, Output, Result
from slimtrain.base.files import file_sha256

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
REFERENCE = "reference.npz"
PASSED, FAILED, UNVERIFIABLE, SKIPPED = "passed", "failed", "unverifiable", "skipped"


@dataclass(frozen=True, kw_only=True)
class Source(Record):
    """The checkpoint: its file's name, `random:NETWORK` and no SHA-256 where it is `untrained`; which `weights` were asked for
    where it holds several."""

    file: str
    sha256: str | None
    network: str
    switches: tuple[float, ...] | None = None
    untrained: bool = False
    weights: str | None = None


@dataclass(frozen=True, kw_only=True)
class BatchFigures(Record):
    """An engine's outputs at one batch next to the reference; null where they are not finite."""

    batch: int
    max_rel_error: float | None
    top1_agreement: float | None
    cosine: float | None


@dataclass(frozen=True, kw_only=True)
class Verification(Record):
    """How a file was proven, or why it was not. `max_rel_error` is the largest difference relative to the largest absolute
    reference logit, `cosine` that of the logits' directions; null where outputs were not finite. Which of `tolerance` and
    `least_cosine` there is says which of the two decided. Engines tell all `batches`, the worst of which counts. Of several
    outputs the worst counts too: `output` is its name. `top1_agreement` is the share of images, or of places in dense outputs,
    whose largest class is the same; there is none of outputs that name no classes."""

    status: str
    backend: str | None = None
    max_rel_error: float | None = null_where(lambda check: check.backend is not None)
    cosine: float | None = null_where(lambda check: check.least_cosine is not None)
    least_cosine: float | None = None
    least_top1_agreement: float | None = None
    tolerance: float | None = None
    tolerance_from: str | None = None
    float32_gap: float | None = null_where(lambda check: check.tolerance is not None and check.batches is None)
    rounding_gap: float | None = None
    top1_agreement: float | None = None
    output: str | None = None
    probes: int | None = None
    spread: float | None = None
    batches: tuple[int, ...] | None = None
    by_batch: tuple[BatchFigures, ...] | None = None
    reason: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the file may stay: it was proven right, or no proof was asked for."""
        return self.status in (PASSED, SKIPPED)


@dataclass(frozen=True, kw_only=True)
class Accuracy(Record):
    """Share of right answers among `images` of the data set or folder `data`."""

    top1: float
    images: int
    data: str


@dataclass(frozen=True, kw_only=True)
class Engine(Record):
    """What an engine was built by, for and from; `batch` is its profile's smallest, usual and largest."""

    tensorrt: str
    cuda: str
    driver: str | None
    driver_cuda: str
    gpu: str
    compute_capability: str
    flags: tuple[str, ...]
    batch: tuple[int, int, int]
    workspace_bytes: int | None
    optimization_level: int
    aux_streams: int | None
    version_compatible: bool
    hardware_compatible: bool
    library_tactics: bool
    build_seconds: float
    timing_cache: str | None
    plan_bytes: int
    device_memory_bytes: int
    layers_by_precision: Mapping[str, int]
    weighted_layers_by_precision: Mapping[str, int]
    precision_used: str
    warnings: tuple[str, ...]
    onnx: str
    onnx_sha256: str


@dataclass(frozen=True, kw_only=True)
class Rounding(Record):
    """What a smaller number format made of `weights` weights: so many are lost (rounded to zero), so many subnormal."""

    weights: int
    underflow_to_zero: int
    subnormal: int


@dataclass(frozen=True, kw_only=True)
class Agreement(Record):
    """Logits next to the fp32 network's: root mean square of the differences relative to the largest absolute fp32
    logit; share of images with the same largest logit; mean cosine of the angle between both."""

    logit_distance: float
    top1_agreement: float | None
    cosine: float


@dataclass(frozen=True, kw_only=True)
class Int8(Record):
    """How int8 was calibrated: the method taken, on so many images, by what all methods tried gave on those held back; null
    for one whose logits were not finite. `weight_bits`: 7 where weights use half of their range, for CPUs without VNNI."""

    method: str
    images: int
    held_back: int
    tried: Mapping[str, Agreement | None]
    weight_bits: int = 8


@dataclass(frozen=True, kw_only=True)
class FileEntry(Record):
    """A network in one format and precision: `file` is null where it was not kept, `sha256` where nothing was written.

    `width` is the width, an AutoSlim switch's number, or null of a plan without one. `macs` are of one image, `params` those
    of the file, after folding. `made_for`: the runtimes that an ONNX file is for (`precision.RUNTIMES`).
    """

    name: str
    width: float | None
    format: str
    precision: str
    file: str | None
    sha256: str | None
    size_bytes: int
    macs: int
    params: int
    activations: int | None = None
    layers: int | None = None
    channels: Mapping[str, int]
    verification: Verification
    accuracy: Accuracy | None
    engine: Engine | None
    rounding: Rounding | None = None
    int8: Int8 | None = None
    made_for: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes an entry one of its kind."""
        return self.name, self.format, self.precision


@dataclass(frozen=True, kw_only=True)
class Artifact(FileEntry):
    """An entry whose file is in the bundle."""

    file: str

    def rejected(self) -> FileEntry:
        """The entry of the file that was not kept."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return FileEntry(**{**values, "file": None})


@dataclass(frozen=True, kw_only=True)
class Manifest(Record):
    """What a bundle holds. `outputs` are those of networks that are no classifiers of images, all of them; then `output` is
    the first, its `classes` the second of its sizes."""

    schema_version: int
    source: Source
    input: Input
    output: Output
    outputs: tuple[Result, ...] = ()
    created_by: Mapping[str, str | None]
    artifacts: tuple[Artifact, ...]
    rejected: tuple[FileEntry, ...] = ()

    @property
    def results(self) -> tuple[Result, ...]:
        """All that a network gives."""
        usual = Result(name=self.output.name, shape=(BATCH, self.output.classes), dtype="float32")
        return self.outputs or (usual,)

    @property
    def classifies(self) -> bool:
        """Whether its networks give logits [N, classes] and nothing else."""
        return not self.outputs

    def of_format(self, form: str) -> list[Artifact]:
        """The artifacts of one of FORMATS."""
        return [artifact for artifact in self.artifacts if artifact.format == form]

    def plan_name(self, artifact: FileEntry) -> str:
        """An artifact's plan: its name without the network's."""
        return artifact.name.removeprefix(f"{self.source.network}_")

    def with_artifact(self, artifact: Artifact) -> Manifest:
        """This manifest with an artifact in place of an earlier one of its kind, or at the end."""
        artifacts = list(self.artifacts)
        keys = [old.key for old in artifacts]
        if artifact.key in keys:
            artifacts[keys.index(artifact.key)] = artifact
        else:
            artifacts.append(artifact)
        return replace(self, artifacts=tuple(artifacts), rejected=self._rejected_but(artifact))

    def with_rejected(self, entry: FileEntry) -> Manifest:
        """This manifest with a note of what was not kept; an earlier artifact of its kind stays."""
        return replace(self, rejected=(*self._rejected_but(entry), entry))

    def _rejected_but(self, entry: FileEntry) -> tuple[FileEntry, ...]:
        return tuple(old for old in self.rejected if old.key != entry.key)


class FilesRejected(NotProven):
    """Some of a bundle's files were not proven right, and are not in it. `manifest` says why, under `rejected`."""

    def __init__(self, message: str, manifest: Manifest) -> None:
        super().__init__(message)
        self.manifest = manifest


def dump_manifest(manifest: Manifest) -> str:
    """The text of `manifest.json`; NaN is not JSON and is refused."""
    return dump_json(to_json(manifest)) + "\n"


def dump_json(value: Any) -> str:
    """JSON as it is written here."""
    return json.dumps(value, indent=1, allow_nan=False)


def read_manifest(bundle: str | Path) -> Manifest:
    """The manifest of a bundle's folder.

    Raises BundleError where there is none that this version reads: the key, what was found and what was expected.

    >>> import slimexport
    >>> _ = slimexport.export("random:us_mobilenet_v1", widths=[0.25], image_size=32, output_dir="mobilenet")
    >>> [(artifact.file, artifact.params) for artifact in slimexport.read_manifest("mobilenet").artifacts]
    [('us_mobilenet_v1_x0_25.onnx', 467336)]
    """
    path = Path(bundle) / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(
            f"{bundle}: holds no {MANIFEST}, so it is no bundle. Give the folder that slimexport wrote."
        ) from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BundleError(f"{path}: cannot be read ({error}). Export again.") from error
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise BundleError(
            f"{path}: schema version {version!r}, expected {SCHEMA_VERSION}. Use the slimexport that wrote it, or export "
            "again."
        )
    try:
        read = from_json(Manifest, manifest)
        read.input.check()
        read.output.check()
        for result in read.outputs:
            result.check()
        names = [result.name for result in read.outputs]
        if names and (len({read.input.name, *names}) != len(names) + 1 or names[0] != read.output.name):
            raise EntryError(f"outputs are called {names}, expected {read.output.name!r} first, and names that differ")
        return read
    except EntryError as error:
        raise BundleError(f"{path}: {error}. The manifest was edited or damaged, export again.") from error


def artifact_path(bundle: Path, artifact: Artifact) -> Path:
    """The path of an artifact's file, once its SHA-256 is seen to be the manifest's. BundleError otherwise."""
    name = artifact.file
    if Path(name).name != name:
        raise BundleError(f"{bundle / MANIFEST}: names {name!r}, expected a file in the bundle's own folder.")
    path = bundle / name
    if not path.is_file():
        raise BundleError(f"{path}: named in {MANIFEST}, but not there. Copy the whole bundle, or export again.")
    check_sha256(path, artifact, "export again")
    return path


def check_sha256(path: Path, artifact: Artifact, remedy: str) -> None:
    """BundleError, which ends in `remedy`, unless the file at `path` is what an artifact's SHA-256 says."""
    digest, expected = file_sha256(path), artifact.sha256
    if expected is None:
        raise BundleError(f"{path.parent / MANIFEST}: has no SHA-256 of {path.name}. Copy the bundle again, or {remedy}.")
    if digest != expected:
        raise BundleError(
            f"{path}: SHA-256 is {digest[:12]}..., {MANIFEST} says {expected[:12]}...: the file was changed or damaged. "
            f"Copy the bundle again, or {remedy}."
        )
