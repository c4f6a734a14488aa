"""Which network a state dict holds: architecture, family, switches, widths, classes, all read off keys and shapes.

The widths of stored norms get the roundest label that fits every layer (multiples of 0.05, then 0.025, then 0.01, and
so on); where several labels remain, the user is asked. At the end every key and shape of the network so found is
compared with the file, so that a damaged file is named as such and not taken for another network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import torch
from torch import Tensor, nn

from slimtrain.base.errors import CheckpointError, UserError
from slimtrain.models import ARCHITECTURES
from slimtrain.models.channels import ChannelPlan, Dim, Wiring, width_label
from slimtrain.models.mobilenet_v2 import InvertedResidualNetwork
from slimtrain.models.registry import FAMILIES_OF, split_name
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.layers import DenseLayers
from slimtrain.slimmable.network import SlimmableNetwork

State = Mapping[str, Tensor]
Sizes = Mapping[str, int]  # a norm's path -> its channels

UNIT = 10_000  # widths are counted in these parts, so that labels are exact
TIERS = (500, 250, 100, 50, 10, 5, 1)  # multiples of 0.05, 0.025, 0.01, ...
WIDEST_LABEL = 4 * UNIT
SETTLE = "--switches W1,W2,... (in stored order) or --config apps/NAME.yml"
SHOWN = 4  # entries that a message lists
MOSTLY = 0.8  # share of norms that makes a width the meant one, the rest being damage


def identify(
    state: State,
    name: str,
    *,
    network: str | None = None,
    switches: Sequence[float] | None = None,
    expected_widths: Sequence[float] = (),
) -> NetworkSpec:
    """The network whose state dict (bare keys) `state` is; `name` is the file's, for messages.

    `network` and `switches` (widths in stored order) overrule what the shapes would say; `expected_widths` are the
    widths that a configuration names, in any order. Raises CheckpointError for anything that is none of the networks,
    or one with something missing, added or of a wrong shape; UserError where widths stay tied.
    """
    family, architecture = split_name(network) if network else (None, _architecture(state, name))
    unexpanded = _unexpanded(state, architecture)
    norms = _skeleton(architecture, unexpanded)[2]
    layout = _norm_layout(state, norms, name, architecture)
    families = [family] if family else [f for f in FAMILIES_OF[architecture] if (f == "us") == (layout == "universal")]
    if not family and architecture == "mobilenet_v2" and layout == "switchable":
        # S keeps one plain tail norm, AutoSlim switches it.
        families = ["autoslim" if any(key.startswith(f"{norms[-1].path}.bn.") for key in state) else "s"]
    classes = _classes(state, name, architecture)
    entries = _entries(state, norms, layout, name, architecture)
    failure: CheckpointError | None = None
    for candidate in families:
        try:
            if candidate == "autoslim":
                lists = tuple(_channel_list(architecture, unexpanded, entry, name) for entry in entries)
                spec = NetworkSpec(architecture, candidate, tuple(range(1, len(lists) + 1)), classes, lists)
            else:
                spec = _spec(architecture, candidate, classes, state, norms, entries, name, switches, expected_widths)
            compare_layout(spec, state, name)
            return spec
        except _NoSuchWidthsError as error:  # then it is not of this family, and says little about a damaged file
            failure = failure or error
        except CheckpointError as error:
            failure = error if failure is None or isinstance(failure, _NoSuchWidthsError) else failure
    assert failure is not None
    raise failure


class _NoSuchWidthsError(CheckpointError):
    """The norms are nothing like those of any widths."""


# ---------------------------------------------------------------------------------------------------- architecture


@dataclass(frozen=True)
class _Norm:
    """A norm of an architecture: its path, and its size in terms of the untied channel list's entries."""

    path: str
    dim: Dim


class _Skeleton(DenseLayers):
    """Dense layers that note which norm has which dimension."""

    def __init__(self, plan: ChannelPlan) -> None:
        super().__init__(plan)
        self.dims: dict[nn.Module, Dim] = {}

    def norm(self, dim: Dim) -> nn.Module:
        module = super().norm(dim)
        self.dims[module] = dim
        return module


def _unexpanded(state: State, architecture: str) -> frozenset[int]:
    """The blocks of a MobileNet v2 or MNasNet without an expansion: AutoSlim lists may make one superfluous."""
    arch = ARCHITECTURES[architecture]
    if not isinstance(arch, InvertedResidualNetwork):
        return frozenset()
    later = {key.split(".")[1] for key in state if (key.startswith("features.") and ".body.6." in key) or ".body.7." in key}
    return frozenset(i for i, block in enumerate(arch.blocks, 1) if block.ratio != 1 and str(i) not in later)


@lru_cache
def _skeleton(architecture: str, unexpanded: frozenset[int] = frozenset()) -> tuple[Wiring, nn.Module, tuple[_Norm, ...]]:
    """An architecture with every channel-list entry in a group of its own, as far as its structure allows."""
    arch = ARCHITECTURES[architecture]
    distinct = list(arch.channel_list("s", 1.0))  # ResNets' and ShuffleNet's groups are tied whatever the list says
    if isinstance(arch, InvertedResidualNetwork):
        distinct = [8 * (i + 1) for i in range(len(distinct))]  # no two alike: no sums, and every expansion is there
        inp, position = 0, 1
        for index, block in enumerate(arch.blocks, 1):
            if block.ratio != 1:
                if index in unexpanded:
                    distinct[position] = distinct[inp]
                position += 1
            inp, position = position, position + 1
    wiring = arch.wire([distinct])
    layers = _Skeleton(wiring.plan("skeleton", distinct))
    with torch.device("meta"):
        network = arch.build(layers, wiring, 1000)
    norms = [_Norm(path, layers.dims[m]) for path, m in network.named_modules() if m in layers.dims]
    return wiring, network, tuple(norms)


def _weights(architecture: str) -> dict[str, tuple[int, ...]]:
    """Weighted layers' keys and what of their shape no plan changes: the kernel, and whether it is depthwise."""
    network = _skeleton(architecture)[1]
    return {f"{path}.weight": _kind(m.weight) for path, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}


def _kind(weight: Tensor) -> tuple[int, ...]:
    return (*weight.shape[2:], int(weight.dim() == 4 and weight.shape[1] == 1))


def _architecture(state: State, name: str) -> str:
    """The architecture that shares most weights with the file. CheckpointError where none shares most of them."""
    found = {key: _kind(t) for key, t in state.items() if key.endswith(".weight") and t.dim() in (2, 4)}
    best, best_score = "", 0.0
    for architecture in ARCHITECTURES:
        wanted = _weights(architecture)
        score = len(found.items() & wanted.items()) / max(len(found.keys() | wanted.keys()), 1)
        if score > best_score:
            best, best_score = architecture, score
        if score == 1.0:
            break
    if best_score < 0.7:
        keys = list(state)
        hint = ""
        if {"layer1.0.conv1.weight", "conv1.weight"} & state.keys():
            hint = " These are torchvision's names: it looks like an ordinary ResNet, which has one width only."
        raise CheckpointError(
            f"{name}: is none of the known slimmable networks: {len(keys)} entries beginning with "
            f"{', '.join(keys[:SHOWN])}.{hint} Expected the layout of a MobileNet v1 or v2, MNasNet, ResNet or ShuffleNet of "
            "the slimmable families; if it is one with another version's names, say which with --network."
        )
    return best


# ----------------------------------------------------------------------------------------------------------- norms


def _norm_layout(state: State, norms: Sequence[_Norm], name: str, architecture: str) -> str:
    """`switchable` or `universal`, by what most norms are. CheckpointError for a network with ordinary norms."""

    def kind(path: str) -> str:
        if f"{path}.bn.0.weight" in state:
            return "switchable"
        if f"{path}.bn.0.running_mean" in state or f"{path}.bn.0.running_var" in state:
            return "universal"
        return "plain"

    layout = Counter(kind(norm.path) for norm in norms).most_common(1)[0][0]
    if layout == "plain":
        raise CheckpointError(
            f"{name}: looks like a {architecture}, but its norms are ordinary ones, not one per switch or width: it is "
            "not a slimmable network's checkpoint, it has one width only."
        )
    return layout


NORM = ("weight", "bias", "running_mean", "running_var")


def _entries(state: State, norms: Sequence[_Norm], layout: str, name: str, architecture: str) -> list[Sizes]:
    """For every switch or width, in stored order: the size of each norm that stores statistics for it.

    CheckpointError, naming the tensors, where one is missing or differs from the others of its norm.
    """
    kinds = NORM if layout == "switchable" else NORM[2:]
    switched = [norm.path for norm in norms if any(f"{norm.path}.bn.0.{kind}" in state for kind in kinds)]
    # A norm that is there, but not per switch: the shared tail. A norm that is not there at all is missing.
    shared = [n.path for n in norms if n.path not in switched and any(f"{n.path}.{k}" in state for k in NORM[2:])]
    counts = Counter(sum(1 for _ in _consecutive(state, path, kinds)) for path in switched)
    number = counts.most_common(1)[0][0]
    problems = [
        f"{path}.{kind} is missing"
        for path in (norm.path for norm in norms if norm.path not in (*switched, *shared))
        for kind in (*(NORM[:2] if layout == "universal" else ()), *(f"bn.{i}.{k}" for i in range(number) for k in kinds))
    ]
    tail = {path: _norm_size(state, path, NORM, problems) for path in shared}
    entries = [{path: _norm_size(state, f"{path}.bn.{i}", kinds, problems) for path in switched} for i in range(number)]
    if problems:
        raise CheckpointError(f"{name}: looks like a {architecture}, but {_some(problems)}. The file is damaged.")
    widest = max(entries, key=lambda entry: sum(entry.values()))
    weights = {path: state[key].numel() for path in switched if (key := f"{path}.weight") in state}
    if all(widest[path] == size for path, size in weights.items()):
        widest.update(tail)  # above 1.0x the tail's size tells the widest width
    return list(entries)


def _norm_size(state: State, path: str, kinds: Sequence[str], problems: list[str]) -> int:
    """A norm's channels, by most of its tensors; what is missing or unlike the others is added to `problems`."""
    found = {f"{path}.{kind}": tuple(state[f"{path}.{kind}"].shape) for kind in kinds if f"{path}.{kind}" in state}
    problems += [f"{path}.{kind} is missing" for kind in kinds if f"{path}.{kind}" not in found]
    shapes = Counter(found.values()).most_common()
    if len(shapes) > 1:
        tie = shapes[0][1] == shapes[1][1]
        odd = {key: shape for key, shape in found.items() if tie or shape != shapes[0][0]}
        problems += [f"{key} is {list(shape)}, unlike the rest of its norm" for key, shape in odd.items()]
    if not shapes or len(shapes[0][0]) != 1:
        problems += [f"{key} is {list(shape)}, expected [channels]" for key, shape in found.items()]
        return 0
    return shapes[0][0][0]


def _consecutive(state: State, path: str, kinds: Sequence[str]) -> Iterator[int]:
    i = 0
    while any(f"{path}.bn.{i}.{kind}" in state for kind in kinds):
        yield i
        i += 1


def _classes(state: State, name: str, architecture: str) -> int:
    """The number of classes. CheckpointError where the classifier's two tensors do not tell one."""
    weight, bias = (state.get(f"classifier.0.{kind}") for kind in ("weight", "bias"))
    if weight is not None and bias is not None and weight.dim() == 2 and weight.shape[:1] == bias.shape and len(bias):
        return bias.shape[0]
    shapes = [None if tensor is None else list(tensor.shape) for tensor in (weight, bias)]
    raise CheckpointError(
        f"{name}: looks like a {architecture}, but classifier.0.weight is {shapes[0] or 'missing'} and classifier.0.bias is "
        f"{shapes[1] or 'missing'}, expected [classes, channels] and [classes]. The file is damaged."
    )


# ---------------------------------------------------------------------------------------------------------- widths


def _spec(
    architecture: str,
    family: str,
    classes: int,
    state: State,
    norms: Sequence[_Norm],
    entries: Sequence[Sizes],
    name: str,
    switches: Sequence[float] | None,
    expected_widths: Sequence[float],
) -> NetworkSpec:
    predict = _predictor(architecture, family)
    if switches or expected_widths:
        widths = _assign(entries, switches or expected_widths, predict, name, complete=bool(switches))
    else:
        widths = _label(entries, predict, name, f"{family}_{architecture}")
    if family == "s":
        return NetworkSpec(architecture, family, tuple(widths), classes)
    stored = {norm.path: state[key].numel() for norm in norms if (key := f"{norm.path}.weight") in state}
    widest = max(widths)
    if not _fits(stored, predict(widest)):  # the file holds no statistics for the width its weights have
        widest = max(_candidates(stored, predict)[0], default=widest)
    return NetworkSpec(architecture, family, tuple(widths), classes, width_range=(min(widths), widest))


def _predictor(architecture: str, family: str) -> Callable[[float], Sizes]:
    """Width -> the size of every norm, the shared tail's as if that width were the widest."""
    arch = ARCHITECTURES[architecture]
    wiring, _, norms = _skeleton(architecture)

    @cache
    def predict(width: float) -> Sizes:
        channels = dict(zip(wiring.groups, arch.channel_list(family, width, width), strict=True))
        return {n.path: n.dim.active(channels) for n in norms}

    return predict


def _fits(entry: Sizes, predicted: Sizes) -> bool:
    return all(entry[path] == size for path, size in predicted.items() if path in entry)


def _candidates(entry: Sizes, predict: Callable[[float], Sizes]) -> tuple[list[float], int]:
    """The roundest labels that fit, and the step (in parts of UNIT) they are multiples of; none: ([], 0)."""
    for step in TIERS:
        fitting = [k / UNIT for k in range(step, WIDEST_LABEL + 1, step) if _fits(entry, predict(k / UNIT))]
        if fitting:
            return fitting, step
    return [], 0


def _label(entries: Sequence[Sizes], predict: Callable[[float], Sizes], name: str, what: str) -> list[float]:
    """A width for every entry. UserError where several stay, CheckpointError where an entry fits no width."""
    labels = []
    for index, entry in enumerate(entries):
        fitting, _ = _candidates(entry, predict)
        if not fitting:
            nearest, agreement = _nearest_width(entry, predict)
            if agreement < MOSTLY:
                raise _NoSuchWidthsError(
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
        raise UserError(
            f"{name}: shapes alone do not tell its widths: {'; '.join(lines)}. Say which they are with {SETTLE}. "
            f"Known so far: {', '.join(width_label(f[0]) if i not in tied else '?' for i, f in enumerate(labels))}."
        )
    return [fitting[0] for fitting in labels]


def _finer(entry: Sizes, predict: Callable[[float], Sizes], found: list[float], needed: int) -> list[float]:
    """Candidates for a tied entry: `found`, and finer labels until there are as many as entries share them."""
    for step in TIERS:
        if len(found) >= max(needed, 2):
            break
        more = [k / UNIT for k in range(step, WIDEST_LABEL + 1, step) if _fits(entry, predict(k / UNIT))]
        found = more if len(more) > len(found) else found
    return found


def _nearest_width(entry: Sizes, predict: Callable[[float], Sizes]) -> tuple[float, float]:
    """The width (in steps of 0.005) that most of an entry's norms agree with, and their share."""

    def agreement(width: float) -> float:
        sizes = predict(width)
        return sum(size == sizes[path] for path, size in entry.items()) / len(entry)

    return max(((k / UNIT, agreement(k / UNIT)) for k in range(50, WIDEST_LABEL + 1, 50)), key=lambda pair: pair[1])


def _assign(
    entries: Sequence[Sizes],
    widths: Sequence[float],
    predict: Callable[[float], Sizes],
    name: str,
    complete: bool,
) -> list[float]:
    """Give every entry one of `widths` that fits it, in order where several do; `complete`: all must be used."""
    if complete and len(widths) != len(entries):
        raise UserError(
            f"--switches names {len(widths)} widths, {name} holds norms for {len(entries)}. Give one per switch, "
            "in stored order."
        )
    for width in widths:
        if not 0 < width <= WIDEST_LABEL / UNIT:
            raise UserError(f"switch {width}: expected a width above 0 and up to {WIDEST_LABEL // UNIT}. Correct --switches.")
    left = list(widths)
    assigned = []
    for index, entry in enumerate(entries):
        fitting = [w for w in left if _fits(entry, predict(w))]
        if not fitting:
            shapes, _ = _candidates(entry, predict)
            fits = " or ".join(map(width_label, shapes)) or "no single width"
            raise UserError(
                f"{name}: switch {index + 1} of {len(entries)} has the shapes of {fits}; none of "
                f"{', '.join(map(width_label, left)) or 'the widths left'} fits it. Correct --switches or --config."
            )
        left.remove(fitting[0])
        assigned.append(fitting[0])
    return assigned


def _channel_list(architecture: str, unexpanded: frozenset[int], entry: Sizes, name: str) -> tuple[int, ...]:
    """An AutoSlim switch's channel list, read off its norms: what most norms of a group say."""
    wiring, _, norms = _skeleton(architecture, unexpanded)
    votes: dict[str, Counter[int]] = {group: Counter() for group in wiring.groups}
    for norm in norms:
        if norm.path in entry:
            votes[norm.dim.terms[0][0]][entry[norm.path]] += 1
    empty = [group for group, counter in votes.items() if not counter]
    if empty:
        raise CheckpointError(f"{name}: is no autoslim_{architecture}: no norms per switch in {', '.join(empty[:SHOWN])}.")
    return tuple(votes[group].most_common(1)[0][0] for group in wiring.groups)


# ---------------------------------------------------------------------------------------------------------- layout


def compare_layout(spec: NetworkSpec, state: State, name: str) -> None:
    """CheckpointError unless the file has exactly the keys and shapes of `spec`. Counters of batches may be absent:
    old versions of torch wrote none."""
    try:
        with torch.device("meta"):
            expected = {key: tuple(t.shape) for key, t in SlimmableNetwork(spec).state_dict().items()}
    except ValueError as error:
        raise CheckpointError(f"{name}: looks like {spec.name}, but {error}. The file is damaged.") from error
    found = {key: tuple(t.shape) for key, t in state.items()}
    missing = [k for k in expected if k not in found and not k.endswith("num_batches_tracked")]
    added = [k for k in found if k not in expected]
    wrong = [k for k in expected if k in found and found[k] != expected[k]]
    problems = []
    if missing:
        problems.append(f"missing: {_some(missing)}")
    if wrong:
        shapes = [f"{k} is {list(found[k])}, expected {list(expected[k])}" for k in wrong]
        problems.append(f"wrong shape: {_some(shapes)}")
    if added:
        problems.append(f"unknown: {_some(added)}")
    if problems:
        raise CheckpointError(
            f"{name}: looks like {spec.name} with {spec.describe_widths()}, but does not fit it. {'; '.join(problems)}. "
            "The file is damaged or was edited; if it is another network, name it with --network."
        )


def _some(items: Sequence[str]) -> str:
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more
