"""What is true of several tables is said once, with the tables that it is true of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Key = tuple[str, str, str, int]  # bundle, backend, precision, batch: a table


def places(keys: Sequence[Key], every: Sequence[Key]) -> str:
    """`s_resnet50, batch 1, 8; us_mobilenet_v1`: some of the tables of a run. What all tables of the run share is left out,
    and so is what runs through all values that there are, as batches of a network that are all meant; "" for all tables."""
    keys, every = list(dict.fromkeys(keys)), list(dict.fromkeys(every))
    if set(keys) >= set(every):
        return ""
    by_batches: dict[tuple[tuple[str, str], tuple[int, ...]], list[str]] = {}
    for bundle, backend, precision in dict.fromkeys(key[:3] for key in keys):
        batches = tuple(key[3] for key in keys if key[:3] == (bundle, backend, precision))
        by_batches.setdefault(((backend, precision), batches), []).append(bundle)
    parts: dict[tuple[str, ...], list[str]] = {}
    for ((backend, precision), batches), bundles in by_batches.items():
        mine = [key for key in every if key[1:3] == (backend, precision)]
        all_bundles = set(bundles) == {key[0] for key in every}
        all_batches = set(batches) == {key[3] for key in mine if key[0] in bundles}
        named = (
            "" if all_bundles else ", ".join(bundles),
            "" if all_batches else f"batch {', '.join(map(str, batches))}",
        )
        parts.setdefault(named, []).append(f"{backend} {precision}")
    runners = dict.fromkeys(f"{key[1]} {key[2]}" for key in every)
    shown = []
    for (bundles_text, batches_text), on in parts.items():
        on_text = "" if set(on) == set(runners) else ", ".join(on)
        shown.append(", ".join(filter(None, (bundles_text, on_text, batches_text))))
    return "; ".join(filter(None, shown))


def fold(said: Iterable[tuple[Key, str]], every: Sequence[Key]) -> list[str]:
    """Each sentence once, after the tables that it is said of: `batch 8: 0.75x is no faster than 1.0x`."""
    by_text: dict[str, list[Key]] = {}
    for key, text in said:
        by_text.setdefault(text, []).append(key)
    lines = []
    for text, keys in by_text.items():
        where = places(keys, every)
        if not where and len(set(every)) > 1:
            where = "both tables" if len(set(every)) == 2 else f"all {len(set(every))} tables"
        lines.append(f"{where}: {text}" if where else text)
    return lines
