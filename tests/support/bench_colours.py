"""Colours as an eye without colour sees them."""

from __future__ import annotations

from typing import Any

import numpy as np


def luminance(colour: Any) -> float:
    from matplotlib.colors import to_rgb

    return float(np.dot((0.2126, 0.7152, 0.0722), to_rgb(colour)))
