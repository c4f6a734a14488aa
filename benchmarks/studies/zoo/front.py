"""Which of many networks are worth having: those that no other beats in error and cost, where costs are noisy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.cells.cell import Cell, Result
from benchmarks.cells.published_errors import published_error
from benchmarks.cells.statistics import summary
from benchmarks.report.analysis import listed

# How networks are called where people read: the architecture's name with the family's before it
ARCHITECTURES = {
    "mobilenet_v1": "MobileNet v1",
    "mobilenet_v2": "MobileNet v2",
    "shufflenet": "ShuffleNet",
    "mnasnet": "MNASNet",
    "resnet50": "ResNet-50",
}
FAMILIES = {"s": "S", "us": "US", "autoslim": "AutoSlim"}


@dataclass(frozen=True)
class Point:
    """A switch of a network: its published top-1 `error` in percent, and what it costs, with the lowest and highest cost that
    a round of measuring gave; all three are one where it is counted."""

    cell: Cell
    error: float
    cost: float
    low: float
    high: float

    @property
    def family(self) -> str:
        return self.cell.network.partition("_")[0]

    @property
    def architecture(self) -> str:
        return self.cell.network.partition("_")[2]

    @property
    def network(self) -> str:
        """`US-MobileNet v1`."""
        return f"{FAMILIES[self.family]}-{ARCHITECTURES[self.architecture]}"

    @property
    def name(self) -> str:
        """`US-MobileNet v1 0.5x`."""
        return f"{self.network} {self.cell.label}"

    def cheaper(self, other: Point) -> bool:
        """Whether it costs less by more than the noise: in its dearest round less than the other in its cheapest."""
        return self.high < other.low


def measured_points(results: Sequence[Result]) -> list[Point]:
    """Latency in ms per batch, of the results that have one."""
    points = []
    for result in results:
        if figures := summary(result):
            points.append(Point(result.cell, _error(result.cell), figures.median_ms, *figures.interval_ms))
    return points


def counted_points(results: Sequence[Result]) -> list[Point]:
    """MACs per image."""
    cells = [result.cell for result in results]
    return [Point(cell, _error(cell), cell.macs, cell.macs, cell.macs) for cell in cells]


def _error(cell: Cell) -> float:
    assert cell.width is not None
    return published_error(cell.network, cell.width)


@dataclass(frozen=True)
class Front:
    """The joint front of points: those for which no other has at most their error and is cheaper by more than noise, by rising
    cost. `worth`: of these, from the lowest error up, each that is cheaper than the last one kept, by more than noise; of
    points that cost the same within noise, that is the one of lowest error."""

    points: tuple[Point, ...]
    worth: tuple[Point, ...]


def joint_front(points: Sequence[Point]) -> Front:
    """The front of `points`."""
    free = [point for point in points if not any(other.error <= point.error and other.cheaper(point) for other in points)]
    kept: list[Point] = []
    for point in sorted(free, key=lambda point: (point.error, point.cost)):
        if not kept or point.cheaper(kept[-1]):
            kept.append(point)
    by_cost = sorted(free, key=lambda point: (point.cost, point.error))
    return Front(tuple(by_cost), tuple(kept[::-1]))


def by_network(points: Sequence[Point]) -> dict[str, list[Point]]:
    """The points of each network, in order of the first."""
    networks: dict[str, list[Point]] = {}
    for point in points:
        networks.setdefault(point.network, []).append(point)
    return networks


def switches_named(points: Sequence[Point], every: Sequence[Point]) -> str:
    """`0.25x to 0.4x, 0.5x`: the switches of some points of a network, neighbours among `every` point of it as a range."""
    ordered = sorted((point for point in every if point.cell.network == points[0].cell.network), key=_size)
    labels = [point.cell.label for point in ordered]
    chosen = {point.cell.label for point in points}
    return listed(labels, [at for at, label in enumerate(labels) if label in chosen]).replace(" and ", ", ")


def _size(point: Point) -> tuple[int, float]:
    return point.cell.macs, float(point.cell.width or 0)
