"""What a search saves: the cost of a plan as a function, and targets of that cost. No torch.

`macs` are those of convolutions and linear layers, as a bundle's manifest counts them; the papers' tables add one per
input element of average pools (`Cost.published_macs`), less than 0.1 %: one found for 150M may be published as 150.1M.
`latency` sums a table that `python -m benchmarks channels` measured on a device. Nothing says that a smaller plan is a
faster one: such a cost may rise on the way.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from slimtrain.base.errors import UserError, nearest
from slimtrain.base.image_size import ImageSize
from slimtrain.base.options import UNITS, parse_number
from slimtrain.costs.cost import CostCounter, format_macs
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.width_spec import WidthSpec

if TYPE_CHECKING:
    from slimtrain.costs.latency_table import LatencyTable

COUNTED = {"macs": "MACs", "params": "parameters", "activations": "activations"}  # fields of Cost, and their units
COSTS = (*COUNTED, "latency")
MS = "ms"


class CostModel(Protocol):
    """The cost of a plan, in `unit`. `name` is one of COSTS."""

    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> str: ...

    def __call__(self, plan: ChannelPlan) -> float: ...


@dataclass(frozen=True)
class CountedCost:
    """One figure of `CostCounter`, at batch 1."""

    name: str
    counter: CostCounter

    @property
    def unit(self) -> str:
        return COUNTED[self.name]

    def __call__(self, plan: ChannelPlan) -> float:
        return float(getattr(self.counter(plan), self.name))


@dataclass(frozen=True)
class LatencyCost:
    """Milliseconds on the device that `table` was measured on."""

    table: LatencyTable
    name: str = "latency"
    unit: str = MS

    def __call__(self, plan: ChannelPlan) -> float:
        return self.table.cost_ms(plan)


def cost_model(
    kind: str, spec: WidthSpec, image_size: ImageSize, table_path: Path | None = None, device: str | None = None
) -> CostModel:
    """The cost called `kind` of `spec` for images of `image_size`; a latency is that of the table at `table_path`.

    UserError for an unknown kind, a latency without a table, a table without latency, and a table that cannot be read, is
    of another network, or, where `device` is named, of another device.
    """
    if kind not in COSTS:
        raise UserError(f"cost {kind!r}: not known{nearest(kind, COSTS)}. Expected {', '.join(COSTS)}.")
    if kind in COUNTED:
        if table_path is not None:
            raise UserError(f"{table_path}: a latency table, but the cost is {kind}. Choose latency, or leave the table out.")
        return CountedCost(kind, CostCounter(spec, image_size))
    if table_path is None:
        raise UserError("cost latency: needs a table of the device. Write one with `python -m benchmarks channels`.")
    from slimtrain.costs.latency_table import read_latency_table

    return LatencyCost(read_latency_table(table_path, spec, image_size, device))


def parse_targets(text: str, cost: str) -> list[float]:
    """Targets such as `150M,325M`, of a latency `5.0,2.5` in milliseconds: descending, each once. UserError otherwise."""
    targets = set()
    for part in text.split(","):
        number = part.strip().upper()
        if cost == "latency":
            number, unit = number.removesuffix(MS.upper()), 1
        else:
            unit = UNITS.get(number[-1:], 1)
            number = number[:-1] if unit > 1 else number
        targets.add(float(parse_number(number, f"{cost} target") * unit))
    return sorted(targets, reverse=True)


def format_cost(value: float, cost: CostModel) -> str:
    """`149.5M MACs`, `2.31 ms`."""
    return f"{value:.4g} {MS}" if cost.unit == MS else f"{format_macs(round(value))} {cost.unit}"


def target_name(target: float, cost: CostModel) -> str:
    """A target in a plan's and a file's name: `macs_150M`, `latency_2_5ms`."""
    unit, factor = next(((unit, size) for unit, size in reversed(UNITS.items()) if target >= size), ("", 1))
    if cost.unit == MS:
        unit, factor = MS, 1
    number = f"{(Decimal(repr(target)) / factor).normalize():f}"
    return f"{cost.name}_{number.replace('.', '_')}{unit}"
