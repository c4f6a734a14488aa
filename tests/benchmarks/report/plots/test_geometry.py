"""What covers and what crosses what."""

from __future__ import annotations

import numpy as np

from benchmarks.report.plots.geometry import crosses, grown, meet, overlap


def test_boxes_and_lines() -> None:
    box = (0.0, 0.0, 2.0, 1.0)
    assert overlap(box, (1.0, 0.5, 3.0, 2.0)) and not overlap(box, (2.0, 0.0, 3.0, 1.0))
    assert crosses(box, (-1.0, 0.5), (3.0, 0.5)) and crosses(box, (1.0, 0.5), (1.0, 0.6))
    assert not crosses(box, (-1.0, 1.5), (3.0, 1.5)) and not crosses(box, (3.0, -1.0), (3.0, 2.0))
    assert meet(((0, 0), (2, 2)), ((0, 2), (2, 0))) and not meet(((0, 0), (1, 1)), ((2, 0), (3, 1)))
    assert grown(box, 1.0) == (-1.0, -1.0, 3.0, 2.0)


def test_lines_through_boxes() -> None:
    box = (1.0, 1.0, 3.0, 2.0)
    random = np.random.default_rng(0)
    for _ in range(300):
        start, end = random.uniform(0, 4, (2, 2))
        along = start + np.linspace(0, 1, 2001)[:, None] * (end - start)
        inside = bool(((along > (1, 1)) & (along < (3, 2))).all(axis=1).any())
        grazes = bool((np.abs(along - (1, 1)).min() < 1e-2) or (np.abs(along - (3, 2)).min() < 1e-2))
        assert grazes or bool(crosses(box, tuple(start), tuple(end))) is inside
    assert crosses(box, (2, 0), (2, 4)) and not crosses(box, (0.5, 0), (0.5, 4))
    assert crosses(box, (2, 1.5), (2, 1.5)) and not crosses(box, (5, 5), (5, 5))
