"""What a run says to somebody who has to choose, each thing once: which widths and precisions are worth shipping."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.cells.shares import TOP1, key_of
from benchmarks.cells.statistics import standard_error
from benchmarks.report.analysis import ACCURACY, EVERY_FASTER, SINGLE_ROUND, AnalysisRow, Group, capability, faster, listed
from benchmarks.report.folding import Key, fold
from slimexport.target.precision import EXACT
from slimtrain.base.text import count

EVERY_WIDTH = "every width"


def decisions(groups: Sequence[Group]) -> list[str]:
    """What is worth shipping, of all groups that compare something, and whether low precision pays: each sentence once, with
    the tables that it is of."""
    compared = [group for group in groups if len(group.measured) > 1]
    keys = [group.key for group in compared]
    said = [(group.key, _worth(group)) for group in compared]
    measured = [group.key for group in groups if group.measured]
    known = [(group.key, _accuracy_error(group.measured)) for group in groups if group.measured and group.against == ACCURACY]
    return fold(said, keys) + paying(groups) + _ranks(compared) + fold(known, measured)


def _ranks(groups: Sequence[Group]) -> list[str]:
    """What latency has to do with MACs, from the least to the most."""
    ranks = [group.rank_correlation for group in groups if group.rank_correlation is not None]
    shown = dict.fromkeys(f"{rank:.2f}" for rank in (min(ranks, default=0), max(ranks, default=0)))
    return [f"rank correlation of latency with MACs: {' to '.join(shown)} (1: the same order)"] if ranks else []


ASIDE = (EVERY_FASTER, SINGLE_ROUND)


def single_round(groups: Sequence[Group]) -> list[str]:
    """That one round cannot tell noise, where a comparison had no more."""
    said = [(group.key, SINGLE_ROUND) for group in groups if SINGLE_ROUND in group.sentences]
    return fold(said, [group.key for group in groups if len(group.measured) > 1])


def _worth(group: Group) -> str:
    """Which of a group's widths are worth shipping, and why the others are not."""
    by_accuracy = group.against == ACCURACY
    if len(group.worth) == len(group.measured):
        said = f"{EVERY_WIDTH} is worth shipping, faster than every {'more accurate' if by_accuracy else 'wider'} one"
    else:
        said = f"worth shipping: {rows_named(group, group.worth)}"
    why = _less_accurate(group) if by_accuracy else [line for line in group.sentences if line not in ASIDE]
    return "; ".join([said, *why])


def _less_accurate(group: Group) -> list[str]:
    """Of the widths that are not worth shipping, which one is to be taken instead."""
    by_better: dict[str, list[AnalysisRow]] = {}
    for row in group.measured:
        if row not in group.worth:
            better = [
                other
                for other in group.worth
                if capability(other, group.against) >= capability(row, group.against) and not faster(row, other)
            ]
            if better:
                by_better.setdefault(min(better, key=lambda other: other.cell.macs).cell.label, []).append(row)
    return [f"not {rows_named(group, rows)}, {label} is no less accurate and no slower" for label, rows in by_better.items()]


def paying(groups: Sequence[Group]) -> list[str]:
    """Whether what is beside fp32 on the same backend at the same batch is faster, by more than noise, and by how much."""
    exact = {(*group.key[:2], group.key[3]): group for group in groups if group.key[2] == EXACT}
    said: list[tuple[Key, str]] = []
    for group in groups:
        beside = exact.get((*group.key[:2], group.key[3]))
        if beside is None or beside is group:
            continue
        rows = {row.cell.label: row for row in beside.measured}
        pairs = [(row, rows[row.cell.label]) for row in group.measured if row.cell.label in rows]
        if pairs:
            said.append((group.key, _pays(group, pairs)))
    return fold(said, [group.key for group in groups if group.measured])


def _pays(group: Group, pairs: Sequence[tuple[AnalysisRow, AnalysisRow]]) -> str:
    shares = [row.summary.median_ms / other.summary.median_ms for row, other in pairs if row.summary and other.summary]
    shown = dict.fromkeys(f"{share:.2f}" for share in (min(shares), max(shares)))
    won = [row for row, other in pairs if faster(row, other)]
    verdict = "pays" if len(won) == len(pairs) else f"pays at {rows_named(group, won)} only" if won else "does not pay"
    return f"{verdict}: takes {' to '.join(shown)} of {EXACT}'s time"


def rows_named(group: Group, rows: Sequence[AnalysisRow]) -> str:
    """`0.25x and 0.7x to 0.95x`."""
    return listed([row.cell.label for row in group.measured], [at for at, row in enumerate(group.measured) if row in rows])


def _accuracy_error(measured: Sequence[AnalysisRow]) -> str:
    """How far the number of images leaves accuracies open."""
    known = [row.cell.accuracy for row in measured if row.cell.accuracy]
    images, data = known[0].get("images"), known[0].get("data")
    if not images:
        return f"accuracies are on {data}"
    if key_of(known[0]) != TOP1:
        return f"average precisions are on the {count(images, 'image')} of {data}: how far these leave them open is not known"
    error = max(map(standard_error, known))
    return f"accuracies are on the {count(images, 'image')} of {data}: a standard error is up to {100 * error:.1f} points"
