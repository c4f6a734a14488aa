"""The `groups` command: a user's module, traced, and what of it can be slimmed."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from slimtrain.base.errors import UserError
from slimtrain.base.image_size import as_image_size, sides
from slimtrain.graph.policy import Policy
from slimtrain.groups.groups import find_groups
from slimtrain.models.spec import MAX_IMAGE_SIZE
from slimtrain.tracing.report import WIDTHS, groups_report
from slimtrain.tracing.slimmed import trace
from slimtrain.tracing.sources import build_module


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
    try:
        size = as_image_size(image_size)
    except ValueError as error:
        raise UserError(f"{error}.") from error
    if max(sides(size)) > MAX_IMAGE_SIZE:
        raise UserError(f"image size {image_size}: expected at most {MAX_IMAGE_SIZE} pixels a side.")
    module = build_module(model, classes)
    graph = trace(module, torch.zeros(2, in_channels, *sides(size))).graph
    return groups_report(model, graph, find_groups(graph, Policy(heads, conv_groups, shuffles)), widths or WIDTHS)
