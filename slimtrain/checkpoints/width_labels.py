"""Widths from channels: a stored entry gets the roundest label that fits every norm's size (multiples of 0.05, then 0.025,
then 0.01, and so on). Where several labels stay, the user is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from slimtrain.base.errors import CheckpointError, UserError
from slimtrain.checkpoints.skeleton import Sizes, skeleton
from slimtrain.models.architecture import Architecture
from slimtrain.models.channels import width_label

UNIT = 10_000  # widths are counted in these parts, so that labels are exact
TIERS = (500, 250, 100, 50, 10, 5, 1)  # multiples of 0.05, 0.025, 0.01, ...
WIDEST_LABEL = 4 * UNIT
SETTLE = "--switches W1,W2,... (in stored order) or --config apps/NAME.yml"
MOSTLY = 0.8  # share of norms that makes a width the meant one, the rest being damage


Predictor = Callable[[float], Sizes]  # a width -> the size of every norm


class NoSuchWidthsError(CheckpointError):
    """The norms are nothing like those of any widths."""


class WidthsUnclearError(UserError):
    """Several widths have the shapes of an entry: `reason` says which entries and widths, the message how to settle it too."""

    def __init__(self, reason: str, known: str) -> None:
        super().__init__(f"{reason}. Say which they are with {SETTLE}. Known so far: {known}.")
        self.reason = reason


def predictor(arch: Architecture, family: str) -> Predictor:
    """The sizes that a width gives, those of fixed groups as if it were the widest."""
    bones = skeleton(arch)

    @cache
    def predict(width: float) -> Sizes:
        channels = dict(zip(bones.wiring.groups, arch.channel_list(family, width, width), strict=True))
        return {norm.path: norm.dim.active(channels) for norm in bones.norms}

    return predict


def fits(entry: Sizes, predicted: Sizes) -> bool:
    """Whether all sizes that are stored are the predicted ones."""
    return all(entry[path] == size for path, size in predicted.items() if path in entry)


def candidate_labels(entry: Sizes, predict: Predictor) -> tuple[list[float], int]:
    """The roundest labels that fit, and the step (in parts of UNIT) they are multiples of; none: ([], 0)."""
    for step in TIERS:
        if fitting := _fitting(entry, predict, step):
            return fitting, step
    return [], 0


def label_widths(entries: Sequence[Sizes], predict: Predictor, name: str, what: str) -> list[float]:
    """A width for every entry. UserError where several stay, CheckpointError where an entry fits no width."""
    labels = []
    for index, entry in enumerate(entries):
        fitting, _ = candidate_labels(entry, predict)
        if not fitting:
            nearest, agreement = _nearest_width(entry, predict)
            if agreement < MOSTLY:
                raise NoSuchWidthsError(
                    f"{name}: is no {what}: switch {index + 1} fits no width; {width_label(nearest)} comes nearest, with "
                    f"{agreement:.0%} of the norms. The file is damaged, or of another network: name it with --network."
                )
            fitting = [nearest]  # a damaged file: comparing the layout will name what is wrong
        labels.append(fitting)
    tied = [i for i, fitting in enumerate(labels) if len(fitting) > 1 or labels.count(fitting) > 1]
    if tied:
        kind = "width" if what.startswith("us_") else "switch"
        lines = []
        for i in tied:
            finer = _finer(entries[i], predict, labels[i], sum(labels[i] == other for other in labels))
            lines.append(f"{kind} {i + 1} of {len(entries)} may be {' or '.join(map(width_label, finer))}")
        known = ", ".join(width_label(f[0]) if i not in tied else "?" for i, f in enumerate(labels))
        raise WidthsUnclearError(f"{name}: shapes alone do not tell its widths: {'; '.join(lines)}", known)
    return [fitting[0] for fitting in labels]


def _finer(entry: Sizes, predict: Predictor, labels: list[float], needed: int) -> list[float]:
    """Candidates for a tied entry: `labels`, and finer ones until there are as many as entries share them."""
    for step in TIERS:
        if len(labels) >= max(needed, 2):
            break
        more = _fitting(entry, predict, step)
        labels = more if len(more) > len(labels) else labels
    return labels


def _fitting(entry: Sizes, predict: Predictor, step: int) -> list[float]:
    """The multiples of `step` (in parts of UNIT) that fit."""
    return [k / UNIT for k in range(step, WIDEST_LABEL + 1, step) if fits(entry, predict(k / UNIT))]


def _nearest_width(entry: Sizes, predict: Predictor) -> tuple[float, float]:
    """The width (in steps of 0.005) that most of an entry's norms agree with, and their share."""

    def agreement(width: float) -> float:
        sizes = predict(width)
        return sum(size == sizes[path] for path, size in entry.items()) / len(entry)

    return max(((k / UNIT, agreement(k / UNIT)) for k in range(50, WIDEST_LABEL + 1, 50)), key=lambda pair: pair[1])


def assign_widths(
    entries: Sequence[Sizes],
    widths: Sequence[float],
    predict: Predictor,
    name: str,
    *,
    complete: bool = False,
    any_between: bool = False,
) -> list[float]:
    """Give every entry one of `widths` that fits it, in order where several do.

    `complete`: all must be used. `any_between`: an entry that none is left for may have another width between the narrowest
    and the widest of them, as its shapes say. UserError where that is not possible.
    """
    if complete and len(widths) != len(entries):
        raise UserError(
            f"--switches names {len(widths)} widths, {name} holds norms for {len(entries)}. Give one per switch, "
            "in stored order."
        )
    for width in widths:
        if not 0 < width <= WIDEST_LABEL / UNIT:
            raise UserError(f"switch {width}: expected a width above 0 and up to {WIDEST_LABEL // UNIT}. Correct --switches.")
    places = matching([[i for i, width in enumerate(widths) if fits(entry, predict(width))] for entry in entries])
    assigned = [None if place is None else widths[place] for place in places]
    for index, entry in enumerate(entries):
        if assigned[index] is not None:
            continue
        shapes, _ = candidate_labels(entry, predict)
        between = [w for w in shapes if min(widths) <= w <= max(widths) and w not in assigned]
        if not any_between or len(between) != 1:
            possible = " or ".join(map(width_label, shapes)) or "no single width"
            left = [width for i, width in enumerate(widths) if i not in places]
            raise UserError(
                f"{name}: switch {index + 1} of {len(entries)} has the shapes of {possible}; none of "
                f"{', '.join(map(width_label, left)) or 'the widths left'} fits it. Correct --switches or --config."
            )
        assigned[index] = between[0]
    return [width for width in assigned if width is not None]


def matching(fitting: Sequence[Sequence[int]]) -> list[int | None]:
    """One of its fitting places for every entry, none twice: for as many entries as possible, and the first free one where
    there is one (Kuhn's augmenting paths). None for an entry that gets no place."""
    places: list[int | None] = [None] * len(fitting)

    def settle(entry: int, seen: set[int]) -> bool:
        free = [place for place in fitting[entry] if place not in places]
        for place in [*free[:1], *fitting[entry]]:
            if place in seen:
                continue
            seen.add(place)
            if place not in places or settle(places.index(place), seen):
                places[entry] = place
                return True
        return False

    for entry in range(len(fitting)):
        settle(entry, set())
    return places
