"""Opening any checkpoint: a classifier's, a module's, a detector's, ours or published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from slimtrain.base.errors import CheckpointError, UserError
from slimtrain.base.image_size import ImageSize
from slimtrain.checkpoints import checkpoint
from slimtrain.checkpoints.checkpoint import Checkpoint
from slimtrain.checkpoints.files.shards import checkpoint_sha256
from slimtrain.groups.spec import GraphSpec

IMAGE_SIZE: ImageSize = (800, 1344)  # published detectors': 1333x800 pixels, sides filled up to multiples of 32
NO_CLASSES = ("__background__", "N/A")  # numbers that torchvision's list of COCO's classes leaves out


def open_checkpoint(
    source: str | Path,
    *,
    network: str | None = None,
    switches: Sequence[float] | None = None,
    config: str | Path | None = None,
    expected_widths: Sequence[float] = (),
    weights: str | None = None,
) -> Checkpoint:
    """The checkpoint at a path, or an untrained network for `random:NETWORK`.

    `network`, `switches` (widths in stored order), `config` (a published `apps/NAME.yml`, or one of ours) and
    `expected_widths` (those that the file may hold, in any order) settle what shapes leave open. `weights` chooses among
    several sets of weights in the file: a dotted key, `model` (as trained) or `ema` (their average). A published detector's
    file says all that but its images: 800x1344 pixels, as published. Raises CheckpointError for a file that is damaged, unsafe
    or none of the networks, UserError for a bad option.

    >>> import slimtrain
    >>> checkpoint = slimtrain.open_checkpoint("random:us_mobilenet_v1")  # or a path: "us_mbv1.pt"
    >>> checkpoint.spec.range, checkpoint.image_size
    ((0.25, 1.0), 224)
    """

    def detector(state: Mapping[str, Tensor], path: Path) -> Checkpoint:
        given = {"--network": network, "--switches": switches, "--config": config}
        return published_checkpoint(state, path, [option for option, value in given.items() if value], weights)

    opened = checkpoint.open_checkpoint(
        source,
        network=network,
        switches=switches,
        config=config,
        expected_widths=expected_widths,
        weights=weights,
        detectors=detector,
    )
    spec = opened.spec
    if isinstance(spec, GraphSpec) and spec.detector is not None and network not in (None, spec.name):
        raise CheckpointError(
            f"{opened.file}: holds a {spec.name}, a detector, not a {network}. Leave --network out, or take another file."
        )
    return opened


def published_checkpoint(
    state: Mapping[str, Tensor], path: Path, options: Sequence[str] = (), weights: str | None = None
) -> Checkpoint:
    """The published detector whose state dict `state` is. Raises what `published_detector` raises, and UserError for `options`
    that were given: it is known by keys and shapes alone."""
    from slimtrain.detection.published import published_detector

    if options:
        raise UserError(f"{path.name}: is a published detector, which says itself what it is. Leave {', '.join(options)} out.")
    detector = published_detector(state, path.name)
    settings = detector.settings
    return Checkpoint(
        path.name,
        checkpoint_sha256(path),
        detector.network,
        IMAGE_SIZE,
        settings.mean,
        settings.std,
        coco_class_names(settings.classes),
        described=True,
        weights=weights,
    )


def coco_class_names(classes: int) -> tuple[str, ...]:
    """COCO's categories in their order, where there are as many classes; else none."""
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

    names = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    known = tuple(name for name in names if name not in NO_CLASSES)
    return known if len(known) == classes else ()
