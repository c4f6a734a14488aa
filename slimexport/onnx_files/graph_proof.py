"""Proof that a graph's ONNX file computes what the graph does: onnxruntime against torch in float64."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import torch
from torch import Tensor

from slimexport.onnx_files.graph_writer import write_graph
from slimexport.onnx_files.runner import cpu_session
from slimexport.target.arrays import Array
from slimexport.target.precision import EXACT, Difference, row_of
from slimexport.target.proof.comparing import spread
from slimexport.target.proof.verify import permitted
from slimtrain.base.errors import UserError
from slimtrain.graph.sizes import Sizing
from slimtrain.slimmable.plan_positions import Cut
from slimtrain.slimmable.program import Program

BATCHES = 1, 3


@dataclass(frozen=True)
class Written:
    """What came of a graph. `written`: whether there is a valid file. `checked`: whether it computes what the graph does, at
    all batches. `errors`: the largest difference relative to the largest value, by batch; `tolerance`: what it may be.
    `seconds`: of writing alone. `reason`: why there is no file, or why it is wrong."""

    written: bool
    checked: bool
    errors: dict[int, float]
    tolerance: float
    nodes: int
    seconds: float
    size_bytes: int
    reason: str = ""


def proven(sizing: Sizing, tensors: Mapping[str, Tensor], images: Tensor | None = None) -> Written:
    """Write a graph at a plan, and run the file. `tensors`: its parameters at the plan, by name; `images`: at least as many as
    the largest of BATCHES, normal noise where none are given."""
    proof = row_of(EXACT).proof
    assert isinstance(proof, Difference)
    start = time.perf_counter()
    try:
        model = write_graph(sizing, tensors)
    except UserError as error:
        return Written(False, False, {}, proof.tolerance, 0, time.perf_counter() - start, 0, str(error))
    seconds = time.perf_counter() - start
    content = model.SerializeToString()
    nodes = len(model.graph.node)
    try:
        onnx.checker.check_model(content, full_check=True)
        errors = largest_errors(model, sizing, tensors, images)
    except Exception as error:  # the checker's and onnxruntime's own kinds: whatever they say, the file is not right
        reason = f"{type(error).__name__}: {error}"[:500]
        return Written(False, False, {}, proof.tolerance, nodes, seconds, len(content), reason)
    tolerance = proof.tolerance
    if not all(error <= tolerance for error in errors.values()):  # NaN is no error that is small enough
        tolerance = _permitted(proof, sizing, tensors, images)
    checked = all(error <= tolerance for error in errors.values())
    reason = "" if checked else f"differs by {max(errors.values()):.1e}, more than {tolerance:.0e}"
    return Written(True, checked, errors, tolerance, nodes, seconds, len(content), reason)


def largest_errors(
    model: onnx.ModelProto, sizing: Sizing, tensors: Mapping[str, Tensor], images: Tensor | None = None
) -> dict[int, float]:
    """By batch, how far the file's outputs are from the graph's in float64, relative to the largest value of each output."""
    session = cpu_session(model)
    images = _noise(sizing) if images is None else images
    (name,) = (value.name for value in session.get_inputs())
    errors = {}
    for batch in BATCHES:
        part = images[:batch]
        wanted = outputs_of(sizing, tensors, part)
        errors[batch] = max(map(relative_error, session.run(None, {name: part.numpy()}), wanted))
    return errors


def outputs_of(
    sizing: Sizing, tensors: Mapping[str, Tensor], images: Tensor, number: torch.dtype = torch.float64
) -> list[Tensor]:
    """What the graph makes of images when it is computed in `number`."""
    exact = {name: tensor.to(number) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    program = replace(Program.of(sizing, number), cuts={p.name: Cut() for p in sizing.graph.parameters})  # cut already
    with torch.no_grad():
        return program.run([images.to(number)], exact)


def _noise(sizing: Sizing) -> Tensor:
    ((_, type_),) = sizing.graph.inputs
    return torch.randn(type_.at(max(BATCHES)), generator=torch.Generator().manual_seed(0))


def _permitted(proof: Difference, sizing: Sizing, tensors: Mapping[str, Tensor], images: Tensor | None) -> float:
    """The tolerance where torch itself, in float32, is far off: as of the files of published networks."""
    images = _noise(sizing) if images is None else images
    exact, rounded = (outputs_of(sizing, tensors, images, number) for number in (torch.float64, torch.float32))
    gap = max(relative_error(values.numpy(), wanted) for values, wanted in zip(rounded, exact, strict=True))
    seen = min(spread(values.double().flatten(1).numpy()) if values.ndim > 1 else 0.0 for values in exact)
    return permitted(proof, gap, seen)


def relative_error(output: Sequence[float] | Array, wanted: Tensor) -> float:
    """The largest difference over the largest value; infinite where shapes differ, NaN where something is not finite."""
    values, reference = np.asarray(output), wanted.numpy()
    if values.shape != reference.shape:
        return float("inf")
    if not reference.size:
        return 0.0
    with np.errstate(invalid="ignore"):
        scale = np.abs(reference.astype(np.float64)).max()
        difference = np.abs(values.astype(np.float64) - reference.astype(np.float64)).max()
    return 0.0 if difference == 0 else float(difference / scale) if scale else float("inf")
