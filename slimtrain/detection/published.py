"""Published slimmable detectors: Faster and Mask R-CNN on S-ResNet-50 with a pyramid (arXiv 1812.08928, sec. 4.3).

Their files are mmcv's, {meta, state_dict, optimizer}, with 1,143 entries, with a mask head 1,155. Which detector one holds,
for how many classes and at which switches, is read off keys and shapes. Neck and heads are of full width and shared by all
switches. The published backbone fills its maps up with channels of zeros, which laterals of the full width read; ours read the
leading channels alone, and compute the same.

What of the published convention is a value of the settings (how boxes are counted, how anchors lie, how regions are pooled) is
in `settings.convention`. Classes are 1 to 80 in the order of COCO's categories, where torchvision's have gaps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from slimtrain.base.errors import CheckpointError
from slimtrain.base.text import some
from slimtrain.checkpoints.identify import DETECTOR_KEYS
from slimtrain.checkpoints.layout import check_values, load_network
from slimtrain.checkpoints.reading import read_content
from slimtrain.checkpoints.weights import find_weights
from slimtrain.detection.backbones import resnet_stages
from slimtrain.detection.dense import DenseDetector
from slimtrain.detection.making import BACKBONE, slimmable_detector
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.detector import FASTER, MASK, PUBLISHED, BoxSettings, DetectorSettings, MaskSettings, ProposalSettings
from slimtrain.slimmable.network import SlimmableNetwork

# The published name of a part -> ours, which is torchvision's.
PARTS = (
    (r"backbone\.", "backbone.body."),
    (r"neck\.lateral_convs\.(\d+)\.conv\.", r"backbone.fpn.inner_blocks.\1.0."),
    (r"neck\.fpn_convs\.(\d+)\.conv\.", r"backbone.fpn.layer_blocks.\1.0."),
    (r"rpn_head\.rpn_conv\.", "rpn.head.conv.0.0."),
    (r"rpn_head\.rpn_cls\.", "rpn.head.cls_logits."),
    (r"rpn_head\.rpn_reg\.", "rpn.head.bbox_pred."),
    (r"bbox_head\.shared_fcs\.0\.", "roi_heads.box_head.fc6."),
    (r"bbox_head\.shared_fcs\.1\.", "roi_heads.box_head.fc7."),
    (r"bbox_head\.fc_cls\.", "roi_heads.box_predictor.cls_score."),
    (r"bbox_head\.fc_reg\.", "roi_heads.box_predictor.bbox_pred."),
    (r"mask_head\.convs\.(\d+)\.conv\.", r"roi_heads.mask_head.\1.0."),
    (r"mask_head\.upsample\.", "roi_heads.mask_predictor.conv5_mask."),
    (r"mask_head\.conv_logits\.", "roi_heads.mask_predictor.mask_fcn_logits."),
)
STEM = re.compile(r"backbone\.bn1\.bn\.(\d+)\.weight")
MASK_HEAD = "mask_head."
CLASSIFIERS = ("classifier.", "fc.", "head.fc.")  # what the last layers of classifiers are called
COUNTER = "num_batches_tracked"
SIZED = ("neck.lateral_convs.0.conv.weight", "bbox_head.shared_fcs.1.weight")  # as many rows as neck and box head channels
MOST_CHANNELS, MOST_CLASSES = 2048, 4096
WIDTHS = 8  # switches have widths of whole eighths


@dataclass(frozen=True)
class PublishedDetector:
    """A published detector: what it is beside its weights, and the slimmable network with them, in evaluation mode."""

    settings: DetectorSettings
    network: SlimmableNetwork


def read_published_detector(path: str | Path) -> PublishedDetector:
    """The detector in a file. CheckpointError where it cannot be read, or holds anything else, a classifier among them."""
    return published_detector(find_weights(read_content(path), Path(path).name).state, Path(path).name)


def published_detector(state: Mapping[str, Tensor], name: str) -> PublishedDetector:
    """The detector whose published state dict `state` is; `name` is the file's, for messages. Errors as of the file's."""
    state = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    settings, switches = identified(state, name)
    check_values(state, name)
    neck, hidden = (state[key].shape[0] if key in state and state[key].ndim else 0 for key in SIZED)
    if not (0 < neck <= MOST_CHANNELS and 0 < hidden <= MOST_CHANNELS and settings.classes <= MOST_CLASSES):
        raise CheckpointError(
            f"{name}: looks like a published slimmable detector, but has {neck} channels in its neck, {hidden} in its box "
            f"head and {settings.classes} classes, expected 1 to {MOST_CHANNELS:,} channels and at most {MOST_CLASSES:,} "
            "classes. The file is damaged."
        )
    spec = _spec(settings, switches, neck, hidden)
    held = {renamed(key): tensor for key, tensor in state.items()}
    _compare(spec, state, held, name)
    return PublishedDetector(settings, load_network(spec, held))


@lru_cache(maxsize=4)
def _spec(settings: DetectorSettings, switches: tuple[float, ...], neck: int, hidden: int) -> GraphSpec:
    """The network of a published detector, for which tracing takes seconds."""
    # Its own random numbers are none of the caller's concern: weights follow.
    with torch.random.fork_rng(devices=()):
        module = DenseDetector(settings, resnet_stages(), neck, hidden).eval()
    model = f"{settings.kind}_resnet50"
    network = slimmable_detector(module, switches, slim=BACKBONE, name=model, order="none", image_size=64, check=False)
    assert isinstance(network.spec, GraphSpec)
    return network.spec


def identified(state: Mapping[str, Tensor], name: str) -> tuple[DetectorSettings, tuple[float, ...]]:
    """What a published detector is, and its switches' widths, by keys and shapes. CheckpointError where `state` is none."""
    if not state.keys() >= DETECTOR_KEYS:
        missing = sorted(DETECTOR_KEYS - state.keys())
        kind = "a classifier" if any(key.startswith(CLASSIFIERS) for key in state) else "something else"
        raise CheckpointError(
            f"{name}: holds {len(state)} entries beginning with {', '.join(list(state)[:3])}, but no {some(missing)}: the "
            f"weights of {kind}. Expected a published slimmable detector's (Faster or Mask R-CNN on S-ResNet-50). "
            "A classifier is what a detector is trained from: give it as --pretrained."
        )
    logits = state["bbox_head.fc_cls.weight"]
    stems = {int(match[1]): tensor for key, tensor in state.items() if (match := STEM.fullmatch(key))}
    sizes = [len(tensor) if tensor.ndim == 1 else 0 for _, tensor in sorted(stems.items())]
    widest = max(sizes, default=0)
    switches = tuple(size / widest if widest else 0.0 for size in sizes)
    if logits.ndim != 2 or len(logits) < 2 or sorted(stems) != list(range(len(stems))) or not _are_widths(switches):
        raise CheckpointError(
            f"{name}: looks like a published slimmable detector, but its classifier is {list(logits.shape)} and the first "
            f"norms have {', '.join(map(str, sizes)) or 'no'} channels, expected [classes, channels] and one norm for each "
            "switch, narrow to wide (16, 32, 48, 64). The file is damaged."
        )
    masks = any(key.startswith(MASK_HEAD) for key in state)
    settings = DetectorSettings(
        classes=len(logits) - 1,
        kind=MASK if masks else FASTER,
        proposals=ProposalSettings(top_k=2000, kept=2000, least_size=0.0),
        box=BoxSettings(least_size=0.0),
        mask=MaskSettings() if masks else None,
        convention=PUBLISHED,
    )
    return settings, switches


def _are_widths(switches: tuple[float, ...]) -> bool:
    """Whether these are different widths of whole eighths, from narrow to wide."""
    return bool(switches) and list(switches) == sorted(set(switches)) and all(w > 0 and w * WIDTHS % 1 == 0 for w in switches)


def renamed(key: str) -> str:
    """Our key of a published one; a key that is none stays as it is."""
    for published, ours in PARTS:
        if re.match(published, key):
            return re.sub(published, ours, key, count=1)
    return key


def _compare(spec: GraphSpec, state: Mapping[str, Tensor], held: Mapping[str, Tensor], name: str) -> None:
    """CheckpointError unless `held` has the keys and shapes of `spec`; messages say the file's own names, of `state`."""
    with torch.device("meta"):
        expected = {key: list(tensor.shape) for key, tensor in SlimmableNetwork(spec).state_dict().items()}
    names = {renamed(key): key for key in state}
    missing = [key for key in expected if key not in held and not key.endswith(COUNTER)]
    unknown = [names[key] for key in held if key not in expected]
    wrong = [
        f"{names[key]} is {list(held[key].shape)}, expected {shape}"
        for key, shape in expected.items()
        if key in held and list(held[key].shape) != shape
    ]
    rows = (("missing", missing), ("wrong shape", wrong), ("unknown", unknown))
    problems = [f"{title}: {some(keys)}" for title, keys in rows if keys]
    if problems:
        raise CheckpointError(
            f"{name}: looks like a published slimmable detector, but does not fit it. {'; '.join(problems)}. The file is "
            "damaged or was edited."
        )
