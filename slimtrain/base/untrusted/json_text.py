"""JSON that somebody else wrote, as plain values of bounded depth and numbers."""

from __future__ import annotations

import itertools
import json
import math
import re
from typing import Any

from slimtrain.base.untrusted.quoting import quoted, shortened

DEPTH = 64  # objects and lists within each other
LARGEST = 2**63  # whole numbers are below it, and above its negative


# of a JSON text in ASCII: what an escape of half a letter may be taken for, then such an escape itself
HALVES = re.compile(r"\\\\|\\ud[89ab]..\\ud[c-f]..|(\\ud[89a-f]..)")


class JsonError(ValueError):
    """A text is not JSON as it is read here; the message says where."""


def parse_json(text: str, what: str = "the text", depth: int = DEPTH) -> Any:
    """The value of a JSON text, called `what` in messages: null, booleans, finite numbers below 2 to the 63rd, texts that can
    be encoded, lists, objects; at most `depth` of the last two within each other.

    Raises JsonError, in one line, for anything else: nesting that Python's own reader gives up at, numbers of thousands of
    digits, NaN, the halves of letters.
    """
    try:
        value = json.loads(text, parse_int=_whole, parse_float=_number, parse_constant=_constant)
    except JsonError as error:
        raise JsonError(f"{what}: {error}") from None
    except RecursionError:
        raise JsonError(f"{what}: is nested deeper than {depth} levels") from None
    except json.JSONDecodeError as error:
        raise JsonError(f"{what}: is no JSON ({error.msg}, line {error.lineno}, column {error.colno})") from None
    _check(value, what, depth)
    return value


def whole_letters(text: str) -> str:
    """A text that `json.dumps` wrote in ASCII, such that every reader takes it: halves of letters, which stand for bytes of a
    file's name that are no UTF-8, are shown as escapes, as messages show them."""
    return HALVES.sub(lambda match: f"\\{match[1]}" if match[1] else match[0], text)


def _whole(digits: str) -> int:
    if len(digits) > 20 or not -LARGEST < int(digits) < LARGEST:
        raise JsonError(f"the number {shortened(digits, 24)} is out of range")
    return int(digits)


def _number(digits: str) -> float:
    if not math.isfinite(value := float(digits)):
        raise JsonError(f"the number {shortened(digits, 24)} is out of range")
    return value


def _constant(name: str) -> Any:
    raise JsonError(f"{name} is no number of JSON")


def _check(value: Any, what: str, depth: int) -> None:
    """Depth and texts, without recursion."""
    level = [value]
    for _ in range(depth + 1):
        objects = [part for part in level if isinstance(part, dict)]
        lists = [part for part in level if isinstance(part, list)]
        for text in itertools.chain((part for part in level if isinstance(part, str)), *objects):
            _check_text(text, what)
        if not objects and not lists:
            return
        level = [inner for part in (*lists, *(part.values() for part in objects)) for inner in part]
    raise JsonError(f"{what}: is nested deeper than {depth} levels")


def _check_text(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise JsonError(f"{what}: the text {quoted(text)} holds half a letter") from None
