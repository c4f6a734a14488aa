"""`reference.npz`: probe images, and what the slimmable network computes for them in float64.

`images` float32 [P, C, H, W]; `logits_x0_5` and so on float64 [P, classes], one per plan; `file_x0_5.int8` and so on what a
file of fewer bits itself gave when it was proven, of these images and of `more_images`, float16 [M, C, H, W], and
`moved_x0_5.int8` [P + M] how far roundings move each of them; `more_x0_5` what the slimmable network gives in float32 of more
images. Of several outputs each has its own: `logits_x0_5.aux`. Of an output with
many places, as a map of classes has, those at MOST_PLACES of them are kept, drawn once for all images and plans:
[P, C, places, 1], and `places` (`places.aux`) says which, counted row by row.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from slimexport.target.arrays import Array, Header, NpyError, array_in, header_in
from slimexport.target.errors import BundleError
from slimexport.target.manifest import REFERENCE, Artifact, Manifest, read_manifest
from slimexport.target.near_equals import MOST_NUMBERS, NEAR, NearEquals, near_in
from slimexport.target.tensors import DetectorEntry, Result
from slimtrain.base.untrusted.quoting import quoted, reason
from slimtrain.base.untrusted.zip_members import ZipError, open_zip

MOST_PLACES = 4096
MOST_IMAGES = 4096
MOST_BYTES = 1 << 30  # of all arrays, unless what the manifest says asks for more
IMAGES, MORE_IMAGES = "images", "more_images"
TOGETHER = 8  # of more images are run at once
NUMBER_BYTES = 8
SEED = 2  # that places are drawn with
INSIDE, MOST_INSIDE = "inside_", 1 << 19  # what a file's layers gave, by these names; numbers of one such array
OTHERS = {NEAR: MOST_NUMBERS, INSIDE: MOST_INSIDE}  # arrays that are no outputs


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
    """Images float32 [P, C, H, W], or other inputs, and what the slimmable network computes for them in float64; which
    `detector` that is, if it is one, and what of its choices hangs on roundings (`near`; None of earlier versions)."""

    images: Array
    expected: tuple[Expected, ...]
    detector: DetectorEntry | None = None
    near: NearEquals | None = None

    @staticmethod
    def of(images: Array, *outputs: Array, names: Sequence[str] = ("output",)) -> Probes:
        """Of whole outputs."""
        return Probes(images, tuple(Expected(name, values) for name, values in zip(names, outputs, strict=True)))

    def near_of(self, batches: Sequence[Array]) -> NearEquals | None:
        """What hangs on roundings, of the images of these batches after each other."""
        return None if self.near is None else self.near.chosen(np.concatenate(batches))

    def batches(self, size: int) -> list[Array]:
        """Indices of images, in as many batches of `size` as show every image, repeated where they do not fill one."""
        count = -(-len(self.images) // size)
        return list((np.arange(count * size) % len(self.images)).reshape(count, size))


@dataclass(frozen=True)
class Own:
    """What a file of fewer bits gave itself, when it was proven, of `images` [N, ...]: the probe images, so many as `first`
    says, and more that nothing else is held against. `moved`, of each output: how far roundings that fall otherwise move what
    it gives of each image [N], as a root mean square, relative to the scale of all; None of earlier versions."""

    images: Array
    first: int
    expected: tuple[Expected, ...]
    moved: tuple[Array, ...] | None = None

    @property
    def whole(self) -> Probes:
        """All of it."""
        return Probes(self.images, self.expected)

    @property
    def probes(self) -> Probes:
        """That of the probe images."""
        count, chosen = len(self.images), np.arange(self.first)
        return Probes(self.images[: self.first], tuple(replace(one, values=one.of(count, chosen)) for one in self.expected))

    @property
    def batches(self) -> list[Array]:
        """How all images are run: those of the probe images at once, the others a few at a time."""
        return own_batches(len(self.images), self.first)


def own_batches(count: int, first: int) -> list[Array]:
    """Indices of `count` images, the first ones at once, the others a few at a time."""
    return [np.arange(first), *(first + batch for batch in batches_of(count - first))]


def batches_of(count: int) -> list[Array]:
    """Indices of so many images, a few at a time."""
    return [np.arange(start, min(start + TOGETHER, count)) for start in range(0, count, TOGETHER)]


def logits_key(plan: str) -> str:
    """What the reference's outputs of a plan are called; of several outputs the name of each follows a dot."""
    return f"logits_{plan}"


def own_key(plan: str, precision: str) -> str:
    """What the outputs of a plan's file of fewer bits itself are called, as it gave them when it was proven."""
    return f"file_{plan}.{precision}"


def more_key(plan: str) -> str:
    """What the slimmable network's outputs of more images are called."""
    return f"more_{plan}"


def moved_key(plan: str, precision: str) -> str:
    """What tells how far roundings move these."""
    return f"moved_{plan}.{precision}"


def own_arrays(plan: str, precision: str, own: Own) -> Iterator[tuple[str, Array]]:
    """The entries of `reference.npz` that tell what a plan's file of fewer bits itself gave."""
    yield from reference_arrays(own_key(plan, precision), own.expected)
    for part, moved in zip(own.expected, own.moved or (), strict=False):
        yield f"{moved_key(plan, precision)}{f'.{part.name}' if len(own.expected) > 1 else ''}", moved


def reference_arrays(key: str, expected: Sequence[Expected]) -> Iterator[tuple[str, Array]]:
    """The entries of `reference.npz` that tell outputs under a `key` (`logits_key`, `own_key`)."""
    for part in expected:
        thin = part.thinned()
        end = f".{part.name}" if len(expected) > 1 else ""
        yield f"{key}{end}", thin.values
        if thin.places is not None:
            yield f"places{end}", thin.places


def reference_bytes(images: int, results: Sequence[Result]) -> int:
    """What a plan's outputs take there."""
    numbers = 0
    for result in results:
        first, *behind = (*result.own_shape, 1)
        numbers += images * result.rows * first * min(math.prod(behind), MOST_PLACES)
    return NUMBER_BYTES * numbers


def read_reference(bundle: Path, manifest: Manifest | None = None) -> dict[str, Array]:
    """The arrays by name, once all of their headers say what can be of the bundle's `manifest`, which is read if it is not
    given: no member is inflated to more than that. BundleError if damaged."""
    path = bundle / REFERENCE
    manifest = read_manifest(bundle) if manifest is None else manifest
    try:
        with open_zip(path) as archive:
            headers = _headers(archive, manifest)
            return {name: _array(archive, name, header) for name, header in headers.items()}
    except FileNotFoundError as error:
        raise BundleError(f"{path}: not there, so nothing can be verified. Copy the whole bundle, or export again.") from error
    except (OSError, ZipError, NpyError) as error:
        raise BundleError(f"{path}: cannot be read ({reason(error)}). Copy the bundle again, or export again.") from error


def _headers(archive: zipfile.ZipFile, manifest: Manifest) -> dict[str, Header]:
    """What every array is, by name. NpyError where one is more than a network of the manifest's has, or where all together
    are. ZipError."""
    results, entries = manifest.results, len(manifest.artifacts) + len(manifest.rejected)
    headers: dict[str, Header] = {}
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        try:
            headers[name] = header_in(archive, member)
        except NpyError as error:
            raise NpyError(f"{quoted(name)} {error}") from error
    images = headers.get(IMAGES)
    if images is None or images.dtype != np.float32 or images.shape[1:] != manifest.input.input_shape:
        shown = "not there" if images is None else f"{images.dtype} {quoted(list(images.shape))}"
        raise NpyError(f"its images are {shown}, expected float32 [images, {', '.join(map(str, manifest.input.input_shape))}]")
    count, more = images.shape[0], headers.get(MORE_IMAGES)
    if more is not None:
        if more.dtype != np.float16 or more.shape[1:] != images.shape[1:] or more.shape[0] > MOST_IMAGES:
            shape = quoted(list(images.shape[1:]))
            raise NpyError(f"its more images are {more.dtype} {quoted(list(more.shape))}, expected float16 and each {shape}")
        count += more.shape[0]
    if not 1 <= count <= MOST_IMAGES or images.bytes > MOST_BYTES:
        raise NpyError(f"it has {count:,} images of {images.bytes:,} bytes, expected 1 to {MOST_IMAGES:,} and fewer bytes")
    largest = max(MOST_PLACES, *(reference_bytes(count, [result]) // NUMBER_BYTES for result in results))
    for name, header in headers.items():
        most_numbers = max(largest, next((most for start, most in OTHERS.items() if name.startswith(start)), 0))
        if name not in (IMAGES, MORE_IMAGES) and math.prod(header.shape) > most_numbers:
            raise NpyError(f"{quoted(name)} is {quoted(list(header.shape))}, no output of {count} images is as large")
    most = max(MOST_BYTES, images.bytes + max(entries, 1) * reference_bytes(count, results))
    if (whole := sum(header.bytes for header in headers.values())) > most:
        raise NpyError(f"it holds {whole:,} bytes, expected at most {most:,}")
    return headers


def _array(archive: zipfile.ZipFile, name: str, header: Header) -> Array:
    try:
        array = array_in(archive, archive.getinfo(f"{name}.npy" if f"{name}.npy" in archive.NameToInfo else name), header)
    except NpyError as error:
        raise NpyError(f"{quoted(name)} {error}") from error
    if name in (IMAGES, MORE_IMAGES) and not np.isfinite(array).all():
        raise NpyError("its images hold numbers that are not finite")
    return array


def probes_of(bundle: Path, manifest: Manifest, artifact: Artifact, reference: Mapping[str, Array]) -> Probes:
    """What an artifact is verified on, from a bundle's `reference.npz`. BundleError where that holds it not."""
    key = logits_key(manifest.plan_name(artifact))
    probes = find_probes(bundle, manifest, key, reference)
    if probes is None:
        count = len(reference["images"])
        raise BundleError(f"{bundle / REFERENCE}: has no {key} for {count} images. Export again.")
    rows = next((part.shape[0] for part in probes.expected if part.name == "scores" and part.shape), 0)
    try:
        near = near_in(reference, manifest.plan_name(artifact), len(probes.images), rows)
    except ValueError as error:
        raise BundleError(f"{bundle / REFERENCE}: {error}. Copy the bundle again, or export again.") from error
    return replace(probes, detector=manifest.detector, near=near)


def own_of(bundle: Path, manifest: Manifest, artifact: Artifact, reference: Mapping[str, Array]) -> Own | None:
    """What a file of fewer bits gave itself when it was proven; None of one for which the manifest says nothing of it.
    BundleError where it does, and the outputs are not there."""
    if artifact.verification.own_tolerance is None:
        return None
    plan = manifest.plan_name(artifact)
    key, tells = own_key(plan, artifact.precision), moved_key(plan, artifact.precision)
    first = len(reference[IMAGES])
    reference = {**reference, IMAGES: np.concatenate([reference[IMAGES], more_images(reference)])}
    own = find_probes(bundle, manifest, key, reference)
    if own is None:
        raise _lacking(bundle, key)
    if MORE_IMAGES not in reference:  # as of earlier versions
        return Own(own.images, first, own.expected)
    names = [f"{tells}.{part.name}" if len(own.expected) > 1 else tells for part in own.expected]
    moved = tuple(reference.get(name, np.empty(0)) for name in names)
    for name, values in zip(names, moved, strict=True):
        if values.shape != (len(own.images),) or values.dtype.kind != "f" or not (np.isfinite(values) & (values >= 0)).all():
            raise _lacking(bundle, name)
    return Own(own.images, first, own.expected, moved)


def more_probes_of(bundle: Path, manifest: Manifest, artifact: Artifact, reference: Mapping[str, Array]) -> Probes | None:
    """More images, the first ones, and what an artifact's plan gives of them; None where a bundle tells nothing of it.
    BundleError where what it has cannot be."""
    key, (first, *others) = more_key(manifest.plan_name(artifact)), manifest.results
    values = reference.get(f"{key}.{first.name}" if others else key)
    more = more_images(reference)[: 0 if values is None else len(np.atleast_1d(values)) // first.rows]
    return find_probes(bundle, manifest, key, {**reference, IMAGES: more}) if len(more) else None


def more_images(reference: Mapping[str, Array]) -> Array:
    """The images that only files of fewer bits are held against, float32 [M, ...]."""
    none = np.empty((0, *reference[IMAGES].shape[1:]))
    return np.asarray(reference.get(MORE_IMAGES, none), np.float32)


def _lacking(bundle: Path, key: str) -> BundleError:
    return BundleError(
        f"{bundle / REFERENCE}: has no {key}, which the manifest tells of, or a damaged one. Copy the bundle again, or export "
        "again."
    )


def find_probes(bundle: Path, manifest: Manifest, name: str, reference: Mapping[str, Array]) -> Probes | None:
    """What files are verified on, with the outputs called `name` (`logits_key`, `own_key`); None where `reference.npz` has
    nothing of it. BundleError where what it has cannot be."""
    images = reference.get("images", np.empty(0))
    if images.ndim != 1 + len(manifest.input.input_shape) or images.dtype != np.float32 or not len(images):
        raise BundleError(f"{bundle / REFERENCE}: its images are {images.dtype} {list(images.shape)}. Export again.")
    results = manifest.results
    ends = [f".{result.name}" if len(results) > 1 else "" for result in results]
    if any(f"{name}{end}" not in reference for end in ends):
        return None
    expected = []
    for result, end in zip(results, ends, strict=True):
        part = Expected(result.name, reference[f"{name}{end}"], reference.get(f"places{end}"))
        if not _fits(part, result, len(images)):
            raise BundleError(
                f"{bundle / REFERENCE}: {name}{end} is {list(part.values.shape)}, which does not fit {len(images)} "
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
