"""The network that a run of a user's module begins with: built, its weights loaded, made slimmable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slimtrain.base.errors import CheckpointError, UserError
from slimtrain.base.image_size import sides
from slimtrain.checkpoints.adopt import adopt_lists
from slimtrain.checkpoints.own_layout import is_own, read_own
from slimtrain.checkpoints.reading import read_content
from slimtrain.checkpoints.weights import find_weights
from slimtrain.config.config import FROZEN, Config
from slimtrain.graph.policy import Policy
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.registry import model_name
from slimtrain.models.width_spec import WidthSpec
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.tracing.slimmed import make_slimmable
from slimtrain.tracing.sources import build_module, load_weights


@dataclass(frozen=True)
class Model:
    """A module to be made slimmable: where it comes from, what its images are, which widths it is to have."""

    source: str
    classes: int
    shape: tuple[int, ...]  # of one image: channels, height, width
    family: str
    widths: tuple[float, ...]
    policy: Policy
    order: str
    seed: int
    lists: tuple[Mapping[str, int], ...] = ()  # of an AutoSlim network: the channels of every switch, group -> count


@dataclass(frozen=True)
class Start:
    """A slimmable network to begin with. `loaded`: it has the weights of a file, `line` says so."""

    network: SlimmableNetwork
    loaded: bool = False
    line: str = ""


def starting(config: Config, classes: int, resumed: Mapping[str, Any] | None = None) -> Start | None:
    """What a run of `config` on data of `classes` begins with where it trains a model, None where a published architecture.
    `resumed`: the content of the `last.pt` that it goes on from, which holds the network; the model is not asked again."""
    if not config.model:
        return None
    if resumed is not None:
        return Start(read_own(resumed, config.model))
    policy = Policy(config.heads, config.conv_groups, config.shuffles)
    shape = (config.in_channels, *sides(config.image_size))
    if config.family == "autoslim" and config.taught_by == FROZEN:
        raise UserError(
            f"teacher is frozen: that is a copy of the full network, and an AutoSlim network of {config.model} begins with "
            "its channel lists alone. Let its widest teach the others: --teacher inplace."
        )
    model = Model(
        *(config.model, classes, shape, config.family, config.model_widths, policy, config.order, config.seed),
        config.planned_lists,
    )
    return start_of(model, config.pretrained, config.pretrained_weights or None, reset_classifier=config.reset_classifier)


def spec_of(config: Config, classes: int, start: Start | None) -> WidthSpec:
    """The network that a run trains. UserError where widths do not fit it."""
    if start is None:
        return config.spec(classes)
    for width in config.test_widths:
        start.network.plan(width)
    return start.network.spec


def start_of(model: Model, weights: str, key: str | None = None, *, reset_classifier: bool = False) -> Start:
    """The module of `model` as a slimmable network, with the weights of the file `weights` where one is named and is none of
    our checkpoints. `key`: which of several sets in it. With `reset_classifier` tensors that only the number of classes makes
    different are left as they are.

    Raises what building, reading, exporting and checking it raise: UserError and its subclasses.
    """
    content = read_content(Path(weights)) if weights else None
    foreign = content is not None and not is_own(content)
    torch.manual_seed(model.seed)
    module = build_module(model.source, model.classes)
    line = ""
    if foreign:
        state = find_weights(content, Path(weights).name, key).state
        if reset_classifier:
            state = {**state, **_resized(module, state)}
        line = f"{Path(weights).name}: weights loaded {load_weights(module, state, Path(weights).name)}"
    planned = model.family == "autoslim"
    network = make_slimmable(
        module,
        torch.zeros(2, *model.shape),
        model.widths,
        family="us" if planned else model.family,
        name=model_name(model.source),
        policy=model.policy,
        order=model.order if foreign else "none",  # random channels have no order
    )
    _check_outputs(model, network)
    return Start(at_lists(network, model.lists) if planned else network, foreign, line)


def at_lists(network: SlimmableNetwork, lists: Sequence[Mapping[str, int]]) -> SlimmableNetwork:
    """The AutoSlim network whose switches are channel `lists` (group -> count) of a universally slimmable one, and begin with
    what it has there. Errors as of `GraphSpec.autoslim`."""
    spec = network.spec
    assert isinstance(spec, GraphSpec)
    planned = SlimmableNetwork(spec.autoslim(lists)).train(network.training)
    adopt_lists(planned, network)
    return planned


def _resized(module: nn.Module, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The module's own tensors in place of those of a classifier for another number of classes."""
    own = module.state_dict()
    return {
        key: own[key]
        for key, tensor in state.items()
        if key in own and own[key].shape != tensor.shape and own[key].shape[1:] == tensor.shape[1:]
    }


def _check_outputs(model: Model, network: SlimmableNetwork) -> None:
    spec = network.spec
    assert isinstance(spec, GraphSpec)
    if not spec.classifies:
        raise CheckpointError(
            f"--model {model.source}: gives {spec.gives}, expected one output of N x classes: training here is of "
            "classifiers. Others are trained in a loop of your own, with slimtrain.make_slimmable and slimtrain.save."
        )
    classes = spec.classes
    if classes != model.classes:
        raise CheckpointError(
            f"--model {model.source}: gives {classes} outputs, the data has {model.classes} classes. Expected a builder that "
            "takes num_classes, or a module with as many outputs."
        )
