"""Average precision against its definition, written out one class, one IoU, one image at a time, and against pycocotools."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from slimtrain.base.errors import ResourceError
from slimtrain.base.packages import is_installed
from slimtrain.data.detection.targets import Targets, boxes_of_masks
from slimtrain.detection.average_precision import AveragePrecision, Detected, Kind, Precision

pytest.importorskip("faster_coco_eval", reason="the extra detection is not installed")

CLASSES, SIDE = 3, 180
BOUNDS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
SIGMAS = [0.05, 0.1]
Image = tuple[Targets, Detected]


def drawn(seed: int, images: int = 12) -> list[Image]:
    """Images with up to 5 objects, some crowds, and detections near them and elsewhere, many of equal scores."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]

    def shapes(count: int, near: Any = None) -> Any:
        if near is None:
            corners = draw.integers(0, 30, (count, 2))
            sizes = draw.integers(8, 150, (count, 2)) * draw.choice([0.3, 1], (count, 1))
            return np.concatenate([corners, np.minimum(corners + sizes.round().clip(3), SIDE)], 1)
        return np.clip(near + draw.integers(-4, 5, near.shape), 0, SIDE)

    def masks(boxes: Any) -> Any:
        """Ellipses in boxes."""
        result = np.zeros((len(boxes), SIDE, SIDE), bool)
        for mask, (x1, y1, x2, y2) in zip(result, boxes, strict=True):
            across, down = (2 * x + 1 - x1 - x2) / max(x2 - x1, 1), (2 * y + 1 - y1 - y2) / max(y2 - y1, 1)
            mask[:] = across**2 + down**2 <= 1
        return result

    pairs = []
    for image in range(images):
        count = int(draw.integers(0, 6))
        own = masks(shapes(count))
        boxes = boxes_of_masks(torch.from_numpy(own))
        points = np.concatenate([draw.uniform(0, SIDE, (count, 2, 2)), draw.integers(0, 3, (count, 2, 1))], 2)
        labels = draw.integers(1, CLASSES + 1, count)
        targets = Targets(
            SIDE,
            SIDE,
            boxes,
            torch.from_numpy(labels),
            torch.from_numpy(draw.random(count) < 0.2),
            torch.from_numpy(own.sum((1, 2))).float(),
            image,
            torch.from_numpy(own),
            torch.from_numpy(points).float(),
        )
        again = np.repeat(np.arange(count), draw.integers(0, 3, count))
        near, other = shapes(0, boxes.numpy()[again]), shapes(int(draw.integers(0, 4)))
        places = np.concatenate([near, other])
        seen = masks(places)
        kept = seen.any((1, 2))
        moved = np.concatenate(
            [points[again, :, :2] + draw.normal(0, 4, (len(again), 2, 2)), draw.uniform(0, SIDE, (len(other), 2, 2))]
        )
        classes = np.concatenate([labels[again], draw.integers(1, CLASSES + 1, len(other))])
        scores = draw.integers(0, 12, len(places)) / 12
        tight = boxes_of_masks(torch.from_numpy(seen)).numpy()
        pairs.append((targets, Detected(tight[kept], scores[kept], classes[kept], seen[kept], moved[kept])))
    return pairs


# ------------------------------------------------------------------------------------------------------ the definition


def overlap(kind: str, targets: Targets, i: int, detected: Detected, j: int) -> float:
    """IoU, of a crowd the share of the detection that lies in it; of keypoints their similarity."""
    if kind == "keypoints":
        assert targets.keypoints is not None
        own, other = targets.keypoints[i].double().numpy(), np.asarray(detected.keypoints)[j]
        x1, y1, x2, y2 = targets.boxes[i].double().tolist()
        squared = []
        for (x, y, seen), (u, v), sigma in zip(own, other[:, :2], SIGMAS, strict=True):
            if own[:, 2].any():
                dx, dy = u - x, v - y
            else:  # how far outside of twice the box
                w, h = x2 - x1, y2 - y1
                dx = max(0, x1 - w - u) + max(0, u - (x2 + w))
                dy = max(0, y1 - h - v) + max(0, v - (y2 + h))
            if seen or not own[:, 2].any():
                squared.append((dx**2 + dy**2) / (2 * sigma) ** 2 / 2 / (float(targets.area[i]) + np.spacing(1)))
        return float(np.exp(-np.array(squared)).mean())
    if kind == "masks":
        assert targets.masks is not None
        own, other = targets.masks[i].numpy(), np.asarray(detected.masks)[j]
        both, mine, theirs = float((own & other).sum()), float(own.sum()), float(other.sum())
    else:
        a, b = targets.boxes[i].tolist(), np.asarray(detected.boxes)[j].tolist()
        both = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
        mine, theirs = ((p[2] - p[0]) * (p[3] - p[1]) for p in (a, b))
    return both / theirs if targets.crowd[i] else both / (mine + theirs - both)


def size_of(kind: str, detected: Detected, j: int) -> float:
    if kind == "masks":
        return float(np.asarray(detected.masks)[j].sum())
    if kind == "keypoints":
        width, height = np.ptp(np.asarray(detected.keypoints)[j, :, :2], 0)
        return float(width * height)
    x1, y1, x2, y2 = np.asarray(detected.boxes)[j]
    return float((x2 - x1) * (y2 - y1))


def defined(images: Sequence[Image], kind: str, label: int, threshold: float, area: str) -> float | None:
    """Average precision of one class at one IoU: detections by score, each given the free object that it overlaps most;
    precision, made to fall, at 101 recalls."""
    low, high = BOUNDS[area]
    outcomes: list[tuple[float, bool]] = []
    total = 0
    for targets, detected in images:
        objects = [i for i in range(len(targets)) if int(targets.labels[i]) == label]
        ignored = {}
        for i in objects:
            unseen = kind == "keypoints" and not bool((targets.keypoints[i, :, 2] > 0).any())  # type: ignore[index]
            ignored[i] = bool(targets.crowd[i]) or unseen or not low <= float(targets.area[i]) <= high
        total += sum(not ignored[i] for i in objects)
        taken: set[int] = set()
        own = [j for j, value in enumerate(np.asarray(detected.labels)) if value == label]
        for j in sorted(own, key=lambda j: -np.asarray(detected.scores)[j])[: 20 if kind == "keypoints" else 100]:
            best, choice = threshold, -1
            for countable in (True, False):  # an object that is ignored only where no other fits
                for i in objects:
                    if ignored[i] == countable or (i in taken and not targets.crowd[i]):
                        continue
                    if (value := overlap(kind, targets, i, detected, j)) >= best:
                        best, choice = value, i
                if choice >= 0:
                    break
            if choice >= 0:
                taken.add(choice)
                if not ignored[choice]:
                    outcomes.append((float(np.asarray(detected.scores)[j]), True))
            elif low <= size_of(kind, detected, j) <= high:
                outcomes.append((float(np.asarray(detected.scores)[j]), False))
    if not total:
        return None
    hits = misses = 0
    curve = []
    for _, hit in sorted(outcomes, key=lambda outcome: -outcome[0]):  # equal ones stay in the order of their images
        hits, misses = hits + hit, misses + (not hit)
        curve.append((hits / total, hits / (hits + misses)))
    points = np.linspace(0, 1, 101)
    return float(np.mean([max((precision for recall, precision in curve if recall >= point), default=0) for point in points]))


def average(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def computed(images: Sequence[Image], kind: Kind, sigmas: Sequence[float] | None = SIGMAS) -> Precision:
    meter = AveragePrecision(CLASSES, (kind,), sigmas)
    for targets, detected in images:
        meter.add(targets, detected)
    return meter.compute(kind)


@pytest.mark.parametrize("kind", ["boxes", "masks", "keypoints"])
@pytest.mark.parametrize("seed", [0, 1])
def test_it_is_what_its_definition_says(kind: Kind, seed: int) -> None:
    images, labels = drawn(seed), range(1, CLASSES + 1)
    thresholds = np.linspace(0.5, 0.95, 10)
    result = computed(images, kind)

    def over(area: str, chosen: Sequence[float]) -> float | None:
        return average([defined(images, kind, label, float(iou), area) for label in labels for iou in chosen])

    assert result.ap == pytest.approx(over("all", thresholds.tolist()), abs=1e-12)
    assert result.ap is not None and 0.05 < result.ap < 0.95, "a number that says something"
    assert result.ap50 == pytest.approx(over("all", [0.5]), abs=1e-12)
    assert result.ap75 == pytest.approx(over("all", [0.75]), abs=1e-12)
    small = None if kind == "keypoints" else over("small", thresholds.tolist())
    assert result.small == pytest.approx(small, abs=1e-12)
    assert result.medium == pytest.approx(over("medium", thresholds.tolist()), abs=1e-12)
    assert result.large == pytest.approx(over("large", thresholds.tolist()), abs=1e-12)
    for label in labels:
        own = average([defined(images, kind, label, float(iou), "all") for iou in thresholds])
        assert result.per_class[label - 1] == pytest.approx(own, abs=1e-12)


@pytest.mark.skipif(not is_installed("pycocotools"), reason="pycocotools is not installed")
@pytest.mark.parametrize("kind", ["boxes", "masks", "keypoints"])
def test_it_is_pycocotools_number(kind: Kind) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images = drawn(7, 40)
    meter = AveragePrecision(CLASSES, (kind,), SIGMAS)
    for targets, detected in images:
        meter.add(targets, detected)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        categories = [{"id": label} for label in range(1, CLASSES + 1)]
        truth.dataset = {"info": {}, "images": meter.images, "categories": categories, "annotations": meter.objects[kind]}
        truth.createIndex()
        style = {"boxes": "bbox", "masks": "segm", "keypoints": "keypoints"}[kind]
        evaluation = COCOeval(truth, truth.loadRes([dict(own) for own in meter.detections[kind]]), style)
        if kind == "keypoints":
            evaluation.params.kpt_oks_sigmas = np.array(SIGMAS)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    result = computed(images, kind)
    ours = [result.ap, result.ap50, result.ap75, result.small, result.medium, result.large]
    if kind == "keypoints":
        ours.remove(None)
    assert ours == pytest.approx(evaluation.stats[: len(ours)].tolist(), abs=1e-15), "the same to the last bits"


# ------------------------------------------------------------------------------------------------------------- the edges


def objects(labels: Sequence[int], size: float = 10.0) -> Targets:
    count = len(labels)
    boxes = torch.tensor([[20.0 * i, 0, 20.0 * i + size, size] for i in range(count)]).reshape(-1, 4)
    crowd, area = torch.zeros(count, dtype=torch.bool), torch.full((count,), size * size)
    return Targets(SIDE, SIDE, boxes, torch.tensor(labels, dtype=torch.int64), crowd, area)


NOTHING = Detected(np.zeros((0, 4)), [], [])


def test_nothing_detected_is_zero_where_there_was_something() -> None:
    assert computed([(objects([1, 3]), NOTHING)], "boxes") == Precision(0, 0, 0, 0, None, None, (0, None, 0))
    crowd = objects([1])
    only = Targets(SIDE, SIDE, crowd.boxes, crowd.labels, ~crowd.crowd, crowd.area)
    assert computed([(only, NOTHING)], "boxes").ap is None


def test_nothing_there_is_no_number() -> None:
    nothing = Precision(None, None, None, None, None, None, (None,) * 3)
    assert computed([], "boxes") == computed([(objects([]), NOTHING)], "boxes") == nothing
    wrong = Detected([[0, 0, 5, 5]], [0.5], [1])
    assert computed([(objects([]), wrong)], "boxes") == nothing


def test_all_right_is_one_and_another_class_is_none_of_it() -> None:
    targets = objects([1, 2])
    right = Detected(targets.boxes, [0.9, 0.8], [1, 2])
    assert computed([(targets, right)], "boxes") == Precision(1, 1, 1, 1, None, None, (1, 1, None))
    swapped = Detected(targets.boxes, [0.9, 0.8], [2, 1])
    assert computed([(targets, swapped)], "boxes").ap == 0


def test_of_thousands_of_detections_the_best_hundred_of_a_class_count() -> None:
    targets = objects([1])
    draw = np.random.default_rng(0)
    far = draw.uniform(50, 60, (5000, 4))
    far[:, 2:] += 20
    boxes, scores = np.concatenate([far, targets.boxes.numpy()]), np.arange(5000, 0, -1) / 5000
    for better, expected in ((49, 1 / 50), (99, 1 / 100), (100, 0)):
        own = scores[better] + 1e-5  # after so many far ones
        result = computed([(targets, Detected(boxes, [*scores, own], np.ones(5001, int)))], "boxes")
        assert result.ap50 == pytest.approx(expected, abs=1e-12)


def test_images_of_several_processes_are_put_together() -> None:
    images = drawn(3)
    parts = [AveragePrecision(CLASSES, ("boxes", "masks")) for _ in range(2)]
    for number, (targets, detected) in enumerate(images):
        parts[number % 2].add(targets, detected)
    parts[0].extend(parts[1])
    order = images[::2] + images[1::2]
    assert parts[0].compute("boxes") == computed(order, "boxes") and parts[0].compute("masks") == computed(order, "masks")
    assert parts[0].compute("boxes") == parts[0].compute("boxes"), "what is computed is not changed by it"


@pytest.mark.parametrize(
    ("detected", "message"),
    [
        (Detected([[0, 0, 1, 1]], [0.5, 0.5], [1]), "1 boxes have scores"),
        (Detected([[0, 0, 1, 1]], [0.5], [0]), "labels are 0 to 0, expected 1 to 3"),
        (Detected([[0, 0, 1, 1]], [0.5], [4]), "labels are 4 to 4"),
        (Detected([[0, 0, np.nan, 1]], [0.5], [1]), "finite"),
        (Detected([[0, 0, 1, 1]], [np.inf], [1]), "finite"),
    ],
)
def test_what_is_no_detection_is_refused(detected: Detected, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AveragePrecision(CLASSES).add(objects([1]), detected)


def test_what_is_to_be_compared_must_be_there() -> None:
    for kind in ("masks", "keypoints"):
        with pytest.raises(ValueError, match=f"{kind} are to be compared, but none are given"):
            AveragePrecision(CLASSES, (kind,)).add(objects([1]), Detected([[0, 0, 1, 1]], [0.5], [1]))
    with pytest.raises(ValueError, match=r"numbers \[2\], the sigmas are 17"):
        computed(drawn(0), "keypoints", None)


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        for kind in ("boxes", "masks", "keypoints"):
            computed(drawn(0, 3), kind)
    assert capsys.readouterr() == ("", "") and not caplog.records


def test_without_the_package_a_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(ResourceError, match=r"pip install 'slimmable-deploy\[detection\]'"):
        AveragePrecision(CLASSES)
