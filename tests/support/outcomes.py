"""What a run of a command left."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """What a run of the command left: exit code, standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def manifest(self) -> dict[str, Any]:
        printed: dict[str, Any] = json.loads(self.out)
        return printed

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()
