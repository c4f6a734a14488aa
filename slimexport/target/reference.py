"""`reference.npz`: probe images, and the logits that the slimmable network computes for them in float64."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slimexport.target.arrays import Array
from slimexport.target.errors import BundleError
from slimexport.target.manifest import REFERENCE, Artifact, Manifest


@dataclass(frozen=True)
class Probes:
    """Images float32 [P, C, H, W] and the logits [P, classes] that the slimmable network computes for them in float64."""

    images: Array
    logits: Array

    def batches(self, size: int) -> list[Array]:
        """Indices of images, in as many batches of `size` as show every image, repeated where they do not fill one."""
        count = -(-len(self.images) // size)
        return list((np.arange(count * size) % len(self.images)).reshape(count, size))


def read_reference(bundle: Path) -> dict[str, Array]:
    """`images` float32 [P, C, H, W] and `logits_NAME` float64 [P, classes] per plan. BundleError if damaged."""
    path = bundle / REFERENCE
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except FileNotFoundError as error:
        raise BundleError(f"{path}: not there, so nothing can be verified. Copy the whole bundle, or export again.") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BundleError(f"{path}: cannot be read ({error}). Copy the bundle again, or export again.") from error


def probes_of(bundle: Path, manifest: Manifest, artifact: Artifact, reference: Mapping[str, Array]) -> Probes:
    """What an artifact is verified on, from a bundle's `reference.npz`. BundleError where that holds it not."""
    images = reference.get("images", np.empty(0))
    if images.ndim != 4 or images.dtype != np.float32 or not len(images):
        raise BundleError(f"{bundle / REFERENCE}: its images are {images.dtype} {list(images.shape)}. Export again.")
    key = f"logits_{manifest.plan_name(artifact)}"
    logits = reference.get(key, np.empty(0))
    if logits.ndim != 2 or len(logits) != len(images):
        raise BundleError(f"{bundle / REFERENCE}: has no {key} for {len(images)} images. Export again.")
    return Probes(images, logits)
