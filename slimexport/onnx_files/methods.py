"""How int8 ranges are taken from activations: names only, for whoever asks for one."""

from __future__ import annotations

from slimtrain.base.errors import UserError

METHODS = MAX, PERCENTILE = ("max", "percentile")
INT8_IMAGES = 512  # that scales are measured and methods judged on, where no other number is asked for
AUTO = "auto"  # the one of METHODS that agrees best with fp32


def check_method(name: str) -> None:
    """UserError for a name that is none of them."""
    if name not in (AUTO, *METHODS):
        raise UserError(f"int8 calibration {name!r}: expected {AUTO}, {' or '.join(METHODS)}.")
