"""`reference.npz`: probe images, and what the slimmable network computes for them in float64.

`images` float32 [P, C, H, W]; `logits_x0_5` and so on float64 [P, classes], one per plan. Of several outputs each has its own:
`logits_x0_5.aux`. Of an output with many places, as a map of classes has, those at MOST_PLACES of them are kept, drawn once
for all images and plans: [P, C, places, 1], and `places` (`places.aux`) says which, counted row by row.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from slimexport.target.arrays import Array
from slimexport.target.errors import BundleError
from slimexport.target.manifest import REFERENCE, Artifact, Manifest
from slimexport.target.tensors import Result

MOST_PLACES = 4096
SEED = 2  # that places are drawn with


@dataclass(frozen=True)
class Expected:
    """What an output is for the probe images, `values` [rows of all images, C, ...]: float64, or whole numbers. `places`:
    which of the places behind the second size are there, where not all are."""

    name: str
    values: Array
    places: Array | None = None

    def of(self, images: int, chosen: Array) -> Array:
        """The values of `chosen` images, of so many."""
        rows = self.values.reshape(images, -1, *self.values.shape[1:])[chosen]
        return np.asarray(rows.reshape(-1, *self.values.shape[1:]))

    def picked(self, output: Array) -> Array:
        """The same places of an output as there are values of."""
        if self.places is None or output.ndim < 3 or math.prod(output.shape[2:]) <= self.places.max():
            return output
        return at_places(output, self.places)

    def thinned(self) -> Expected:
        """The same at MOST_PLACES, if there are more."""
        count = math.prod(self.values.shape[2:])
        if self.values.ndim < 3 or count <= MOST_PLACES:
            return self
        places = np.sort(np.random.default_rng(SEED).choice(count, MOST_PLACES, replace=False)).astype(np.int64)
        return replace(self, values=at_places(self.values, places), places=places)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a row."""
        return self.values.shape[1:]


def at_places(values: Array, places: Array) -> Array:
    """[rows, C, ...] at `places`: [rows, C, places, 1, ...], with as many dimensions."""
    flat = values.reshape(*values.shape[:2], -1)[:, :, places]
    return np.ascontiguousarray(flat.reshape(*flat.shape, *[1] * (values.ndim - 3)))


@dataclass(frozen=True)
class Probes:
    """Images float32 [P, C, H, W], or other inputs, and what the slimmable network computes for them in float64."""

    images: Array
    expected: tuple[Expected, ...]

    @staticmethod
    def of(images: Array, *outputs: Array, names: Sequence[str] = ("output",)) -> Probes:
        """Of whole outputs."""
        return Probes(images, tuple(Expected(name, values) for name, values in zip(names, outputs, strict=True)))

    def batches(self, size: int) -> list[Array]:
        """Indices of images, in as many batches of `size` as show every image, repeated where they do not fill one."""
        count = -(-len(self.images) // size)
        return list((np.arange(count * size) % len(self.images)).reshape(count, size))


def reference_arrays(plan: str, expected: Sequence[Expected]) -> Iterator[tuple[str, Array]]:
    """The entries of `reference.npz` that tell a plan's outputs."""
    for part in expected:
        thin = part.thinned()
        end = f".{part.name}" if len(expected) > 1 else ""
        yield f"logits_{plan}{end}", thin.values
        if thin.places is not None:
            yield f"places{end}", thin.places


def reference_bytes(images: int, results: Sequence[Result]) -> int:
    """What a plan's outputs take there."""
    numbers = 0
    for result in results:
        first, *behind = (*result.own_shape, 1)
        numbers += images * result.rows * first * min(math.prod(behind), MOST_PLACES)
    return 8 * numbers


def read_reference(bundle: Path) -> dict[str, Array]:
    """The arrays by name. BundleError if damaged."""
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
    probes = find_probes(bundle, manifest, manifest.plan_name(artifact), reference)
    if probes is None:
        count = len(reference["images"])
        key = f"logits_{manifest.plan_name(artifact)}"
        raise BundleError(f"{bundle / REFERENCE}: has no {key} for {count} images. Export again.")
    return probes


def find_probes(bundle: Path, manifest: Manifest, plan: str, reference: Mapping[str, Array]) -> Probes | None:
    """What the files of a plan are verified on; None where `reference.npz` has nothing of it. BundleError where what it has
    cannot be."""
    images = reference.get("images", np.empty(0))
    if images.ndim != 1 + len(manifest.input.input_shape) or images.dtype != np.float32 or not len(images):
        raise BundleError(f"{bundle / REFERENCE}: its images are {images.dtype} {list(images.shape)}. Export again.")
    results = manifest.results
    ends = [f".{result.name}" if len(results) > 1 else "" for result in results]
    if any(f"logits_{plan}{end}" not in reference for end in ends):
        return None
    expected = []
    for result, end in zip(results, ends, strict=True):
        part = Expected(result.name, reference[f"logits_{plan}{end}"], reference.get(f"places{end}"))
        if not _fits(part, result, len(images)):
            raise BundleError(
                f"{bundle / REFERENCE}: logits_{plan}{end} is {list(part.values.shape)}, which does not fit {len(images)} "
                f"images and an output {list(result.shape)}. Export again."
            )
        expected.append(part)
    return Probes(images, tuple(expected))


def _fits(part: Expected, result: Result, images: int) -> bool:
    """Whether values are of an output, for so many images. Which classes a classifier has is no question here."""
    values, places, own = part.values, part.places, result.own_shape
    if values.ndim != len(result.shape) or len(values) != images * result.rows:
        return False
    if places is None:
        return values.ndim == 2 or values.shape[1:] == own
    usable = places.ndim == 1 and places.dtype.kind in "iu" and len(places) > 0 and places.min() >= 0
    return bool(
        usable and places.max() < math.prod(own[1:]) and values.shape[1:] == (own[0], len(places), *[1] * (len(own) - 2))
    )
