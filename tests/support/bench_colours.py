"""Colours as an eye without colour sees them."""

from __future__ import annotations

from typing import Any

import numpy as np


def luminance(colour: Any) -> float:
    from matplotlib.colors import to_rgb

    return float(np.dot((0.2126, 0.7152, 0.0722), to_rgb(colour)))


# Viénot, Brettel and Mollon (1999): linear RGB as an eye without red or green cones sees it
BLIND = {
    "protanopia": ((0.11238, 0.88762, 0.0), (0.11238, 0.88762, 0.0), (0.00401, -0.00401, 1.0)),
    "deuteranopia": ((0.29275, 0.70725, 0.0), (0.29275, 0.70725, 0.0), (-0.02234, 0.02234, 1.0)),
}


def seen(colour: Any, by: str) -> np.ndarray[Any, Any]:
    """A colour as an eye of BLIND sees it, gamma-corrected, [3] from 0 to 1."""
    from matplotlib.colors import to_rgb

    return np.asarray(np.clip(np.array(BLIND[by]) @ np.array(to_rgb(colour)) ** 2.2, 0, 1) ** (1 / 2.2))
