"""A cell's file in its bundle: its entry in the manifest, and its path once its SHA-256 is seen to be the manifest's."""

from __future__ import annotations

import functools
from pathlib import Path

from slimexport.target.errors import BundleError
from slimexport.target.manifest import MANIFEST, Artifact, artifact_path, read_manifest


def find_artifact(folder: Path, file: str) -> Artifact:
    """The manifest's entry of a file. BundleError where there is none."""
    for artifact in read_manifest(folder)["artifacts"]:
        if artifact.get("file") == file:
            entry: Artifact = artifact
            return entry
    raise BundleError(f"{folder / MANIFEST}: has no entry for {file}. Give the bundle that the file belongs to.")


def checked_path(folder: Path, artifact: Artifact) -> Path:
    """An artifact's path, once its SHA-256 is seen to be the manifest's; read once for as long as it does not change."""
    path = folder / artifact["file"]
    stamp = (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else None
    return _checked(folder.resolve(), artifact["file"], artifact["sha256"], stamp)


@functools.cache
def _checked(folder: Path, file: str, digest: str, stamp: tuple[int, int] | None) -> Path:
    return artifact_path(folder, {"file": file, "sha256": digest})
