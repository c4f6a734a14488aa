"""A detector's file held against the slimmable network, from image to boxes."""

from __future__ import annotations

from slimexport.target.precision import Difference, row_of
from slimexport.target.proof.comparing import finite
from slimexport.target.proof.running import run_probes
from slimexport.target.reference import Probes
from slimexport.target.runners import Runner
from slimexport.target.verification import FAILED, PASSED, Verification


def verify_detections(runner: Runner, probes: Probes, precision: str) -> Verification:
    proof = row_of(precision).proof
    assert isinstance(proof, Difference)
    comparison = run_probes(runner, probes)
    return Verification(
        status=PASSED if comparison.within(proof.tolerance) else FAILED,
        backend=runner.backend,
        max_rel_error=finite(comparison.max_rel_error),
        tolerance=proof.tolerance,
        output=comparison.output,
        probes=len(probes.images),
    )
