"""What of a detector's choices on the probe images hangs on roundings, as the reference itself says.

In `reference.npz`, of a plan: `near_x0_5.open` bool [P, D], rows of the reference that may go; `near_x0_5.others` float64
[A, 7], rows that may come in their place (image, label, score, x1, y1, x2, y2); of keypoints `near_x0_5.low` and
`near_x0_5.high` [P, D, K, 2], the corners of what is as good as highest. Everything else is the same in every right file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from slimexport.target.arrays import Array

COLUMNS = 7  # image, label, score and four corners
MOST_NUMBERS = 1 << 22  # of others, of a plan
NEAR = "near_"


@dataclass(frozen=True)
class NearEquals:
    """`open` [P, D], `others` [A, 7], `low` and `high` [P, D, K, 2] of a detector with keypoints."""

    open: Array
    others: Array
    low: Array | None = None
    high: Array | None = None

    def of_image(self, image: int) -> Array:
        """The rows that may come on an image, [n, 7]."""
        return np.asarray(self.others[self.others[:, 0] == image])

    def chosen(self, images: Array) -> NearEquals:
        """Those of these images [n], by number, one after the other, as often as each is named."""
        parts = [self.of_image(int(image)) for image in images]
        places = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        others = np.concatenate([places[:, None], np.concatenate(parts)[:, 1:]], 1)
        low, high = (None if edge is None else edge[images] for edge in (self.low, self.high))
        return NearEquals(self.open[images], others, low, high)

    def arrays(self, plan: str) -> Iterator[tuple[str, Array]]:
        """As `reference.npz` has them."""
        for name in ("open", "others", "low", "high"):
            if (values := getattr(self, name)) is not None:
                yield f"{near_key(plan)}.{name}", values


def near_key(plan: str) -> str:
    return f"{NEAR}{plan}"


def near_in(reference: Mapping[str, Array], plan: str, images: int, rows: int) -> NearEquals | None:
    """Those of a plan, of so many images and rows of each; None where there are none, as of earlier versions. ValueError for
    arrays that cannot be."""
    key = near_key(plan)
    if f"{key}.open" not in reference:
        return None
    open_, others = reference[f"{key}.open"], reference.get(f"{key}.others", np.empty(0))
    low, high = (reference.get(f"{key}.{name}") for name in ("low", "high"))
    right = open_.shape == (images, rows) and open_.dtype == np.bool_
    right &= others.ndim == 2 and others.shape[1] == COLUMNS and others.dtype == np.float64 and bool(np.isfinite(others).all())
    right &= (low is None) == (high is None)
    for edge in (low, high):
        right &= edge is None or (edge.ndim == 4 and edge.shape[:2] == (images, rows) and edge.dtype.kind == "f")
    if not right:
        raise ValueError(f"its {key} are {list(open_.shape)} and {list(others.shape)}")
    return NearEquals(open_, others, low, high)
