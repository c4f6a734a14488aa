"""Which network a state dict holds: architecture, family, switches, widths, classes and channels of images, all read off keys
and shapes.

One question after the other: which architecture's weights these are (`skeleton.py`), how its norms are stored and how large
they are at every switch or width (`norms.py`), which families have such norms, and which widths (`width_labels.py`) or channel
lists give such sizes. At the end every key and shape of the network so identified is compared with the file (`layout.py`),
so that a damaged file is named as such and not taken for another network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from slimtrain.base.errors import CheckpointError
from slimtrain.checkpoints.layout import compare_layout
from slimtrain.checkpoints.norms import norm_layout, stored_entries
from slimtrain.checkpoints.reading import StateDict
from slimtrain.checkpoints.skeleton import ALIKE, Sizes, Skeleton, likeness, skeleton
from slimtrain.checkpoints.width_labels import (
    NoSuchWidthsError,
    Predictor,
    assign_widths,
    candidate_labels,
    fits,
    label_widths,
    predictor,
)
from slimtrain.models.architecture import Architecture
from slimtrain.models.registry import ARCHITECTURES, described_architectures, split_name
from slimtrain.models.spec import IMAGE_CHANNELS, MOST_IMAGE_CHANNELS, NetworkSpec

SHOWN = 4  # entries that a message lists
# What published slimmable detectors have (mmdetection's names), and nothing else does.
DETECTOR_KEYS = frozenset(("neck.lateral_convs.0.conv.weight", "rpn_head.rpn_conv.weight", "bbox_head.fc_cls.weight"))


def identify(
    state: StateDict,
    name: str,
    *,
    network: str | None = None,
    switches: Sequence[float] | None = None,
    expected_widths: Sequence[float] = (),
) -> NetworkSpec:
    """The network whose state dict (bare keys) `state` is; `name` is the file's, for messages.

    `network` and `switches` (widths in stored order) overrule what the shapes would say; `expected_widths` are the
    widths that a configuration names, in any order; between them a US network may have more. Raises CheckpointError for
    anything that is none of the networks, or one with something missing, added or of a wrong shape; UserError where widths
    stay tied.
    """
    family, architecture = split_name(network) if network else (None, _architecture(state, name))
    arch = ARCHITECTURES[architecture]
    bones = skeleton(arch, state)
    layout = norm_layout(state, bones.norms, name, architecture)
    families = [family] if family else _families(state, arch, bones, layout)
    classes = _classes(state, name, architecture)
    in_channels = _image_channels(state, bones, name, architecture)
    entries = stored_entries(state, bones.norms, layout, name, architecture)
    failure: CheckpointError | None = None
    for candidate in families:
        try:
            if candidate == "autoslim":
                lists = tuple(_channel_list(architecture, bones, entry, name) for entry in entries)
                spec = NetworkSpec(architecture, candidate, tuple(range(1, len(lists) + 1)), classes, lists)
            else:
                predict = predictor(arch, candidate)
                if switches or expected_widths:
                    between = candidate == "us" and not switches  # a US network may be calibrated at any
                    widths = assign_widths(
                        entries,
                        switches or expected_widths,
                        predict,
                        name,
                        complete=bool(switches),
                        any_between=between,
                    )
                else:
                    widths = label_widths(entries, predict, name, f"{candidate}_{architecture}")
                ends = (min(widths), _widest(state, bones, max(widths), predict)) if candidate == "us" else None
                spec = NetworkSpec(architecture, candidate, tuple(widths), classes, width_range=ends)
            spec = replace(spec, in_channels=in_channels)
            compare_layout(spec, state, name)
            return spec
        except NoSuchWidthsError as error:  # then it is not of this family, and says little about a damaged file
            failure = failure or error
        except CheckpointError as error:
            failure = error if failure is None or isinstance(failure, NoSuchWidthsError) else failure
    assert failure is not None
    raise failure


def is_published_detector(state: StateDict) -> bool:
    """Whether a state dict has what published slimmable detectors have; behind `module.` too, as they were trained."""
    return state.keys() >= DETECTOR_KEYS or state.keys() >= {f"module.{key}" for key in DETECTOR_KEYS}


def _architecture(state: StateDict, name: str) -> str:
    """The architecture that shares most weights with the file. CheckpointError where none shares most of them."""
    if is_published_detector(state):
        raise CheckpointError(
            f"{name}: is a slimmable detector, with {len(state)} entries such as {', '.join(sorted(DETECTOR_KEYS)[:2])}. "
            "Expected a network that classifies. slimexport exports it, slimtrain.open_checkpoint opens it."
        )
    best, score = likeness(state)
    if score < ALIKE:
        keys = list(state)
        titles = [arch.title for arch in ARCHITECTURES.values() if arch.torchvision_keys & state.keys()]
        hint = ""
        if titles:
            hint = f" These are torchvision's names: it looks like an ordinary {titles[0]}, which has one width only."
        raise CheckpointError(
            f"{name}: is none of the known slimmable networks: {len(keys)} entries beginning with "
            f"{', '.join(keys[:SHOWN])}.{hint} Expected the layout of a {described_architectures()} of "
            "the slimmable families, whose keys are features.0.0.weight, classifier.0.weight and so on: if it is one of them "
            "under other names, rename its keys before saving."
        )
    return best


def _families(state: StateDict, arch: Architecture, bones: Skeleton, layout: str) -> list[str]:
    """The families of `arch` whose norms are of this `layout`. A group that only some of these keep fixed tells them apart: it
    has one plain norm there, and one per switch in the others."""
    families = [family for family in arch.families if (family == "us") == (layout == "universal")]
    for norm in bones.norms:
        fixed = [f for f in families if {group for group, _ in norm.dim.terms} <= arch.fixed_groups(f)]
        if fixed and len(fixed) < len(families):
            switched = any(key.startswith(f"{norm.path}.bn.") for key in state)
            families = [family for family in families if switched != (family in fixed)]
    return families


def _classes(state: StateDict, name: str, architecture: str) -> int:
    """The number of classes. CheckpointError where the classifier's two tensors do not tell one."""
    weight, bias = (state.get(f"classifier.0.{kind}") for kind in ("weight", "bias"))
    if weight is not None and bias is not None and weight.dim() == 2 and weight.shape[:1] == bias.shape and len(bias):
        return bias.shape[0]
    shapes = [None if tensor is None else list(tensor.shape) for tensor in (weight, bias)]
    raise CheckpointError(
        f"{name}: looks like a {architecture}, but classifier.0.weight is {shapes[0] or 'missing'} and classifier.0.bias is "
        f"{shapes[1] or 'missing'}, expected [classes, channels] and [classes]. The file is damaged."
    )


def _image_channels(state: StateDict, bones: Skeleton, name: str, architecture: str) -> int:
    """The channels of the images that the first convolutions read; those of color where these do not agree, so that comparing
    the layout names what is wrong. CheckpointError where they are more than any network's."""
    stems = [state[key] for key in bones.stems if key in state]
    widths = {stem.shape[1] for stem in stems if stem.dim() == 4}
    channels = widths.pop() if len(widths) == 1 else IMAGE_CHANNELS
    if channels > MOST_IMAGE_CHANNELS:
        raise CheckpointError(
            f"{name}: is a {architecture} for images of {channels} channels, expected 1 to {MOST_IMAGE_CHANNELS}. Networks of "
            "other images cannot be read."
        )
    return max(channels, 1)


def _widest(state: StateDict, bones: Skeleton, widest: float, predict: Predictor) -> float:
    """The width of a US network's weights: `widest`, or a wider one that the file holds no statistics for."""
    stored = {norm.path: state[key].numel() for norm in bones.norms if (key := f"{norm.path}.weight") in state}
    if fits(stored, predict(widest)):
        return widest
    return max(candidate_labels(stored, predict)[0], default=widest)


def _channel_list(architecture: str, bones: Skeleton, entry: Sizes, name: str) -> tuple[int, ...]:
    """An AutoSlim switch's channel list, read off its norms: what most norms of a group say."""
    votes: dict[str, Counter[int]] = {group: Counter() for group in bones.wiring.groups}
    for norm in bones.norms:
        if norm.path in entry:
            votes[norm.dim.terms[0][0]][entry[norm.path]] += 1
    empty = [group for group, counter in votes.items() if not counter]
    if empty:
        raise CheckpointError(f"{name}: is no autoslim_{architecture}: no norms per switch in {', '.join(empty[:SHOWN])}.")
    return tuple(votes[group].most_common(1)[0][0] for group in bones.wiring.groups)
