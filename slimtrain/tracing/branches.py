"""Stochastic depth, kept through an export in evaluation mode.

A module that drops whole branches in training (stochastic depth, arXiv 1603.09382) leaves no trace in an evaluation graph: it
hands on what it gets. While a module is exported, each of them calls an identity that torch records; reading the graph turns
it into an operator of ours that drops in training.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

# Names of the classes that torchvision, timm and others use, and what they call their probability.
CLASSES = ("StochasticDepth", "DropPath")
SHARES = ("p", "drop_prob")
ROW, BATCH = "row", "batch"  # every image by itself, or all of a batch alike


@contextmanager
def kept_branches(module: nn.Module) -> Iterator[dict[str, tuple[float, str]]]:
    """Within the block every module of `module` that drops branches is exported as `dropout`; path of the module -> its
    probability, and whether it drops by image or by batch."""
    branches: dict[str, tuple[float, str]] = {}
    changed: list[nn.Module] = []
    for path, part in module.named_modules():
        if type(part).__name__ in CLASSES:
            share = next((getattr(part, name) for name in SHARES if isinstance(getattr(part, name, None), float)), 0.0)
            if share > 0:
                branches[path] = share, str(getattr(part, "mode", ROW))
                part.forward = _recorded
                changed.append(part)
    try:
        yield branches
    finally:
        for part in changed:
            del part.forward


def _recorded(x: Tensor, *args: object) -> Tensor:
    return torch.dropout(x, 0.5, False)
