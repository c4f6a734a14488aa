"""The specs of published networks, where a test knows that one is."""

from __future__ import annotations

from typing import Protocol

from slimtrain.models.spec import NetworkSpec, published
from slimtrain.models.width_spec import WidthSpec


class HasSpec(Protocol):
    @property
    def spec(self) -> WidthSpec: ...


def spec_of(holder: HasSpec) -> NetworkSpec:
    """The spec of a published architecture's network, checkpoint or sampler."""
    return published(holder.spec, "a test")
