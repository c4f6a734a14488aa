"""Before a network is measured: does it compute, on this backend and at this batch, what its bundle says it computes?"""

from __future__ import annotations

import numpy as np

from benchmarks.cells.cell import Array, Cell, CellRunner, WrongOutput
from slimexport.target.precision import Direction, row_of
from slimexport.target.verify import MIN_SPREAD, compare, cosine, has_direction, recorded_tolerance, spread

Reference = tuple[Array, Array, float | None]


def check_output(runner: CellRunner, cell: Cell, reference: Reference) -> str:
    """Compare a runner's logits with a reference: probe images [P, C, H, W], logits [P, classes], and the tolerance recorded
    for them, or None for that of the precision. An int8 network is held to a cosine instead.

    Every place of the batch is compared: the probes are repeated until they fill it, or run in several batches. Returns a
    warning where the reference proves nothing, else "". Raises WrongOutput.
    """
    images, logits, recorded = reference
    count = -(-len(images) // cell.batch) * cell.batch
    places = np.arange(count) % len(images)
    batches = [places[at : at + cell.batch] for at in range(0, count, cell.batch)]
    outputs = np.concatenate([np.asarray(runner.logits(np.ascontiguousarray(images[chosen]))) for chosen in batches])
    expected = logits[places]
    if outputs.shape != expected.shape:
        raise WrongOutput(f"its output is {list(outputs.shape)}, the bundle's reference {list(expected.shape)}. {ADVICE}")
    if not np.isfinite(outputs).all():
        raise WrongOutput(f"its output is not finite. {ADVICE}")
    proof = row_of(cell.precision).proof
    if isinstance(proof, Direction) and has_direction(logits):
        alike = cosine(outputs, expected)
        if not alike >= proof.least_cosine:
            raise WrongOutput(
                f"its output has a cosine of {alike:.3f} with the reference (at least {proof.least_cosine}). {ADVICE}"
            )
    else:
        tolerance = proof.tolerance if isinstance(proof, Direction) else recorded_tolerance(proof, recorded)
        error = compare(outputs, expected).max_rel_error
        if not error <= tolerance:
            raise WrongOutput(
                f"its output is off the bundle's reference by {error:.1e} of its scale (tolerance {tolerance:.1e}). {ADVICE}"
            )
    if spread(logits) < MIN_SPREAD:
        return "its output is not proven right: the bundle's probe images all give nearly the same. Export with --verify-data."
    return ""


ADVICE = "Its speed would mean nothing. See what slimexport --bundle DIR --verify-only says, and export or build again."
