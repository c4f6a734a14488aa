"""Bundles: `manifest.json` as a value, and the files that it describes.

`manifest.json` has schema version 1; keys may be added to it, those there are stay. It is read once, by `read_manifest`, and
written from the value that this gives. Fields are its keys, in the order in which they are written.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from slimexport.target.backends import ONNX
from slimexport.target.errors import BundleError, NotProven
from slimexport.target.onnx_scan import check_onnx
from slimexport.target.records import (
    Count,
    EntryError,
    Magnitude,
    Name,
    Positive,
    Record,
    Share,
    Within,
    from_json,
    to_json,
)
from slimexport.target.tensors import BATCH, DetectorEntry, Input, Output, Result
from slimexport.target.verification import Verification
from slimtrain.base.files import file_sha256
from slimtrain.base.folders.replacing import stepped_aside
from slimtrain.base.untrusted.json_text import JsonError, parse_json, whole_letters
from slimtrain.base.untrusted.opening import read_text
from slimtrain.base.untrusted.quoting import quoted, reason

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
REFERENCE = "reference.npz"
MOST_MORE = 1 << 30  # bytes of a file beyond what the manifest says
MOST_BYTES = 32 << 20  # of a manifest: 31 widths in five precisions take half a megabyte


@dataclass(frozen=True, kw_only=True)
class Source(Record):
    """The checkpoint: its file's name, `random:NETWORK` and no SHA-256 where it is `untrained`; which `weights` were asked for
    where it holds several."""

    file: str
    sha256: str | None
    network: Name
    switches: tuple[float, ...] | None = None
    untrained: bool = False
    weights: str | None = None


@dataclass(frozen=True, kw_only=True)
class Accuracy(Record):
    """Share of right answers among `images` of the data set or folder `data`, by the file whose SHA-256 that is (None of
    earlier versions, which did not tell). Of a detector COCO's average precision in its place: of boxes `ap`, and at an IoU of
    0.5 `ap50`, of masks `ap_masks`, of keypoints `ap_keypoints`; `checkpoint_ap`: that of the slimmable network's boxes."""

    top1: Share | None = None
    images: Count
    data: str
    sha256: str | None = None
    ap: Share | None = None
    ap50: Share | None = None
    ap_masks: Share | None = None
    ap_keypoints: Share | None = None
    checkpoint_ap: Share | None = None

    @property
    def share(self) -> float | None:
        """The figure that widths are compared by: right answers, or average precision."""
        return self.ap if self.top1 is None else self.top1


@dataclass(frozen=True, kw_only=True)
class Engine(Record):
    """What an engine was built by, for and from; `batch` is its profile's smallest, usual and largest. Of one that was built
    without a GPU, what the GPU and its software are is null until one has run it; `targets` are the compute capabilities that
    it was asked to be for."""

    tensorrt: str
    cuda: str | None
    driver: str | None
    driver_cuda: str | None
    gpu: str | None
    compute_capability: str | None
    flags: tuple[str, ...]
    batch: tuple[Positive, Positive, Positive]
    workspace_bytes: Count | None
    optimization_level: int
    aux_streams: int | None
    version_compatible: bool
    hardware_compatible: bool
    library_tactics: bool
    build_seconds: Magnitude
    timing_cache: str | None
    plan_bytes: Count
    device_memory_bytes: Count | None
    layers_by_precision: Mapping[str, int]
    weighted_layers_by_precision: Mapping[str, int]
    precision_used: str
    warnings: tuple[str, ...]
    onnx: str
    onnx_sha256: str
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Rounding(Record):
    """What a smaller number format made of `weights` weights: so many are lost (rounded to zero), so many subnormal."""

    weights: Count
    underflow_to_zero: Count
    subnormal: Count


@dataclass(frozen=True, kw_only=True)
class Agreement(Record):
    """Logits next to the fp32 network's: root mean square of the differences relative to the largest absolute fp32
    logit; share of images with the same largest logit; mean cosine of the angle between both."""

    logit_distance: Magnitude
    top1_agreement: Share | None
    cosine: float


@dataclass(frozen=True, kw_only=True)
class Int8(Record):
    """How int8 was calibrated: the method taken, on so many images, by what all methods tried gave on those held back; null
    for one whose logits were not finite. `weight_bits`: 7 where weights use half of their range, for CPUs without VNNI."""

    method: str
    images: Count
    held_back: Count
    tried: Mapping[str, Agreement | None]
    weight_bits: int = 8


@dataclass(frozen=True, kw_only=True)
class FileEntry(Record):
    """A network in one format and precision: `file` is null where it was not kept, `sha256` where nothing was written.

    `width` is the width, an AutoSlim switch's number, or null of a plan without one. `macs` are of one image, `params` those
    of the file, after folding. `made_for`: the runtimes that an ONNX file is for (`precision.RUNTIMES`).
    """

    name: Name
    width: Annotated[float, Within(0, 1e6)] | None
    format: Name
    precision: Name
    file: Name | None
    sha256: str | None
    size_bytes: Count
    macs: Count
    params: Count
    activations: Count | None = None
    layers: Count | None = None
    channels: Mapping[str, Positive]
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

    @property
    def own_accuracy(self) -> Accuracy | None:
        """The accuracy, unless it was measured on another file than this entry is of."""
        accuracy = self.accuracy
        return accuracy if accuracy is None or accuracy.sha256 in (None, self.sha256) else None


@dataclass(frozen=True, kw_only=True)
class Artifact(FileEntry):
    """An entry whose file is in the bundle."""

    file: Name

    def rejected(self) -> FileEntry:
        """The entry of the file that was not kept."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return FileEntry(**{**values, "file": None})


@dataclass(frozen=True, kw_only=True)
class Manifest(Record):
    """What a bundle holds. `outputs` are those of networks that are no classifiers of images, all of them; then `output` is
    the first, its `classes` the second of its sizes. Of a `detector` these are its labels, from 1."""

    schema_version: int
    source: Source
    input: Input
    output: Output
    outputs: tuple[Result, ...] = ()
    created_by: Mapping[str, str | None]
    artifacts: tuple[Artifact, ...]
    rejected: tuple[FileEntry, ...] = ()
    detector: DetectorEntry | None = None

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

    def without(self, artifact: Artifact) -> Manifest:
        """This manifest with an artifact among what was not kept."""
        kept = tuple(other for other in self.artifacts if other.key != artifact.key)
        return replace(self, artifacts=kept).with_rejected(artifact.rejected())

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
    return whole_letters(json.dumps(value, indent=1, allow_nan=False))


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
        manifest = parse_json(read_text(path, MOST_BYTES))
    except FileNotFoundError as error:
        if aside := stepped_aside(Path(bundle)):
            raise BundleError(
                f"{bundle}: not there, as the process that was replacing it was killed; the old bundle is {aside[-1]}. Rename "
                "it, or export again."
            ) from error
        raise BundleError(
            f"{bundle}: holds no {MANIFEST}, so it is no bundle. Give the folder that slimexport wrote."
        ) from error
    except (OSError, UnicodeDecodeError, JsonError) as error:
        raise BundleError(f"{path}: cannot be read ({reason(error)}). Export again.") from error
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise BundleError(
            f"{path}: schema version {quoted(version)}, expected {SCHEMA_VERSION}. Use the slimexport that wrote it, or "
            "export again."
        )
    try:
        read = from_json(Manifest, manifest)
        read.input.check()
        read.output.check()
        for result in read.outputs:
            result.check()
        names = [result.name for result in read.outputs]
        if names and (len({read.input.name, *names}) != len(names) + 1 or names[0] != read.output.name):
            raise EntryError(f"outputs are called {quoted(names)}, expected {read.output.name!r} first, and names that differ")
        if read.detector is not None:
            read.detector.check([result.name for result in read.results])
        _check_artifacts(read)
        return read
    except EntryError as error:
        raise BundleError(f"{path}: {error}. The manifest was edited or damaged, export again.") from error


def _check_artifacts(manifest: Manifest) -> None:
    """EntryError where two artifacts are the same one, or one's accuracy is none."""
    artifacts = manifest.artifacts
    if lacking := [a.file for a in artifacts if a.accuracy is not None and a.accuracy.share is None]:
        raise EntryError(f"the accuracy of {quoted(lacking[0])} has no figure, expected top1 or ap")
    for what, keys in (("", [a.file for a in artifacts]), ("the file of ", [", ".join(a.key) for a in artifacts])):
        if twice := [key for key, times in Counter(keys).items() if times > 1]:
            raise EntryError(f"{what}{quoted(twice[0])} is there twice among the artifacts")


def artifact_path(bundle: Path, artifact: Artifact) -> Path:
    """The path of an artifact's file, once its SHA-256 is seen to be the manifest's, and, of an ONNX file, that it asks for no
    other file and runs to an end. BundleError otherwise."""
    name = artifact.file
    if Path(name).name != name:
        raise BundleError(f"{bundle / MANIFEST}: names {quoted(name)}, expected a file in the bundle's own folder.")
    path = bundle / name
    if not os.path.isfile(path):  # of a name of any length
        raise BundleError(f"{path}: named in {MANIFEST}, but not there. Copy the whole bundle, or export again.")
    check_sha256(path, artifact, "export again")
    if artifact.format == ONNX:
        check_onnx(path)
    return path


def check_sha256(path: Path, artifact: Artifact, remedy: str) -> None:
    """BundleError, which ends in `remedy`, unless the file at `path` is what an artifact's SHA-256 says. A file that is larger
    by far is not read for it."""
    if (size := path.stat().st_size) > artifact.size_bytes + MOST_MORE:
        raise BundleError(
            f"{path}: is of {size:,} bytes, {MANIFEST} says {artifact.size_bytes:,}: the file was changed or damaged. Copy "
            f"the bundle again, or {remedy}."
        )
    digest, expected = file_sha256(path), artifact.sha256
    if expected is None:
        raise BundleError(f"{path.parent / MANIFEST}: has no SHA-256 of {path.name}. Copy the bundle again, or {remedy}.")
    if digest != expected:
        raise BundleError(
            f"{path}: SHA-256 is {digest[:12]}..., {MANIFEST} says {expected[:12]}...: the file was changed or damaged. "
            f"Copy the bundle again, or {remedy}."
        )
