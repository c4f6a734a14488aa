"""The syntax of `--widths`, `--macs` and `--switches`. No torch: usage errors come at once."""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation
from typing import Literal

from slimtrain.base.errors import UserError

ALL: Literal["all"] = "all"
UNITS = {"K": 10**3, "M": 10**6, "G": 10**9}
MAX_WIDTHS = 1000
MAX_DIGITS = 15  # of a number, before or behind the point


def parse_number(text: str, what: str) -> Decimal:
    """A positive, finite decimal number; UserError otherwise."""
    try:
        value = Decimal(text.strip())
    except InvalidOperation as error:
        raise UserError(f"{what} {text.strip()!r}: not a number. Expected something like 0.5.") from error
    if not value.is_finite() or value <= 0 or abs(value.adjusted()) > MAX_DIGITS:
        raise UserError(f"{what} {text.strip()}: expected a positive number.")
    return value


def parse_widths(text: str) -> list[float] | None:
    """`0.5,1.0`, `0.25:1.0:0.05` (both ends included), mixtures of these, or `all`, which gives None.

    Widths in the order given, each once. UserError for anything else.
    """
    if text.strip().lower() == ALL:
        return None
    widths: list[float] = []
    for part in text.split(","):
        if not part.strip():
            raise UserError(f"widths {text!r}: an entry is empty. Expected 0.5,1.0, or 0.25:1.0:0.05, or all.")
        pieces = part.split(":")
        if len(pieces) == 1:
            widths.append(float(parse_number(part, "width")))
        elif len(pieces) == 3:
            low, high, step = (parse_number(piece, "width") for piece in pieces)
            if low > high:
                raise UserError(f"widths {part.strip()!r}: begins above its end. Expected FROM:TO:STEP, as in 0.25:1.0:0.05.")
            if (high - low) / step >= MAX_WIDTHS:
                raise UserError(f"widths {part.strip()!r}: more than {MAX_WIDTHS} widths. Take a larger step.")
            widths += [float(low + i * step) for i in range(int((high - low) / step) + 1)]
        else:
            raise UserError(f"widths {part.strip()!r}: expected a number, or FROM:TO:STEP as in 0.25:1.0:0.05.")
    return list(dict.fromkeys(widths))


def parse_macs(text: str) -> list[int]:
    """Budgets such as `150M,1.2G,500000`, in multiply-accumulates. UserError for anything else."""
    budgets = []
    for part in text.split(","):
        number = part.strip().upper()
        unit = UNITS.get(number[-1:], 1)
        budgets.append(math.floor(parse_number(number[:-1] if unit > 1 else number, "MACs") * unit))
    return list(dict.fromkeys(budgets))
