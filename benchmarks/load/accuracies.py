"""How good the widths of a service are: as its bundle's manifest knows it, or, of the published networks at their images and
classes, as was published."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.cells.published_errors import ERRORS, published_error
from benchmarks.load.figures import WidthFacts
from slimtrain.base.errors import UserError
from slimtrain.models.spec import IMAGE_CHANNELS, IMAGENET_CLASSES, PUBLISHED_SIZE

MANIFEST, PUBLISHED = "manifest", "published"


def with_accuracies(
    facts: Sequence[WidthFacts], network: str, image_shape: Sequence[int], classes: int | None
) -> tuple[tuple[WidthFacts, ...], str | None]:
    """The widths with their accuracies, and where those are from: MANIFEST where all have one already, else PUBLISHED where
    all were published of `network` for images [C, H, W] and so many classes; else as they are, and None."""
    if facts and all(fact.accuracy is not None for fact in facts):
        return tuple(facts), MANIFEST
    as_published = (tuple(image_shape), classes) == ((IMAGE_CHANNELS, PUBLISHED_SIZE, PUBLISHED_SIZE), IMAGENET_CLASSES)
    if not facts or network not in ERRORS or not as_published:
        return tuple(facts), None
    known = []
    for fact in facts:
        try:
            error = published_error(network, -1.0 if fact.width is None else fact.width)
        except UserError:  # a width between those
            return tuple(facts), None
        known.append(WidthFacts(fact.label, fact.width, 1 - error / 100))
    return tuple(known), PUBLISHED


def published_widths(network: str) -> tuple[WidthFacts, ...]:
    """All switches of a network, with their published accuracies; none where it was not published."""
    from slimtrain.models.published import published_spec

    if network not in ERRORS:
        return ()
    switches = published_spec(network).switches
    return tuple(
        WidthFacts(f"{width:g}", float(width), 1 - error / 100) for width, error in zip(switches, ERRORS[network], strict=True)
    )
