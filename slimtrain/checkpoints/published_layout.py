"""The layout `published`: `{"model": state dict}` with keys beginning with `module.`, which the published code loads. What
else it is to tell stands beside `model`, where that code does not look.

It is written here; whichever wrapping a state dict comes in, `reading.py` takes it off and `identify.py` says what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from slimtrain.base.errors import UserError
from slimtrain.models.spec import published
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.slimmable.norms import RUNNING, SharedNorm, UniversalNorm


def published_content(network: SlimmableNetwork, beside: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`{"model": state dict}` in the published layout, with the statistics of every known width, and what is to be
    `beside` it.

    A US network's norms hold range minimum, range maximum, then the further widths; a norm of a fixed group stays as training
    left it. UserError for what the layout has no place for: plans without a width, a stem stride of 1.
    """
    spec = published(network.spec, "the published layout")
    odd = [plan.name for plan in network.known_plans if plan.width is None]
    if odd:
        raise UserError(
            f"the published layout has no place for plans that no width describes ({', '.join(odd)}). Save them with "
            "--layout own."
        )
    if spec.stem_stride != 2:
        raise UserError(
            "the published layout has no place for a stem stride of 1, its readers would take 2. Use --layout own."
        )
    plans = list(spec.plans)
    if spec.family == "us":
        plans = [plan for plan in network.known_plans if network.has_statistics(plan)]
        ends = [plan for end in spec.range for plan in plans if plan.width == end]
        plans = [*ends, *(plan for plan in plans if plan not in ends)]
        if len(ends) != len(spec.range):
            raise UserError("the published layout begins with the ends of the range: calibrate these too.")
    own = network.state_dict()
    state = {}
    with torch.no_grad():
        statistics = [network.statistics(plan) for plan in plans]
    for key, value in own.items():
        path, _, _ = key.partition(".bn.")
        norm = network.norms.get(path)
        if norm is None or isinstance(norm, SharedNorm) or ".bn." not in key:
            state[f"module.{key}"] = value.detach().cpu()
        elif isinstance(norm, UniversalNorm) and f"module.{path}.bn.0.running_mean" not in state:
            for i, plan_statistics in enumerate(statistics):
                state.update(_stored(f"module.{path}.bn.{i}", plan_statistics[path]))
        elif not isinstance(norm, UniversalNorm):
            index = int(key.removeprefix(f"{path}.bn.").split(".")[0])
            kind = key.rsplit(".", 1)[1]
            mean_var = dict(zip(RUNNING, statistics[index][path], strict=True))
            state[f"module.{key}"] = mean_var.get(kind, value).detach().cpu()
    return {"model": state, **(beside or {})}


def _stored(path: str, statistics: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """A norm's entry for one width."""
    values = {f"{path}.{kind}": t.detach().cpu() for kind, t in zip(RUNNING, statistics, strict=True)}
    return {**values, f"{path}.num_batches_tracked": torch.tensor(1)}
