"""The made-up CUDA runtime and TensorRT of tests/slimexport serve here too, also where only this folder's tests are run."""

from __future__ import annotations

import sys
from pathlib import Path

SLIMEXPORT = str(Path(__file__).parents[1] / "slimexport")
if SLIMEXPORT not in sys.path:
    sys.path.append(SLIMEXPORT)
