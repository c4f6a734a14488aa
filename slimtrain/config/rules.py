"""Values of a configuration that contradict each other, by topic. Every function raises UserError for those. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from slimtrain.base.errors import UserError
from slimtrain.base.image_size import EXPECTED, ImageSize, as_image_size
from slimtrain.base.text import count
from slimtrain.base.untrusted.quoting import quoted
from slimtrain.config.run_folder import NAMES
from slimtrain.costs.cost_model import parse_targets
from slimtrain.data.catalog import CATALOG, DETECTION_SETS, PICTURES, opened_with
from slimtrain.models.channels import number_text
from slimtrain.models.detector import KEYPOINT, KINDS
from slimtrain.models.registry import split_name
from slimtrain.models.width_spec import FAMILIES

WIDEST = 4  # of all widths


def check_holdout(holdout: float) -> None:
    if holdout >= 1 and not isinstance(holdout, int):
        raise UserError(f"holdout is {holdout}, expected a whole number of images, or a share of them below 1, as in 0.2.")


def check_widths(switches: Sequence[float], width_range: Sequence[float], test_widths: Sequence[float]) -> None:
    if any(not 0 < width <= WIDEST for width in (*switches, *width_range, *test_widths)):
        raise UserError(f"switches, width_range and test_widths are widths: expected numbers above 0 and up to {WIDEST}.")
    if len(set(switches)) != len(switches):
        raise UserError(f"switches are {list(switches)}: each may be there once.")
    if width_range and (len(width_range) != 2 or width_range[0] >= width_range[1]):
        raise UserError(f"width_range is {list(width_range)}, expected [narrowest, widest].")


def check_drawn_widths(nonuniform: bool, width_step: float) -> None:
    if nonuniform and width_step:
        raise UserError("width_step draws whole networks' widths, nonuniform every group's own: choose one of them.")


def checked_size(size: object) -> ImageSize:
    """The size of images, in its plain form. UserError for what is none."""
    try:
        return as_image_size(size)
    except ValueError as error:
        raise UserError(f"image_size is {quoted(size)}, expected {EXPECTED}.") from error


def check_channels(channels: int) -> None:
    if channels not in PICTURES:
        raise UserError(f"in_channels is {channels}: {opened_with()}. Choose one of these.")


def check_normalization(mean: Sequence[float], std: Sequence[float], channels: int) -> None:
    if {len(mean), len(std)} != {channels} or min(std) <= 0:
        raise UserError(
            f"mean and std have {len(mean)} and {len(std)} numbers, images {count(channels, 'channel')}: expected one number "
            "per channel, or one for all, std above 0. Set both, or leave both to ImageNet's: --set mean= --set std=."
        )


def check_schedule(schedule: str, milestones: Sequence[float], epochs: int, warmup_epochs: float) -> None:
    if schedule == "multistep" and not milestones:
        raise UserError("schedule is multistep, but milestones is empty. Name the epochs, as in milestones: [30, 60, 90].")
    if list(milestones) != sorted(set(milestones)) or min(milestones, default=1) <= 0:
        raise UserError(f"milestones are {list(milestones)}, expected ascending epochs, above 0.")
    if warmup_epochs >= epochs:
        raise UserError(f"warmup_epochs is {warmup_epochs}, expected fewer than the {epochs} epochs.")


def check_momentum(momentum: float, nesterov: bool) -> None:
    if nesterov and not momentum:
        raise UserError("nesterov needs a momentum above 0. Set nesterov: false.")


def check_pretrained(pretrained: str, weights: str) -> None:
    """UserError where weights of a checkpoint are chosen, but no checkpoint."""
    if weights and not pretrained:
        raise UserError(f"pretrained_weights is {weights!r}, but pretrained names no checkpoint. Set it: --pretrained PATH.")


def check_teacher(frozen: bool, pretrained: str, reset_classifier: bool) -> None:
    """UserError where a frozen teacher has no weights, or weights that know other classes."""
    if frozen and not pretrained:
        raise UserError(
            "teacher is frozen: that is a copy of the pretrained network, and pretrained names none. Name one, --pretrained "
            "PATH, or let the widest teach the others: --teacher inplace."
        )
    if frozen and reset_classifier:
        raise UserError(
            "teacher is frozen and reset_classifier true: a network of other classes cannot teach these. Train a classifier "
            "first, with --teacher inplace, and start from what comes out of it, with reset_classifier=false."
        )


def check_grow(grow: Sequence[float], widths: Sequence[float], network: str) -> None:
    """UserError where the stages' narrowest widths are none of a network of `widths` (none of an AutoSlim network), do not
    fall, or do not end with the narrowest of all."""
    if not widths:
        raise UserError(f"grow names widths, and the switches of {network} are lists of channels. Leave it out.")
    low, high = min(widths), max(widths)
    inside = sorted({width for width in grow if low < width <= high}, reverse=True)
    if list(grow) != [*inside, low]:
        spelled = ",".join(map(number_text, [*inside, low]))
        raise UserError(
            f"grow is {','.join(map(number_text, grow))}, expected the narrowest width of every stage: falling, at most "
            f"{number_text(high)}, and at last {number_text(low)}, the narrowest of {network} here. As in --grow {spelled}."
        )


def check_grow_epochs(grow: Sequence[float], grow_epochs: int, epochs: int) -> None:
    """UserError where there are fewer epochs than stages."""
    if grow_epochs > epochs:
        raise UserError(f"grow_epochs is {grow_epochs}, expected at most the {epochs} epochs.")
    if (grow_epochs or epochs) < len(grow):
        kind, number = ("grow_epochs", grow_epochs) if grow_epochs else ("epochs", epochs)
        raise UserError(
            f"grow has {len(grow)} stages, but {kind} is {number}: each takes an epoch at least. Raise it, or name fewer."
        )


def check_testing(test_only: bool, pretrained: str, best_by: str) -> None:
    if test_only and not pretrained:
        raise UserError("test_only tests a checkpoint, but pretrained names none. Set it: --set pretrained=PATH.")
    if best_by not in ("widest", "narrowest", "mean"):
        try:
            float(best_by)
        except ValueError as error:
            raise UserError(f"best_by is {quoted(best_by)}, expected widest, narrowest, mean, or a width.") from error


def check_finished_file(weights: str, layout: str, stem_stride: int) -> None:
    if weights and Path(weights).name != weights:
        raise UserError(f"weights is {weights!r}, expected a file name: it goes into output_dir.")
    if weights in (*NAMES, ".", ".."):
        raise UserError(f"weights is {weights!r}, a name that a run uses otherwise. Expected another, such as NETWORK.pt.")
    if layout == "published" and stem_stride != 2:
        raise UserError("layout: published has no place for stem_stride 1, its readers would take 2. Use layout: own.")


DETECTORS = tuple(f"{family}_{kind}" for kind in KINDS for family in ("s", "us", "autoslim"))  # names of networks
# What training detectors takes no notice of, and what it must be left as.
CLASSIFIERS_OWN = {
    **{"model": "", "stem_stride": 2, "layout": "own", "exif_orientation": False, "drop_last": True},
    **{"distill": False, "teacher": "", "label_smoothing": 0.0, "compile": False, "reset_classifier": False},
}
ANY = "_any"  # the end of a network's name that stands for a model's


def family_of(network: str) -> str:
    """The family of a network's name, which may be `us_any`, `s_any` or `autoslim_any`: a module's, or a detector's. UserError
    for an unknown one."""
    family = network.removesuffix(ANY)
    if is_any(network) and family in FAMILIES:
        return family
    return network.partition("_")[0] if detector_kind(network) else split_name(network, DETECTORS)[0]


def detector_kind(network: str) -> str:
    """The detector that a network's name says, as in `s_faster_rcnn`; nothing where it is none."""
    return network.partition("_")[2] if network in DETECTORS else ""


def check_detector(network: str, data: str, channels: int, values: Mapping[str, object]) -> None:
    """UserError where a detector is to be trained on images without boxes or as only classifiers are, or a classifier on
    images with boxes. `values`: those of all keys."""
    kind = detector_kind(network)
    if not kind:
        if data in DETECTION_SETS:
            raise UserError(
                f"data {data} are images with objects in them, and network {network} is a classifier. Train a detector on it "
                f"(network: s_faster_rcnn), or take other data: {', '.join(CATALOG)}."
            )
        return
    if data not in DETECTION_SETS:
        raise UserError(
            f"network {network} is a detector, and data {data} has no boxes. Set data to {' or '.join(DETECTION_SETS)}."
        )
    if channels != 3:
        raise UserError(f"in_channels is {channels}, a detector's images have 3. Leave it out.")
    for name, usual in CLASSIFIERS_OWN.items():
        if values[name] != usual:
            raise UserError(f"{name} is {quoted(values[name])}: it is for classifiers, {network} is none. Leave it out.")
    if kind == KEYPOINT and not DETECTION_SETS[data].keypoints:
        raise UserError(f"network {network} learns keypoints, and data {data} has none. Set data: coco.")


def is_any(network: str) -> bool:
    """Whether a network's name leaves open which one it is."""
    return network.endswith(ANY)


def check_model(model: str, layout: str) -> None:
    """Of a user's module in place of an architecture."""
    if model and layout == "published":
        raise UserError("layout: published is that of the published architectures. Use layout: own for a model.")


def check_channel_groups(groups: Sequence[str], lists: Sequence[Sequence[int]], traced: bool) -> None:
    """UserError unless a model's channel lists name their groups, and no others do."""
    if bool(groups) != (traced and bool(lists)):
        raise UserError(
            f"channel_groups are {list(groups)}: they name the group of every count in a model's channel_lists, and go with "
            "these alone. Plan files tell both: --plans DIR."
        )
    if len(set(groups)) != len(groups) or any(len(counts) != len(groups) for counts in lists if groups):
        raise UserError(
            f"channel_groups are {count(len(set(groups)), 'group')}, channel_lists have "
            f"{', '.join(map(str, map(len, lists)))} counts: expected a count for every group, each once."
        )


def check_searched_network(widths: Sequence[float], share: float) -> None:
    if len(widths) != 2 or not 0 < widths[0] < widths[1] <= WIDEST:
        raise UserError(f"search_widths is {list(widths)}, expected [narrowest, widest], above 0 and up to {WIDEST}.")
    if not share:
        raise UserError(
            "search_share is 0, expected the share of the epochs that the network to slim is trained for, above 0."
        )


def check_search_error(network: str, error: str, cost: str) -> None:
    """UserError for a detector's error of a classifier, and for a cost that a detector has none of."""
    if error and not detector_kind(network):
        raise UserError(
            f"search_error is {error}, which is a detector's, and {network} is a classifier: its error is the share of wrong "
            "images. Leave it out."
        )
    if cost == "latency" and detector_kind(network):
        raise UserError(
            f"search_cost is latency, and {network} is a detector: a latency table is a sum over layers, and what chooses "
            "regions and boxes is none. Choose macs, params or activations, and measure what is found: `python -m benchmarks`."
        )


def check_search_cost(cost: str, table: str, device: str, targets: Sequence[str]) -> None:
    if (cost == "latency") != bool(table):
        raise UserError(
            f"search_cost is {cost} and latency_table {table or 'empty'}: a latency table is for search_cost latency, which "
            "needs one (`python -m benchmarks channels` measures it). Set both or neither."
        )
    if device and not table:
        raise UserError(f"latency_device is {device}, but there is no latency_table. Set both, or leave it out.")
    for target in targets:
        parse_targets(target, cost)
