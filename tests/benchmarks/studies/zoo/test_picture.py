"""The picture, as matplotlib holds it: names beside what is worth shipping, marks by family, colours by architecture."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from benchmarks.cells.published_errors import ERRORS
from benchmarks.report.plots.style import COLOURS
from benchmarks.studies.zoo.front import Point, joint_front
from benchmarks.studies.zoo.picture import BEATEN, COLOUR, FORM, WORTH, kind_of, zoo_figure
from slimtrain.costs.cost import CostCounter
from slimtrain.models.published import published_spec
from tests.support.bench_colours import BLIND, seen
from tests.support.shown_results import cell

AXIS = {"batch 1": "latency (ms)", "MACs": "MACs (M)"}


DEPTHWISE = {"mobilenet_v1": 0.9, "mobilenet_v2": 1.6, "shufflenet": 2.9, "mnasnet": 1.4, "resnet50": 0.9}  # ms per 100M MACs


def every_point(measured: bool) -> list[Point]:
    points = []
    for network, errors in ERRORS.items():
        spec = published_spec(network)
        count = CostCounter(spec, 224)
        for plan, error in zip(spec.plans, errors, strict=True):
            label = f"s{plan.width}" if isinstance(plan.width, int) else f"{plan.width}x"
            macs = count(plan).macs
            cost = 0.3 + DEPTHWISE[spec.architecture] * macs / 1e8 if measured else macs / 1e6
            of = cell(label, macs, network=network, width=plan.width)
            points.append(Point(of, error, cost, 0.99 * cost if measured else cost, 1.01 * cost if measured else cost))
    return points


def test_every_network_that_is_worth_it_is_named_once_and_names_keep_apart() -> None:
    panels = {"batch 1": every_point(True), "MACs": every_point(False)}
    figure = zoo_figure(panels, AXIS, "Which?", "onnxruntime-cpu")
    figure.draw_without_rendering()
    for axes, points in zip(figure.axes, panels.values(), strict=False):
        front = joint_front(points)
        written = [text for text in axes.texts if text.get_text()]
        names = sorted(text.get_text().partition("\n")[0] for text in written)
        assert names == sorted({point.network for point in front.worth})
        boxes = [text.get_window_extent() for text in written]
        assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
        assert not any(box.contains(*axes.transData.transform((at.cost, at.error))) for box in boxes for at in points)
        inside = axes.get_window_extent()
        assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 for box in boxes)
        assert "published" in axes.get_ylabel()


def test_a_mark_says_whether_a_switch_is_worth_it() -> None:
    points = every_point(True)
    front = joint_front(points)
    assert {kind_of(point, front) for point in front.worth} == {WORTH}
    assert all(kind_of(point, front) == BEATEN for point in points if point not in front.points)


def test_five_architectures_keep_apart_in_colour_and_three_families_in_form() -> None:
    assert len(set(COLOUR.values())) == 5 and set(COLOUR.values()) <= set(COLOURS)
    assert len({form for form, _ in FORM.values()}) == len(FORM) == 3
    for one, other in combinations(COLOUR.values(), 2):
        assert all(np.linalg.norm(seen(one, by) - seen(other, by)) > 0.2 for by in BLIND), f"{one} and {other}"
