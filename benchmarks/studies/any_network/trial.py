"""One network of the coverage study: exported, its groups result, its half-width network proven and written as ONNX."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from benchmarks.studies.any_network.modules import module_of, randomize
from slimexport.onnx_files.graph_proof import proven
from slimtrain.graph.graph import Graph
from slimtrain.graph.policy import Policy
from slimtrain.graph.sizes import Sizing
from slimtrain.groups.costs import graph_cost
from slimtrain.groups.groups import Groups, find_groups
from slimtrain.slimmable.program import Program
from slimtrain.tracing.equality import CAST
from slimtrain.tracing.masked import masked
from slimtrain.tracing.slicing import sliced
from slimtrain.tracing.slimmed import trace

# In this order, until one reaches what is asked for.
POLICIES = (Policy(), Policy("inner"), Policy("inner", "inner"), Policy("inner", "inner", "free"))
ENOUGH = 1 / 3  # of the MACs, at half of every group's slots
EXACT = 1e-10  # of the largest output: sliced against masked, in float64
LARGE = 160_000_000  # parameters: beyond it one image instead of two


@dataclass
class Row:
    """What came of one network. `cause`: of whatever is missing. `macs`, `parameters`: shares that half width keeps."""

    library: str
    name: str
    exported: bool = False
    groups: int = 0
    slots: int = 0
    policy: dict[str, str] = field(default_factory=dict)
    parameters_full: int = 0
    macs: float = 1.0
    parameters: float = 1.0
    full_error: float | None = None
    half_error: float | None = None
    proven: bool = False
    onnx: bool = False
    onnx_errors: dict[int, float] = field(default_factory=dict)
    onnx_nodes: int = 0
    onnx_bytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    pinned: list[str] = field(default_factory=list)
    cause: str = ""

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def tried(library: str, name: str) -> Row:
    """All of it; an error ends the row, and is its cause."""
    row = Row(library, name)
    try:
        _fill(row)
    except Exception as error:
        row.cause = f"{type(error).__name__}: {str(error)[:300]}"
    return row


def _fill(row: Row) -> None:
    module, side = module_of(row.library, row.name)
    row.parameters_full = sum(parameter.numel() for parameter in module.parameters())
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    randomize(module, images)
    started = time.perf_counter()
    traced = trace(module, images)
    row.seconds["export"] = round(time.perf_counter() - started, 2)
    row.exported = True
    started = time.perf_counter()
    groups, channels = _narrowed(traced.graph)
    row.seconds["groups"] = round(time.perf_counter() - started, 2)
    sizing = Sizing(traced.graph, groups, channels)
    row.groups, row.slots, row.policy = len(groups.groups), sum(groups.sizes.values()), asdict(groups.policy)
    full, half = graph_cost(Sizing(traced.graph, groups, groups.sizes)), graph_cost(sizing)
    row.macs, row.parameters = round(half.macs / max(full.macs, 1), 4), round(half.params / max(full.params, 1), 4)
    row.pinned = sorted({f"{pin.op}: {pin.reason}" for pin in groups.pinned})
    tensors = {key: t.double() if t.is_floating_point() else t for key, t in traced.tensors.items()}
    few = images[: 1 if row.parameters_full > LARGE else 2].double()
    with torch.no_grad():
        started = time.perf_counter()
        expected = _tensors(module.double()(few))
        row.full_error = _error(Program.full(traced.graph, torch.float64).run([few], tensors), expected)
        del module
        result = Program.of(sizing, torch.float64).run([few], tensors)
        row.half_error = _error(result, masked(sizing, [few], tensors))
        row.seconds["proof"] = round(time.perf_counter() - started, 2)
        row.proven = row.full_error < CAST and row.half_error < EXACT
        narrow = {name: tensor.clone() for name, tensor in sliced(sizing, tensors).items()}
        del tensors, traced  # the largest networks and their narrow ones do not fit beside each other
        written = proven(sizing, narrow)
    row.onnx, row.onnx_errors, row.onnx_nodes = written.checked, written.errors, written.nodes
    row.onnx_bytes, row.seconds["onnx"], row.cause = written.size_bytes, round(written.seconds, 2), written.reason


def _narrowed(graph: Graph) -> tuple[Groups, dict[str, int]]:
    """The groups under the first policy that half width leaves at most a third of the MACs with, or the best."""
    best: tuple[float, Groups, dict[str, int]] | None = None
    for policy in POLICIES:
        groups = find_groups(graph, policy)
        channels = {name: max(1, round(slots / 2)) for name, slots in groups.sizes.items()}
        full = graph_cost(Sizing(graph, groups, groups.sizes)).macs
        share = graph_cost(Sizing(graph, groups, channels)).macs / max(full, 1)
        if best is None or share < best[0] - 0.02:
            best = share, groups, channels
        if best[0] <= ENOUGH:
            break
    assert best is not None
    return best[1], best[2]


def _tensors(output: Any) -> list[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        return [output]
    return [tensor for part in (output.values() if isinstance(output, dict) else output) for tensor in _tensors(part)]


def _error(result: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """The largest difference, of the largest value of the same output."""
    pairs = zip(result, expected, strict=True)
    return max(float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30)) for ours, theirs in pairs)
