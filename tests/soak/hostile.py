"""Damage to files, drawn from a generator: of plain values by their structure, of bytes wherever they are.

A text has words for what JSON's writer refuses (whole numbers of 5,000 digits, nesting of 5,000): `RAW` stands for them in a
value, and `spelled` puts them into the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from typing import Any

Path = tuple[Any, ...]
RAW = "@raw:"
SPELLED = {
    "digits": "9" * 5000,
    "exponent": "1e99999",
    "tiny": "1e-99999",
    "deep_list": "[" * 5000 + "]" * 5000,
    "deep_mapping": '{"a":' * 5000 + "1" + "}" * 5000,
    "nan": "NaN",
    "infinity": "-Infinity",
    "surrogate": '"\\ud800"',
    "zero_letter": '"a\\u0000b"',
    "open": "[",
    "long_list": "[" + "0," * 200_000 + "0]",
}
NUMBERS = (0, -1, 1, 2, 3, 7, 255, 2**31, 2**63, -(2**63), 2**64, 10**18, 10**30, 0.0, -0.5, 0.5, 1e-300, 1e308, -1e308)
TEXTS = ("", " ", "a", "0", "-1", "nan", "1e400", "../../etc/passwd", "/dev/zero", "a\nb", "\x1b[31m", "é", "a" * 100_000)
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], {"": {}}, [None], {"a": [1, {"b": 2}]}, [1.0] * 1000)
NOT_FINITE = (float("nan"), float("inf"), float("-inf"))


def hostile(draw: Random) -> Any:
    """A value that nobody expects."""
    pool = draw.choice((NUMBERS, TEXTS, OTHERS, tuple(RAW + name for name in SPELLED), NOT_FINITE))
    return copied(draw.choice(pool))


def spelled(text: str) -> str:
    """A text of JSON with the words that stand for what its writer refuses."""
    return re.sub(rf'"{RAW}(\w+)"', lambda match: SPELLED[match[1]], text)


def places(value: Any, most: int = 20_000, deepest: int = 40) -> list[Path]:
    """The path of everything within a value of dictionaries and lists, which may hold itself."""
    paths: list[Path] = []
    ahead: list[tuple[Path, Any]] = [((), value)]
    while ahead and len(paths) < most:
        path, inner = ahead.pop()
        if path:
            paths.append(path)
        if len(path) == deepest:
            continue
        if isinstance(inner, dict):
            ahead += [((*path, key), item) for key, item in inner.items()]
        elif isinstance(inner, list):
            ahead += [((*path, index), item) for index, item in enumerate(inner)]
    return paths


def at(value: Any, path: Path) -> Any:
    """What stands at a path."""
    for key in path:
        value = value[key]
    return value


def put(value: Any, path: Path, new: Any) -> None:
    """Have `new` at a path."""
    at(value, path[:-1])[path[-1]] = new


def copied(value: Any) -> Any:
    """Dictionaries and lists anew; what they hold stays."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copied(item) for item in value]
    return value


def _replaced(draw: Random, value: Any, path: Path) -> None:
    put(value, path, hostile(draw))


def _removed(draw: Random, value: Any, path: Path) -> None:
    del at(value, path[:-1])[path[-1]]


def _renamed(draw: Random, value: Any, path: Path) -> None:
    holder = at(value, path[:-1])
    if isinstance(holder, dict):
        holder[draw.choice(TEXTS)] = holder.pop(path[-1])
    else:
        holder.reverse()


def _swapped(draw: Random, value: Any, path: Path) -> None:
    other = draw.choice(places(value))
    short, long = sorted((path, other), key=len)
    if long[: len(short)] != short:  # neither is within the other
        first, second = at(value, path), at(value, other)
        put(value, path, second)
        put(value, other, first)


def _copied_over(draw: Random, value: Any, path: Path) -> None:
    put(value, path, copied(at(value, draw.choice(places(value)))))


def _numbers_changed(draw: Random, value: Any, path: Path) -> None:
    old = at(value, path)
    if isinstance(old, int | float) and not isinstance(old, bool):
        put(value, path, draw.choice((-old, old + 1, old - 1, old * 2, old * 10**9, old / 3, float(old), str(old))))
    elif isinstance(old, str):
        put(value, path, draw.choice((old.upper(), old[:-1], old * 2, old + " ", old[::-1], old * 1000)))
    elif isinstance(old, list):
        put(
            value,
            path,
            draw.choice((old * 2, old[:-1], old[1:], [*old, *old[:1]], {str(i): item for i, item in enumerate(old)})),
        )
    elif isinstance(old, dict):
        put(value, path, draw.choice(([*old], [*old.items()], {**old, "extra": hostile(draw)}, list(old.values()))))
    else:
        put(value, path, hostile(draw))


def _wrapped(draw: Random, value: Any, path: Path) -> None:
    old = at(value, path)
    put(value, path, draw.choice(([old], {"value": old}, [old, old], [[[[old]]]])))


WAYS: tuple[Callable[[Random, Any, Path], None], ...] = (
    *(
        _replaced,
        _replaced,
        _replaced,
        _removed,
        _renamed,
        _swapped,
        _copied_over,
        _numbers_changed,
        _numbers_changed,
        _wrapped,
    ),
)


def damaged_value(draw: Random, value: Any, times: int = 1) -> Any:
    """A copy of a plain value with so many places changed. A value without places becomes a hostile one."""
    value = copied(value)
    for _ in range(times):
        paths = places(value)
        if not paths:
            return hostile(draw)
        draw.choice(WAYS)(draw, value, _even_choice(draw, paths))
    return value


def _even_choice(draw: Random, paths: list[Path]) -> Path:
    """Of all depths alike: most places are in the long lists, most of what is read is not."""
    depth = draw.choice(sorted({len(path) for path in paths}))
    return draw.choice([path for path in paths if len(path) == depth])


def damaged_bytes(draw: Random, content: bytes, times: int = 1) -> bytes:
    """Bytes with so many places flipped, cut off, repeated, put in, taken out or zeroed."""
    changed = bytearray(content)
    for _ in range(times):
        if not changed:
            return bytes(draw.randrange(256) for _ in range(16))
        # the beginning and the end say what the rest is
        size = len(changed)
        near = draw.choice((size, size, min(size, 64), min(size, 1024)))
        place = draw.randrange(near) if draw.random() < 0.7 else size - 1 - draw.randrange(near)
        length = min(draw.choice((1, 1, 2, 4, 8, 64, 4096)), size - place)
        way = draw.randrange(7)
        if way == 0:
            changed[place] ^= 1 << draw.randrange(8)
        elif way == 1:
            changed[place] = draw.choice((0, 1, 127, 128, 255))
        elif way == 2:
            del changed[place:]
        elif way == 3:
            changed[place:place] = changed[place : place + length] * draw.choice((1, 2, 100))
        elif way == 4:
            changed[place:place] = bytes(draw.randrange(256) for _ in range(min(length, 64)))
        elif way == 5:
            changed[place : place + length] = bytes(length)
        else:
            del changed[place : place + length]
    return bytes(changed)


def how_often(draw: Random) -> int:
    """How many changes one file gets: 1 to 3, one of them most often."""
    return draw.choice((1, 1, 1, 2, 3))
