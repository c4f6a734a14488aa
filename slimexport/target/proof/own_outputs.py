"""What a file of fewer bits gives, held against what it gave itself when it was proven.

Its layers are proven one by one where it is written (`onnx_files/layer_proof/`). Elsewhere that cannot be done again: a device
has no onnx package, and runs the file whole. The same library on the same processor gives the same numbers there. Others may
give others, as sums in another order now and then round a value the other way, and a network magnifies that: how far, image by
image, is tried out where the file is proven, and recorded. A network may magnify roundings so much that what they do is more
than is permitted to any file: then such a file is not proven elsewhere, nor called wrong for it.

Roundings that fall otherwise are off by much here and there; what is wrong with a file is off, mostly, nearly everywhere. So
the largest difference has the widest limit. Told by how far roundings move each image, differences have narrow ones: on
average, of one image, and of what all images have in common. Noise has nothing of the latter. How these differ from one
rounding of a file to the next is tried out as well: what others come to, next to all others that were tried, is recorded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import numpy as np

from slimexport.target.arrays import Array
from slimexport.target.precision import Precision
from slimexport.target.proof.comparing import Pair, compare_all, finite, least_spread, worst
from slimexport.target.proof.own_runtime import own_runtime
from slimexport.target.proof.running import run_apart, run_on_probes
from slimexport.target.reference import Own, Probes
from slimexport.target.runners import Runner
from slimexport.target.verification import FAILED, UNVERIFIABLE, Verification


class Shares(NamedTuple):
    """How far outputs are off, as multiples of how far roundings move their images: a root mean square, that of the worst
    image, and the largest of what all images have in common, by which noise goes with the root of their number."""

    usual: float
    of_one: float
    in_common: float


Error = tuple[float, float, str]  # how far outputs are off, how far they may be, and what of it
ON_THE_SAME = "off by {} of their scale on the processor that proved it"
LEEWAY = 3.0  # times what was tried out
MEAN_SHARE = 0.4  # of the tolerance: a root mean square of what rounding does is a half of its largest at most
SPREAD_SHARE = 0.5  # never more than this share of what sets the probe images apart
THE_SAME = 1e-5  # of the scale, where the same library runs on the same processor
LEAST_MOVED = 0.1  # of a precision's least tolerance: what roundings move any image by
# Limits of differences, by how far roundings move their image. What roundings did that were not tried out stayed below 1.2
# (2.3 of 2 images), 2.8 and 6.9, of trained and untrained networks.
USUAL, USUAL_OF_FEW = 1.5, 1.5  # the second over the square root of how many images there are
OF_ONE = 5.0
IN_COMMON = 10.0
# The same limits where a file's own figures are recorded, as multiples of these, more of few images, and what these are at
# least. Roundings that were not tried out (images' other last bits, fewer fusions, each layer rounded or none, OpenVINO) came
# to at most 1.15, 1.43 and 1.25 times the recorded ones of 100 images, and 2.15, 1.85 and 2.04 of 2 to 6.
NEXT_TO_OTHERS, OF_FEW = Shares(1.2, 1.6, 1.4), 1.6
LEAST_SHARES = Shares(0.8, 1.5, 3.0)


def shares_of(pair: Pair, moved: Array, row: Precision, permitted: float) -> Shares:
    """How far an output is off, by how far roundings `moved` each image [images]; `permitted`: the file's tolerance."""
    by_image = np.clip(moved, LEAST_MOVED * row.steady[0], MEAN_SHARE * permitted)
    shares = by_images(pair, len(moved)) / by_image[:, None]
    sizes = np.sqrt(np.square(shares).mean(1))
    common = np.abs(shares.mean(0)).max() * np.sqrt(len(sizes))
    return Shares(float(np.sqrt(np.square(sizes).mean())), float(sizes.max()), float(common))


def limits_of(recorded: Verification, images: int) -> Shares:
    """How large these may be: what is recorded of a file narrows them only."""
    few = 1 / np.sqrt(images)
    usual = Shares(USUAL + USUAL_OF_FEW * few, OF_ONE, IN_COMMON)
    if recorded.own_shares is None:  # as of earlier versions
        return usual
    shares = recorded.own_shares.usual, recorded.own_shares.of_one, recorded.own_shares.in_common
    own = zip(shares, LEAST_SHARES, NEXT_TO_OTHERS, usual, strict=True)
    return Shares(*(min(most, (factor + OF_FEW * few) * max(least, tried)) for tried, least, factor, most in own))


def own_tolerance(row: Precision, moved: float, own: Probes) -> float:
    """How far a file's outputs may be off its `own` elsewhere, of their scale, where roundings that fall otherwise `moved`
    them that far. One that is read from a manifest goes through here too: an edited one does not make wrong files right."""
    least, most = row.steady
    return min(max(least, LEEWAY * moved), most, max(least, SPREAD_SHARE * least_spread(own)))


def held_to_own(runner: Runner, own: Own, row: Precision, check: Verification, recorded: Verification) -> Verification:
    """A verification that passed, once the file also gives, of images alone, in pairs and all at once, what it gave itself;
    `recorded` when it was proven."""
    permitted = own_tolerance(row, (recorded.own_tolerance or 0.0) / LEEWAY, own.probes)
    apart, together = run_apart(runner, own.probes), run_on_probes(runner, own.whole, own.batches)
    parts, same = [*apart, together], _is_the_same(runner, recorded)
    largest = worst([compare_all(pairs) for pairs in parts]).max_rel_error
    held = replace(check, own_tolerance=permitted, own_error=finite(largest))
    errors = chain(
        _of_scale(parts, permitted),
        [(compare_all(together).max_rel_error, THE_SAME, ON_THE_SAME)] if same else [],
        _of_roundings(together, len(own.images), own, row, permitted, recorded),
    )
    wrong = next((one for one in errors if not one[0] <= one[1]), None)  # NaN too
    if wrong is None:
        return held
    magnified = permitted >= row.steady[1] and np.isfinite(largest) and not (same and largest > THE_SAME)
    counted = [*((pairs, own.first) for pairs in apart), (together, len(own.images))]
    if magnified and all(_explained(pairs, images, own, row, permitted, recorded) for pairs, images in counted):
        return replace(held, status=UNVERIFIABLE, reason=_why_not_told(*wrong))
    return replace(held, status=FAILED, reason=_why(*wrong))


def _explained(pairs: list[Pair], images: int, own: Own, row: Precision, permitted: float, recorded: Verification) -> bool:
    """Whether roundings that fall otherwise explain all that is off in the first `images`; they explain no whole numbers."""
    errors = list(_of_roundings(pairs, images, own, row, permitted, recorded))
    whole = [compare_all([pair]).max_rel_error for pair in pairs if pair.expected.dtype.kind != "f"]
    return bool(errors) and all(error <= limit for error, limit, _ in errors) and all(error <= permitted for error in whole)


def _is_the_same(runner: Runner, recorded: Verification) -> bool:
    """Whether what runs the file ran it when it was proven."""
    return recorded.own_runtime is not None and recorded.own_runtime == own_runtime(runner.backend)


def _of_scale(parts: list[list[Pair]], permitted: float) -> Iterator[Error]:
    """How far a file's outputs are off, of their scale."""
    yield worst([compare_all(pairs) for pairs in parts]).max_rel_error, permitted, "off by {} of their scale"
    usual = max(root_mean_square(pair) for pairs in parts for pair in pairs)
    yield usual, MEAN_SHARE * permitted, "on average off by {} of their scale"


def _of_roundings(
    pairs: list[Pair], images: int, own: Own, row: Precision, permitted: float, recorded: Verification
) -> Iterator[Error]:
    """How far outputs of the first `images` are off, by how far roundings move each of them, where a bundle tells that."""
    limits = limits_of(recorded, images)
    for pair, moved in zip(pairs, own.moved or (), strict=False):
        if pair.expected.dtype.kind != "f":
            continue
        shares = shares_of(pair, moved[:images], row, permitted)
        for share, limit, what in zip(shares, limits, ("on average", "of one image", "of all images alike"), strict=True):
            yield share, limit, f"{what} off by {{}} times what roundings move them"


def by_images(pair: Pair, images: int) -> Array:
    """The differences of an output [images, all values of one], relative to the scale of all."""
    differences = pair.output.astype(np.float64) - pair.expected
    scale = float(np.abs(pair.expected).max())
    return np.asarray(differences.reshape(images, -1) / scale if scale else differences.reshape(images, -1))


def root_mean_square(pair: Pair) -> float:
    """Of the differences, relative to the scale; of whole numbers, which are right or wrong, nothing."""
    if pair.expected.dtype.kind != "f":
        return 0.0
    return float(np.sqrt(np.square(by_images(pair, 1)).mean()))


def _why(error: float, limit: float, off: str) -> str:
    return (
        f"it gives other outputs than when it was proven, {off.format(f'{error:.3g}')} (at most {limit:.3g}): the "
        "file was changed, or this runtime computes it wrongly"
    )


def _why_not_told(error: float, limit: float, off: str) -> str:
    return (
        f"it gives other outputs than when it was proven, {off.format(f'{error:.3g}')} (at most {limit:.3g}), though no more "
        "than roundings explain: this network magnifies them so much that a runtime which rounds otherwise cannot be told "
        "from a defect. Take a precision with more bits"
    )
