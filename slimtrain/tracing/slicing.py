"""The parameters of a graph at a plan."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from slimtrain.graph.sizes import Sizing
from slimtrain.slimmable.program import Program


def sliced(sizing: Sizing, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What stays of every parameter: name -> tensor, of the same memory where a leading corner stays."""
    program = Program.of(sizing)
    return {p.name: program.sliced(p.name, tensors[p.name]) for p in sizing.graph.parameters}
