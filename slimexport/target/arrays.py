"""The one alias for arrays; shapes and types are told where they are used."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
