"""What came of a damaged file, a kill or a failing disk."""

from __future__ import annotations

import re
import traceback
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtrain.base.errors import UserError
from tests.soak.kinds.kind import WrongResultError

REFUSED, RIGHT, WRONG = "refused", "right", "wrong"
CODES = (1, 2, 3)  # a verification that failed, bad input, an environment that lacks something
OUT_OF_MEMORY = re.compile(r"MemoryError|allocate memory|Unable to allocate|bad_alloc|Failed to allocate|bad allocation")
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Outcome:
    """`what` is wrong, in a word or two that others of its kind share; `message`: what was said."""

    kind: str
    number: int
    outcome: str
    what: str = ""
    message: str = ""
    damage: str = ""
    seconds: float = 0.0

    @property
    def line(self) -> str:
        """For a person."""
        message = " ".join(self.message.split())
        return f"{self.kind} {self.number}: {self.what} ({self.damage}): {message[:300]}"


def of_error(error: BaseException) -> tuple[str, str]:
    """Which outcome an error of a reader is, and what is wrong."""
    chain = list(_chain(error))
    memory = any(isinstance(one, MemoryError) or OUT_OF_MEMORY.search(str(one)[:100_000]) for one in chain)
    if isinstance(error, UserError):
        if error.exit_code not in CODES or not str(error).strip():
            return WRONG, f"refused with code {error.exit_code} and {str(error)[:20]!r}"
        return (WRONG, f"memory: refused only as there was no more ({place_of(chain[-1])})") if memory else (REFUSED, "")
    if isinstance(error, WrongResultError):
        return WRONG, "result"
    if memory:
        return WRONG, f"memory: {place_of(error)}"
    return WRONG, f"traceback: {type(error).__name__} at {place_of(error)}"


def _chain(error: BaseException | None) -> Iterable[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def place_of(error: BaseException) -> str:
    """`file.py:12`, the innermost of our packages' lines."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(ROOT) and "/tests/" not in frame.filename]
    chosen = own or list(frames)
    return f"{Path(chosen[-1].filename).name}:{chosen[-1].lineno}" if chosen else "nowhere"


def counted(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """tried, refused, right, wrong."""
    counts = Counter(one.outcome for one in outcomes)
    return {"tried": counts.total(), **{name: counts[name] for name in (REFUSED, RIGHT, WRONG)}}


def wrong_groups(outcomes: Iterable[Outcome]) -> list[dict[str, Any]]:
    """What is wrong, the most frequent first, each with the first number that shows it."""
    groups: dict[str, list[Outcome]] = {}
    for one in outcomes:
        if one.outcome == WRONG:
            groups.setdefault(one.what, []).append(one)
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    return [{"what": what, "count": len(group), "first": group[0].number, "example": group[0].line} for what, group in ordered]
