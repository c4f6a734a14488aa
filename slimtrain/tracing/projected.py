"""Matrix products on fewer rows, for the proof that two programs are the same one: x @ W becomes P x @ W.

P = sqrt(n / ROWS) R^T R projects the n rows of x (tokens, places of a map) onto `ROWS` directions drawn at random, so that the
product costs `ROWS / n` of what it did. Both sides of a proof compute so, and what is compared is no longer what the network
gives, but two compositions of the same operators with another one in the place of the product. That tells them apart as well:

- P does nothing to the columns of x and nothing to W, so what a slimmable network may change, the order of channels, still
  changes nothing: P (x S) (S^-1 W) = P x W for every permutation S.
- every row of P x is a combination of all rows of x, with weights that no program knows: a number of W that differs, or a row
  that differs, changes every row of the result, but for directions that the draw hits with probability 0, as random images do
  with those of the network itself. P commutes with no permutation of the rows, so that their order counts too.

As with images, agreement is what is relied on. Programs that do not agree so (one that multiplies from the other side, with
its channels in the rows) are compared without.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from slimtrain.graph.graph import Batch, Graph

ROWS = 8  # directions that are left
WORTH = 10**8  # multiply-accumulates of one image that must be saved before it pays to look at every operator


class Projected(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within the block products of matrices of many rows are computed on `ROWS` of them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.directions: dict[int, Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if not kwargs:
            if func is torch.ops.aten.mm.default and _tall(args[0]):
                return self._product(*args)
            if func is torch.ops.aten.addmm.default and _tall(args[1]):
                return self._product(*args[1:]).add_(args[0])
        return func(*args, **(kwargs or {}))

    def _product(self, x: Tensor, weight: Tensor) -> Tensor:
        rows = len(x)
        if rows not in self.directions:
            generator = torch.Generator().manual_seed(rows)
            drawn = torch.randn((rows, ROWS), generator=generator, dtype=torch.float64)
            self.directions[rows] = torch.linalg.qr(drawn).Q * (rows / ROWS) ** 0.25
        directions = self.directions[rows]
        return directions @ ((directions.t() @ x) @ weight)


def _tall(x: Tensor) -> bool:
    return x.dtype == torch.float64 and len(x) >= 2 * ROWS


def pays(graph: Graph, share: float) -> bool:
    """Whether linear layers multiply so much on `share` of an image's places that fewer rows are worth their while."""
    saved = 0.0
    for node in graph.nodes:
        if node.kind == "linear":
            shape = [size.factor if isinstance(size, Batch) else size for size in graph.types[node.inputs[0]].shape]
            rows, outputs = math.prod(shape[:-1]) * share, node.outputs[0].shape[-1]
            assert isinstance(outputs, int)
            saved += max(rows - ROWS, 0) * shape[-1] * outputs
    return saved >= WORTH
