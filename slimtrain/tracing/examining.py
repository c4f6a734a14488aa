"""The `groups` command: a user's module, traced, and what of it can be slimmed."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from slimtrain.base.errors import UserError
from slimtrain.graph.labels.labelling import Policy
from slimtrain.groups.groups import find_groups
from slimtrain.tracing.report import WIDTHS, groups_report
from slimtrain.tracing.slimmed import trace
from slimtrain.tracing.sources import build_module

MOST_PIXELS = 4096


def examined(
    model: str,
    image_size: str,
    in_channels: int,
    classes: int | None,
    widths: Sequence[float],
    heads: str,
    conv_groups: str,
    shuffles: str,
) -> str:
    """The report on `model`. UserError and its subclasses for anything wrong with it."""
    height, width = sides(image_size)
    module = build_module(model, classes)
    graph = trace(module, torch.zeros(2, in_channels, height, width)).graph
    return groups_report(model, graph, find_groups(graph, Policy(heads, conv_groups, shuffles)), widths or WIDTHS)


def sides(image_size: str) -> tuple[int, int]:
    """Height and width of `224` or `256x192`."""
    parts = image_size.lower().split("x")
    if len(parts) > 2 or not all(part.isdigit() and 0 < int(part) <= MOST_PIXELS for part in parts):
        raise UserError(f"image size {image_size}: expected pixels, 224, or HEIGHTxWIDTH as in 256x192.")
    return int(parts[0]), int(parts[-1])
