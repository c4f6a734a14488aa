"""Bundles: `manifest.json`, `reference.npz` and the files they describe.

`manifest.json` has schema version 1; keys may be added to it, those there are stay.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimexport.target.errors import BundleError
from slimtrain.base.files import file_sha256

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
REFERENCE = "reference.npz"

Manifest = dict[str, Any]
Artifact = dict[str, Any]


def dump_manifest(manifest: Manifest) -> str:
    """The text of `manifest.json`; NaN is not JSON and is refused."""
    return json.dumps(manifest, indent=1, allow_nan=False) + "\n"


def read_manifest(bundle: Path) -> Manifest:
    """The manifest of a bundle's folder. BundleError where there is none that this version reads."""
    path = bundle / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(
            f"{bundle}: holds no {MANIFEST}, so it is no bundle. Give the folder that slimexport wrote."
        ) from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BundleError(f"{path}: cannot be read ({error}). Export again.") from error
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version != SCHEMA_VERSION or not isinstance(manifest.get("artifacts"), list):
        raise BundleError(
            f"{path}: schema version {version!r}, expected {SCHEMA_VERSION} and a list of artifacts. Use the slimexport that "
            "wrote it, or export again."
        )
    if not all(isinstance(artifact, dict) for artifact in manifest["artifacts"]):
        raise BundleError(f"{path}: its artifacts are no entries. The manifest is damaged, export again.")
    return manifest


def artifact_path(bundle: Path, artifact: Artifact) -> Path:
    """The path of an artifact's file, once its SHA-256 is seen to be the manifest's. BundleError otherwise."""
    name = artifact["file"]
    if Path(name).name != name:
        raise BundleError(f"{bundle / MANIFEST}: names {name!r}, expected a file in the bundle's own folder.")
    path = bundle / name
    if not path.is_file():
        raise BundleError(f"{path}: named in {MANIFEST}, but not there. Copy the whole bundle, or export again.")
    found = file_sha256(path)
    if found != artifact["sha256"]:
        raise BundleError(
            f"{path}: SHA-256 is {found[:12]}..., {MANIFEST} says {artifact['sha256'][:12]}...: the file was changed or "
            "damaged. Copy the bundle again, or export again."
        )
    return path


def read_reference(bundle: Path) -> dict[str, NDArray[Any]]:
    """`images` float32 [P, 3, H, W] and `logits_NAME` float64 [P, classes] per plan. BundleError if damaged."""
    path = bundle / REFERENCE
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except FileNotFoundError as error:
        raise BundleError(f"{path}: not there, so nothing can be verified. Copy the whole bundle, or export again.") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BundleError(f"{path}: cannot be read ({error}). Copy the bundle again, or export again.") from error
