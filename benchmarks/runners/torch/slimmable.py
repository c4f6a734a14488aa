"""The slimmable network that a bundle was exported from, opened once for all its widths."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.cells.cell import Cell, NotMeasured
from slimexport.target.errors import BundleError
from slimexport.target.manifest import MANIFEST, Manifest, read_manifest
from slimexport.target.tensors import DetectorEntry
from slimtrain.base.errors import WidthError
from slimtrain.base.image_size import ImageSize
from slimtrain.checkpoints.checkpoint import missing_statistics
from slimtrain.checkpoints.files.shards import checkpoint_sha256
from slimtrain.detection.opening import open_checkpoint
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.published import RANDOM
from slimtrain.slimmable.network import SlimmableNetwork

NEEDS = "needs --ckpt FILE, the checkpoint that the bundle was exported from"
SHOWN = 12  # digits of a SHA-256 that messages show


class _Opened:
    """The network opened last: a group's widths share it, and there is never a second one for their sake."""

    key: object = None
    network: SlimmableNetwork | None = None


def open_slimmable(
    cell: Cell, folder: Path, checkpoint: Path | None, device: str, layout: torch.memory_format
) -> tuple[SlimmableNetwork, ChannelPlan]:
    """The slimmable network of a bundle, on `device` and in evaluation mode, and the cell's plan for it.

    Raises NotMeasured without a checkpoint, and for a plan that it has no batch-norm statistics for; BundleError for another
    checkpoint than the bundle's; CheckpointError for one that cannot be read.
    """
    if checkpoint is None:
        raise NotMeasured(NEEDS)
    manifest = read_manifest(folder)
    source = check_source(checkpoint, manifest, folder)
    key = (source, manifest.source.sha256, manifest.source.weights, manifest.detector, manifest.input, device, layout)
    if _Opened.key != key or _Opened.network is None:
        _Opened.key, _Opened.network = None, None  # released before there is another
        switches = manifest.source.switches or ()
        origin = manifest.source
        network = open_checkpoint(source, network=origin.network, expected_widths=switches, weights=origin.weights).network
        if manifest.detector is not None:
            network = _from_images_to_boxes(network, manifest.detector, manifest.input.image_size)
        _Opened.key, _Opened.network = key, network.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    network = _Opened.network
    return network, _plan(cell, manifest, network, manifest.source.file)


def _from_images_to_boxes(network: SlimmableNetwork, detector: DetectorEntry, image_size: ImageSize) -> SlimmableNetwork:
    """A slimmable detector that ends as the bundle's files do."""
    from slimtrain.detection.fixed.shipped import whole_network  # loads torchvision

    box = detector.box
    return whole_network(network, image_size, nms=detector.nms, score=box.score, detections=box.detections).eval()


def check_source(checkpoint: Path, manifest: Manifest, folder: Path) -> str:
    """What to open. BundleError unless it is what the bundle was exported from, by its SHA-256; an untrained network
    (`random:NETWORK`) has none, its weights follow from its name."""
    file, expected = manifest.source.file, manifest.source.sha256
    given = str(checkpoint)
    origin = f"SHA-256 {expected[:SHOWN]}..." if expected else "untrained"
    if given.startswith(RANDOM) or not expected:
        if given != file or expected:
            raise BundleError(f"{given}: {folder / MANIFEST} was exported from {file} ({origin}). Give --ckpt {file}.")
        return given
    if not checkpoint.exists():
        raise BundleError(f"{given}: no such file. --ckpt takes the checkpoint that {folder} was exported from, {file}.")
    digest = checkpoint_sha256(checkpoint)
    if digest != expected:
        raise BundleError(
            f"{given}: SHA-256 is {digest[:SHOWN]}..., {folder / MANIFEST} was exported from {file} ({origin}): another "
            "checkpoint, or a changed one. Give that file, or export this one."
        )
    return given


def _plan(cell: Cell, manifest: Manifest, network: SlimmableNetwork, file: str) -> ChannelPlan:
    """The cell's plan, as the manifest records it. NotMeasured where the network cannot run at it."""
    channels = next((artifact.channels for artifact in manifest.artifacts if artifact.name == cell.name), None)
    if channels is None:
        raise NotMeasured(f"the bundle's manifest gives no channels for {cell.name}. Export again.")
    try:
        plan = network.spec.plan_from_channels(cell.plan, channels)
    except WidthError as error:
        raise NotMeasured(str(error)) from error
    if not network.has_statistics(plan):
        remedy = (
            "The bundle was calibrated when it was exported; calibrate the checkpoint (slimtrain calibrate) and export that"
        )
        raise NotMeasured(str(missing_statistics(network, plan, file, remedy)))
    return plan
