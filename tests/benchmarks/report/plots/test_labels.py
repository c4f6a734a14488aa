"""Names beside points."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from benchmarks.report.plots.labels import order_of_importance, place_names
from benchmarks.report.plots.style import freeze, new_figure


@pytest.mark.parametrize("count", [1, 2, 3, 10, 31])
def test_order_of_importance_begins_with_the_ends_and_spreads(count: int) -> None:
    order = order_of_importance(count)
    assert sorted(order) == list(range(count))
    assert set(order[:2]) == {0, count - 1}
    if count > 4:
        first = sorted(order[:5])
        assert max(b - a for a, b in pairwise(first)) <= -(-(count - 1) // 4) + 1


def test_names_in_a_cloud_of_points_cover_nothing() -> None:
    figure, (axes,) = new_figure(1)
    points = [(float(x), float(y)) for x, y in np.random.default_rng(0).uniform(0, 1, (60, 2))]
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    freeze(figure)
    written = place_names(axes, points, [(index, f"point {index}") for index in range(60)], most=25)
    boxes = [text.get_window_extent() for text in written]
    assert len(written) == 25
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    inside = axes.get_window_extent()
    for box in boxes:
        assert inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
        assert not any(box.contains(*axes.transData.transform(point)) for point in points)


@pytest.mark.parametrize("slope", [0.0, 1.0, 12.0, 1e6])
def test_a_name_begins_nearest_to_its_own_point_however_close_they_lie(slope: float) -> None:
    """31 points 14 pixels apart on a line: where a name begins, as matplotlib drew it, no other point is nearer."""
    figure, (axes,) = new_figure(1)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    freeze(figure)
    inside = axes.get_window_extent()
    along = np.array([1.0, slope]) / np.hypot(1.0, slope)
    pixels = np.array([inside.x0 + 300, inside.y0 + 60]) + 14 * np.arange(31)[:, None] * along
    points = [(float(x), float(y)) for x, y in axes.transData.inverted().transform(pixels)]
    written = place_names(axes, points, [(index, str(index)) for index in order_of_importance(31)])
    assert len(written) >= 5
    for text in written:
        box, index = text.get_window_extent(), int(text.get_text())
        x = {"left": box.x0, "center": (box.x0 + box.x1) / 2, "right": box.x1}[text.get_horizontalalignment()]
        y = {"bottom": box.y0, "center": (box.y0 + box.y1) / 2, "top": box.y1}[text.get_verticalalignment()]
        distances = np.hypot(*(pixels - (x, y)).T)
        assert distances[index] <= distances.min() + 3  # boxes are a pixel or two larger than their letters
