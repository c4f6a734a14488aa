"""Names beside points that cover neither each other nor the points nor leave the panel: each is tried at eight places around
its point, and left out where none is free."""

from __future__ import annotations

from collections.abc import Sequence
from math import dist
from typing import TYPE_CHECKING

from benchmarks.cells.cell import Cell
from benchmarks.report.plots.geometry import Position, Segment, crosses
from benchmarks.report.plots.style import INK, TEXT_PT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

# Where a name is tried: its side of the mark, and points between the mark's middle and the name
PLACES = (
    *((0, 1, 0, 8), (-1, 1, 2, 6), (0, -1, 0, 8), (1, -1, 2, 6)),
    *((1, 1, 2, 6), (-1, -1, 2, 6), (-1, 0, 8, 0), (1, 0, 8, 0)),
)
MARK = 4.5  # points from a mark's middle to its edge
SAME_PX = 1.0  # of points that are drawn one on the other
ROOM = 3.0  # points kept free between names


def short_name(cell: Cell) -> str:
    """A cell's label, or its plan's name, which lacks the network's, where it has no width."""
    return cell.plan if cell.width is None else cell.label


def order_of_importance(count: int) -> list[int]:
    """Indices of `count` points: the two ends, then the middle, the quarters, ... so that the first few are spread evenly."""
    order = [count - 1, 0] if count > 1 else list(range(count))
    gaps = [(0, count - 1)]
    while gaps:
        low, high = gaps.pop(0)
        if high - low > 1:
            middle = (low + high) // 2
            order.append(middle)
            gaps += [(low, middle), (middle, high)]
    return order


def place_names(
    axes: Axes,
    points: Sequence[Position],
    names: Sequence[tuple[int, str]],
    lines: Sequence[Segment] = (),
    bars: Sequence[Segment] = (),
    most: int = 9,
) -> list[Text]:
    """Write `names` (index of a point, text) beside their points, the first come first, at most `most`.

    No name covers one of `points`, a line, or another name, or is nearer to another point than to its own; nor does it cover
    one of `bars`, where there is such a place. All in data coordinates. The figure's layout must be final. Returns what was
    written.
    """
    scale = axes.figure.dpi / 72
    middles = [_pixels(axes, point) for point in points]
    marks = [_square(middle, MARK * scale) for middle in middles]
    strokes, thin = ([(_pixels(axes, start), _pixels(axes, end)) for start, end in segments] for segments in (lines, bars))
    inside = axes.get_window_extent()
    taken: list[Bbox] = []
    written: list[Text] = []
    for index, name in names:
        if len(written) == most:
            break
        for place, avoided in [*((place, [*strokes, *thin]) for place in PLACES), *((place, strokes) for place in PLACES)]:
            text = _write(axes, name, points[index], place)
            box = text.get_window_extent()
            covers = (
                _astray(place, scale, index, middles)
                or any(map(box.overlaps, (*marks, *taken)))
                or any(crosses(box.extents, *segment) for segment in avoided)
            )
            if not covers and inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1:
                taken.append(box.padded(ROOM * scale))
                written.append(text)
                break
            text.remove()
    return written


def _write(axes: Axes, name: str, point: Position, place: tuple[int, int, int, int]) -> Text:
    x, y, aside, above = place
    text = axes.annotate(
        name,
        point,
        (x * aside, y * above),
        textcoords="offset points",
        fontsize=TEXT_PT,
        color=INK,
        ha={-1: "right", 0: "center", 1: "left"}[x],
        va={-1: "top", 0: "center", 1: "bottom"}[y],
    )
    text.set_in_layout(False)
    return text


def _pixels(axes: Axes, point: Position) -> Position:
    x, y = axes.transData.transform(point)
    return float(x), float(y)


def _astray(place: tuple[int, int, int, int], scale: float, index: int, middles: Sequence[Position]) -> bool:
    """Whether a name at a place would begin nearer to another mark than to its own."""
    x, y, aside, above = place
    start = middles[index][0] + x * aside * scale, middles[index][1] + y * above * scale
    return any(dist(start, middle) < dist(start, middles[index]) - SAME_PX for middle in middles)


def _square(middle: Position, half: float) -> Bbox:
    from matplotlib.transforms import Bbox

    x, y = middle
    return Bbox([[x - half, y - half], [x + half, y + half]])
