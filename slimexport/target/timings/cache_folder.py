"""The user's folder for what can be measured again."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """Where the user's caches lie: XDG_CACHE_HOME, ~/.cache or LOCALAPPDATA."""
    variable = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
    root = os.environ.get(variable)
    if not root:
        root = str(Path.home() / ("AppData/Local" if sys.platform == "win32" else ".cache"))
    return Path(root) / "slimexport"
