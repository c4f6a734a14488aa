"""Before a network is measured: does it compute, on this backend and at this batch, what its bundle says it computes?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.cells.cell import Cell, CellRunner, WrongOutput
from slimexport.target.near_equals import NearEquals
from slimexport.target.precision import Difference, Direction, row_of
from slimexport.target.proof.comparing import Pair, compare, cosine, directed, least_spread
from slimexport.target.proof.detections import Rules, agreement_of
from slimexport.target.proof.own_detections import is_weighed, near_detections
from slimexport.target.proof.plugin_detections import as_detections
from slimexport.target.proof.running import run_on_probes
from slimexport.target.proof.verify import MIN_SPREAD, recorded_tolerance
from slimexport.target.reference import Probes
from slimexport.target.verification import PASSED, Verification


class Reference(NamedTuple):
    """What a network should give: probes, the `tolerance` recorded for its file (None: that of the precision), and the `rules`
    that chose detections (None of another network)."""

    probes: Probes
    tolerance: float | None = None
    rules: Rules | None = None


def check_output(runner: CellRunner, cell: Cell, reference: Reference) -> str:
    """Compare a runner's outputs with a reference. An int8 network is held to a cosine instead. Of several
    outputs all must be right. Detections are matched one to one, those of fewer bits
    weighed as a whole.

    Every place of the batch is compared: the probes are repeated until they fill it, or run in several batches. Returns a
    warning where the reference proves nothing, else "". Raises WrongOutput.
    """
    probes, recorded, rules = reference
    proof = row_of(cell.precision).proof
    names = directed(probes) if isinstance(proof, Direction) else []
    batches = probes.batches(cell.batch)
    pairs = run_on_probes(runner.logits, probes, batches)
    if rules is not None:
        return _check_detections(as_detections(pairs), rules, cell.precision, recorded, probes.near_of(batches))
    for pair in pairs:
        its = f"its output {pair.name}" if len(pairs) > 1 else "its output"
        shapes = list(pair.output.shape), list(pair.expected.shape)
        if pair.output.shape != pair.expected.shape:
            raise WrongOutput(f"{its} is {shapes[0]}, the bundle's reference {shapes[1]}. {ADVICE}")
        if not np.isfinite(pair.output).all():
            raise WrongOutput(f"{its} is not finite. {ADVICE}")
        if isinstance(proof, Direction) and pair.name in names:
            alike = cosine(pair.output, pair.expected)
            if not alike >= proof.least_cosine:
                raise WrongOutput(
                    f"{its} has a cosine of {alike:.3f} with the reference (at least {proof.least_cosine}). {ADVICE}"
                )
            continue
        tolerance = proof.tolerance if isinstance(proof, Direction) else recorded_tolerance(proof, recorded)
        error = compare(pair.output, pair.expected).max_rel_error
        if not error <= tolerance:
            raise WrongOutput(
                f"{its} is off the bundle's reference by {error:.1e} of its scale (tolerance {tolerance:.1e}). {ADVICE}"
            )
    if least_spread(probes) < MIN_SPREAD:
        return "its output is not proven right: the bundle's probe images all give nearly the same. Export with --verify-data."
    return ""


def _check_detections(
    pairs: Sequence[Pair], rules: Rules, precision: str, recorded: float | None, near: NearEquals | None
) -> str:
    row = row_of(precision)
    if not is_weighed(row):
        assert isinstance(row.proof, Difference)
        agreement = agreement_of(pairs, rules, recorded_tolerance(row.proof, recorded), near)
        right, why, detections = agreement.right, agreement.why, agreement.detections
    else:
        check = near_detections(pairs, rules, row, Verification(status=PASSED))
        right, why, detections = check.passed, check.reason or "", check.detections or 0
    if not right:
        raise WrongOutput(f"its detections are not the bundle's reference's: {why}. {ADVICE}")
    if not detections:
        return "its output is not proven right: nothing is detected in the bundle's probe images. Export with --verify-data."
    return ""


ADVICE = "Its speed would mean nothing. See what slimexport --bundle DIR --verify-only says, and export or build again."
