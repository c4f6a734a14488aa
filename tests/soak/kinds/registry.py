"""All kinds of files, by name, in the order in which they are tried."""

from __future__ import annotations

from tests.soak.kinds.bundles import Fp16OnnxKind, Fp16ReferenceKind, ManifestKind, OnnxKind, ReferenceKind
from tests.soak.kinds.checkpoints import CheckpointKind, LastKind
from tests.soak.kinds.detectors import (
    CocoKind,
    DetectorCheckpointKind,
    DetectorManifestKind,
    DetectorReferenceKind,
)
from tests.soak.kinds.kind import Kind
from tests.soak.kinds.pictures import PictureKind
from tests.soak.kinds.text_files import ConfigKind, PlanKind, ResultsKind, TableKind, TraceKind

_ALL: tuple[Kind, ...] = (
    *(ResultsKind(), ConfigKind(), ManifestKind(), ReferenceKind(), OnnxKind(), LastKind()),
    CheckpointKind("zip", "zip.pt", True),
    CheckpointKind("legacy", "legacy.pt", False),
    CheckpointKind("safetensors", "plain.safetensors", False),
    CheckpointKind("sharded", "shards", False),
    CheckpointKind("zipped", "zipped.pt.zip", True),
    *(TableKind(), PlanKind(), PictureKind(), TraceKind()),
    *(DetectorCheckpointKind(), CocoKind(), DetectorManifestKind(), DetectorReferenceKind()),
    *(Fp16ReferenceKind(), Fp16OnnxKind()),
)
KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}
