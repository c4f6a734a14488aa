"""How many slots of every group a width keeps."""

from __future__ import annotations

from collections.abc import Mapping

from slimtrain.models.channels import make_divisible

DIVISOR = 8  # hardware likes channels in eights
WHOLE = 16  # groups of fewer slots (heads, gates) are not rounded to the divisor


def channels_at(sizes: Mapping[str, int], width: float) -> dict[str, int]:
    """The plan of `width`: group -> slots that stay, of `sizes` (group -> slots)."""
    return {group: slots_at(slots, width) for group, slots in sizes.items()}


def slots_at(slots: int, width: float) -> int:
    """How many of `slots` a width keeps: at least one, at 1.0 all."""
    if width >= 1:
        return slots
    if slots < WHOLE:
        return min(slots, max(1, round(slots * width)))
    return min(slots, make_divisible(slots * width, DIVISOR))
