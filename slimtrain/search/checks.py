"""What is wrong with a search, told before the first hour of training; and what makes its ranking doubtful."""

from __future__ import annotations

from slimtrain.base.errors import UserError
from slimtrain.checkpoints.checkpoint import Checkpoint
from slimtrain.config.config import Config
from slimtrain.models.spec import published
from slimtrain.search.finishing import check_finish
from slimtrain.search.request import SearchRequest
from slimtrain.search.slimming import Slimming, check_targets
from slimtrain.training.inputs import data_of


def check_request(request: SearchRequest, checkpoint: Checkpoint | None) -> None:
    """UserError for targets out of reach, a table of another network and a checkpoint that does not fit: before the first
    hour of training, and before anything is moved aside."""
    config = request.supernet
    if checkpoint is None:
        spec = config.spec(len(data_of(config).classes))
    else:
        spec = published(checkpoint.spec, "a search")
        if spec.stem_stride != config.stem_stride:
            raise UserError(
                f"{checkpoint.file}: has stem stride {spec.stem_stride}, the configuration trains what is found with "
                f"{config.stem_stride}. Set stem_stride={spec.stem_stride}, or take another checkpoint."
            )
        if checkpoint.described and checkpoint.image_size != config.image_size:
            raise UserError(
                f"{checkpoint.file}: takes images of {checkpoint.image_size} pixels, the configuration trains what is found "
                f"with {config.image_size}. Set image_size={checkpoint.image_size}, or take another checkpoint."
            )
    check_targets(request.cost(spec, config.image_size), Slimming(spec, config.search_groups), request.targets)
    if request.config.search_finish:
        check_finish(request)


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
