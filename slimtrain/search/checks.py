"""What is wrong with a search, told before the first hour of training; and what makes its ranking doubtful."""

from __future__ import annotations

from slimtrain.base.errors import UserError
from slimtrain.base.image_size import format_size
from slimtrain.base.text import count
from slimtrain.checkpoints.checkpoint import Checkpoint
from slimtrain.config.config import Config
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.spec import NetworkSpec
from slimtrain.models.width_spec import WidthSpec
from slimtrain.search.finishing import check_finish
from slimtrain.search.kinds import kind_of
from slimtrain.search.request import SearchRequest
from slimtrain.search.slimming import Slimming, check_targets


def check_request(request: SearchRequest, checkpoint: Checkpoint | None, module: WidthSpec | None = None) -> None:
    """UserError for targets out of reach, a table of another network and a checkpoint that does not fit: before the first
    hour of training, and before anything is moved aside. `module`: what is trained of a user's, where there is one."""
    config = request.supernet
    kind = kind_of(config)
    if checkpoint is None:
        spec = module or config.spec(len(kind.data(config).classes))
    else:
        spec = checkpoint.spec
        if isinstance(spec, NetworkSpec) and spec.stem_stride != config.stem_stride:
            raise UserError(
                f"{checkpoint.file}: has stem stride {spec.stem_stride}, the configuration trains what is found with "
                f"{config.stem_stride}. Set stem_stride={spec.stem_stride}, or take another checkpoint."
            )
        if spec.in_channels != config.in_channels:
            raise UserError(
                f"{checkpoint.file}: takes images of {count(spec.in_channels, 'channel')}, the configuration trains what is "
                f"found with {config.in_channels}. Set in_channels={spec.in_channels}, or take another checkpoint."
            )
        theirs = format_size(checkpoint.image_size)
        if checkpoint.described and checkpoint.image_size != config.image_size:
            raise UserError(
                f"{checkpoint.file}: takes images of {theirs} pixels, the configuration trains what is found with "
                f"{format_size(config.image_size)}. Set image_size={theirs}, or take another checkpoint."
            )
    cost = request.cost(kind.counted(spec, config.image_size), config.image_size)
    check_targets(cost, Slimming(spec, config.search_groups), request.targets)
    if request.config.search_finish:
        if isinstance(spec, GraphSpec):
            _check_module(spec, module, checkpoint)
        check_finish(request)


def _check_module(spec: GraphSpec, module: WidthSpec | None, checkpoint: Checkpoint | None) -> None:
    """UserError where what is found in a user's network cannot be trained: a checkpoint holds its graph, and not its module,
    from whose weights a training begins."""
    file = "" if checkpoint is None else checkpoint.file
    if module is None:
        known = "" if checkpoint is None else module_of(checkpoint)
        raise UserError(
            f"search_finish: what is found in {file} is trained from the module that it was made of, and none is named. Name "
            f"it: --model {known or 'MODULE'}, or train later: --no-finish."
        )
    if (module.name, module.widest) == (spec.name, spec.widest):
        return
    if spec.detector is not None:
        raise UserError(
            f"{file}: is a {spec.name} of other channel groups than the one that what is found would be trained as. Give the "
            "configuration the keys of `detector` that the checkpoint was trained with, or train later: --no-finish."
        )
    raise UserError(
        f"{file}: is a {spec.name} of other channel groups than the {module.name} that what is found would be trained as. "
        "Name the module that the checkpoint was made of, with its heads, conv_groups and shuffles, or train later: "
        "--no-finish."
    )


def module_of(checkpoint: Checkpoint) -> str:
    """The name of the module that a traced network was made of, where its run says so."""
    return str(checkpoint.settings.get("model") or "")


def cautions(checkpoint: Checkpoint, config: Config) -> list[str]:
    """Why candidates slimmed from a checkpoint may be ranked poorly: how it was trained, and on which images.

    `config` is the training that would have been right.
    """
    settings = checkpoint.settings
    if not settings:
        return [
            "does not say how it was trained. The search ranks candidates rightly only if widths were non-uniform, and the "
            "held-out images were not trained on."
        ]
    lines = []
    if not settings.get("nonuniform"):
        lines.append(
            "was trained with uniform widths. Its layers have never worked with neighbors of other widths, so the error of "
            "a candidate with one narrower group tells little about the network that would be trained, and groups are ranked "
            "poorly. Train it with nonuniform=true, or leave --ckpt out."
        )
    same = all(settings.get(key) == getattr(config, key) for key in ("data", "seed"))
    kept = settings.get("holdout", 0)
    enough = kept == config.holdout or (isinstance(kept, int) and config.holdout >= 1 and kept >= config.holdout)
    if not (same and enough):
        lines.append(
            f"was trained on images that are now held out (data={settings.get('data')}, seed={settings.get('seed')}, "
            f"holdout={kept}; expected {config.data}, {config.seed}, {config.holdout} or more). Candidates are measured on "
            "images that it knows: their errors are too low, and overfitting is not seen."
        )
    return lines
