"""A cell's file in its bundle: its entry in the manifest, and its path once its SHA-256 is seen to be the manifest's."""

from __future__ import annotations

from pathlib import Path

from slimexport.target.errors import BundleError
from slimexport.target.manifest import MANIFEST, Artifact, artifact_path, read_manifest

# Files that were seen to be their manifest's: path, SHA-256, and time and size, by which a change shows.
CHECKED: set[tuple[Path, str | None, tuple[int, int] | None]] = set()


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
