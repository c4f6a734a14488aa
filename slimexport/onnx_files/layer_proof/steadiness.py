"""What a file of fewer bits gives, and how far that moves where roundings fall otherwise.

Another machine adds in another order, fuses other operators, and so rounds a value now and then the other way. Both are tried
out here: the file run operator by operator, and on images whose last bits are others. What that moves a device may be off too
(`target/proof/own_outputs.py`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from slimexport.onnx_files.runner import cpu_session, onnx_runner
from slimexport.onnx_files.typed import cast_twin
from slimexport.target.arrays import Array
from slimexport.target.proof.comparing import compare_all
from slimexport.target.proof.running import run_on_probes
from slimexport.target.reference import Expected, Probes
from slimexport.target.runners import Given, alone, runs_on_cpu

# What each number of an image is nudged by, of itself: what rounding does to it in the numbers around the file's integers;
# with float32 around them enough that some values round the other way.
NUDGES = {"fp16": 2**-11, "bf16": 2**-8, "int8-fp16": 2**-11}
USUAL_NUDGE = 1e-4
DRAWS = 4
SEED = 4


def own_outputs(path: Path, precision: str, probes: Probes) -> tuple[Probes, float]:
    """What a file gives of the probe images, all at once, with the places that the reference tells; and how far, of its scale,
    that moves. Infinity where something is not finite."""
    every = [np.arange(len(probes.images))]
    given = run_on_probes(onnx_runner(path, precision), probes, every)
    expected = [Expected(pair.name, pair.output, part.places) for pair, part in zip(given, probes.expected, strict=True)]
    own = Probes(probes.images, tuple(expected))
    model = onnx.load(path)
    session = cpu_session(model if runs_on_cpu(precision) else cast_twin(model), as_written=True)
    names = [output.name for output in session.get_outputs()]

    def as_written(images: Array) -> Given:
        return alone(dict(zip(names, session.run(None, {session.get_inputs()[0].name: images}), strict=True)))

    draw = np.random.default_rng(SEED)
    nudge = NUDGES.get(precision, USUAL_NUDGE)
    shape = probes.images.shape
    nudged = [(probes.images * (1 + nudge * draw.standard_normal(shape))).astype(np.float32) for _ in range(DRAWS)]
    errors = [
        compare_all(run_on_probes(as_written, Probes(images, own.expected), every)).max_rel_error
        for images in (probes.images, *nudged)
    ]
    return own, float(np.nan_to_num(max(errors), nan=np.inf))
