"""What a file of fewer bits gives, held against what it gave itself when it was proven.

Its layers are proven one by one where it is written (`onnx_files/layer_proof/`). Elsewhere that cannot be done again: a device
has no onnx package, and runs the file whole. What it gives there may differ, as sums in another order now and then round a
value the other way, and a network magnifies that. By how much is tried out where the file is proven, and recorded.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from slimexport.target.precision import Precision
from slimexport.target.proof.comparing import Pair, compare_all, finite, least_spread, worst
from slimexport.target.proof.running import run_apart
from slimexport.target.reference import Probes
from slimexport.target.runners import Runner
from slimexport.target.verification import FAILED, Verification

LEEWAY = 3.0  # times what was tried out
MEAN_SHARE = 0.4  # of the tolerance: a root mean square of what rounding does is a half of its largest at most
SPREAD_SHARE = 0.5  # never more than this share of what sets the probe images apart


def own_tolerance(row: Precision, moved: float, own: Probes) -> float:
    """How far a file's outputs may be off its `own` elsewhere, of their scale, where roundings that fall otherwise `moved`
    them that far. One that is read from a manifest goes through here too: an edited one does not make wrong files right."""
    least, most = row.steady
    return min(max(least, LEEWAY * moved), most, max(least, SPREAD_SHARE * least_spread(own)))


def held_to_own(runner: Runner, own: Probes, row: Precision, check: Verification, recorded: float) -> Verification:
    """A verification that passed, once the file also gives, of images alone, in pairs and all at once, what it gave itself.

    Roundings that fall otherwise are off by much here and there; a channel or a bias that is wrong is off by the same nearly
    everywhere. So the differences' root mean square has a limit of its own.
    """
    permitted = own_tolerance(row, recorded / LEEWAY, own)
    parts = run_apart(runner, own)
    comparison = worst([compare_all(pairs) for pairs in parts])
    held = replace(check, own_tolerance=permitted, own_error=finite(comparison.max_rel_error))
    if not comparison.within(permitted):
        return replace(held, status=FAILED, reason=_why(comparison.max_rel_error, permitted, "off"))
    usual = max(_root_mean_square(pair) for pairs in parts for pair in pairs)
    if usual > MEAN_SHARE * permitted:
        return replace(held, status=FAILED, reason=_why(usual, MEAN_SHARE * permitted, "on average off"))
    return held


def _root_mean_square(pair: Pair) -> float:
    """Of the differences, relative to the scale; of whole numbers, which are right or wrong, nothing."""
    if pair.expected.dtype.kind != "f":
        return 0.0
    differences = pair.output.astype(np.float64) - pair.expected
    scale = float(np.abs(pair.expected).max())
    return float(np.sqrt(np.square(differences).mean())) / scale if scale else 0.0


def _why(error: float, permitted: float, off: str) -> str:
    return (
        f"it gives other outputs than when it was proven, {off} by {error:.3g} of their scale (at most {permitted:.3g}): the "
        "file was changed, or this runtime computes it wrongly"
    )
