"""The slimmable network: one set of weights, many plans (arXiv 1812.08928)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from slimtrain.base.errors import UserError, WidthError
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.width_spec import WidthSpec
from slimtrain.slimmable.graph_body import GraphBody
from slimtrain.slimmable.graph_dense import graph_dense
from slimtrain.slimmable.norms import PlanNorm, UniversalNorm
from slimtrain.slimmable.sync_norm import Statistics

OWN = frozenset({"spec", "body", "norms", "calibrated", "active", "training"})  # attributes, not entries


class SlimmableNetwork(nn.Module):
    """The network of `spec`. Its state dict has the published keys, shapes and order.

    It runs at the plan that `at` made active, at first the widest:

    >>> import slimtrain, torch
    >>> network = slimtrain.SlimmableNetwork(slimtrain.published_spec("us_mobilenet_v1", classes=10))
    >>> with network.at(network.spec.plan(0.5)):
    ...     network(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2, 10])

    `tensors`: what a traced network stores, as of `GraphBody`.
    """

    def __init__(self, spec: WidthSpec, tensors: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.spec = spec
        body = GraphBody(spec, tensors)
        # The body runs, but what it holds is registered here: keys begin at `features`, as published. The two share their
        # tables, so that whatever replaces a tensor replaces it for both, and a user's module may have any name.
        self.body = body
        if not isinstance(spec, GraphSpec):  # whose weights are the user's
            body.reset()
        self._modules, self._parameters, self._buffers = body._modules, body._parameters, body._buffers
        self._non_persistent_buffers_set = body._non_persistent_buffers_set
        self.norms = {path: m for path, m in self.named_modules() if isinstance(m, PlanNorm)}
        # Statistics of plans that were calibrated, beside those the layout stores: plan -> norm's path -> (mean, var).
        self.calibrated: dict[ChannelPlan, dict[str, Statistics]] = {}
        self.active = spec.widest
        self._activate(spec.widest)

    def __setattr__(self, name: str, value: Any) -> None:
        """What this class calls its own is no entry of the tables, in which a user's network may have the same names."""
        if name not in OWN:
            super().__setattr__(name, value)
        elif isinstance(value, nn.Parameter):
            self._parameters[name] = value
        else:
            object.__setattr__(self, name, value)

    def forward(self, *inputs: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, classes], at the active plan; of a traced network what its module takes and gives."""
        logits: Tensor = self.body.forward(*inputs)
        return logits

    def plan(self, width: float) -> ChannelPlan:
        """The plan of a width, or of an AutoSlim network's switch; WidthError where the network has none such."""
        return self.spec.plan(width)

    def dense(self, width: float) -> nn.Module:
        """The dense form at a width: an ordinary, smaller module of `torch.nn` layers. WidthError for a width without
        statistics."""
        plan = self.plan(width)
        if not self.has_statistics(plan):
            raise WidthError(
                f"width {width}: {self.spec.name} has no batch-norm statistics for it. Give it some: "
                f"slimtrain.calibrate(network, [network.plan({width})], batches)."
            )
        return graph_dense(self, plan)

    @contextmanager
    def at(self, plan: ChannelPlan) -> Iterator[SlimmableNetwork]:
        """Make `plan` active within a `with` block; the plan before it comes back whatever happens inside."""
        before = self.active
        self._activate(plan)
        try:
            yield self
        finally:
            self._activate(before)

    def has_statistics(self, plan: ChannelPlan) -> bool:
        """Whether every norm knows running statistics for `plan`.

        Statistics at 0 and 1 everywhere, as the published calibration of US networks leaves them, are none.
        """
        if not self.norms or plan in self.calibrated:
            return True
        if plan not in self.spec.plans:
            return False
        index = self.spec.plans.index(plan)
        norms = [norm.bn[index] for norm in self.norms.values() if isinstance(norm, UniversalNorm)]
        return not norms or any(_filled(norm) for norm in norms)

    def set_statistics(self, plan: ChannelPlan, statistics: Mapping[str, Statistics]) -> None:
        """Give `plan` its own statistics: norm's path -> (mean, variance), each [active channels].

        Raises ValueError unless exactly this network's norms are covered, at the plan's sizes.
        """
        expected = {path: plan.size(norm.dim) for path, norm in self.norms.items()}
        wrong = sorted(expected.keys() ^ statistics.keys())
        wrong += [p for p, pair in statistics.items() if p in expected and any(t.shape != (expected[p],) for t in pair)]
        if wrong:
            raise ValueError(f"plan {plan.name}: statistics do not cover these norms as expected: {', '.join(wrong[:4])}")
        self.replace_calibrated({**self.calibrated, plan: dict(statistics)})

    def blank_statistics(self, plan: ChannelPlan) -> dict[str, Statistics]:
        """Statistics of mean 0 and variance 1 for `plan`, of its scales' dtype and device: where calibration begins."""
        with self.at(plan):
            scales = {path: norm.scale_and_shift()[0] for path, norm in self.norms.items()}
        return {path: (torch.zeros_like(scale), torch.ones_like(scale)) for path, scale in scales.items()}

    def replace_calibrated(self, calibrated: Mapping[ChannelPlan, dict[str, Statistics]]) -> None:
        """Take `calibrated` for all the statistics that are kept beside the layout's."""
        self.calibrated = dict(calibrated)
        self._activate(self.active)

    @property
    def known_plans(self) -> list[ChannelPlan]:
        """The plans that statistics are kept for: the layout's, in stored order, then those calibrated beside them."""
        return [*self.spec.plans, *(plan for plan in self.calibrated if plan not in self.spec.plans)]

    def statistics(self, plan: ChannelPlan) -> dict[str, Statistics]:
        """Norm's path -> (mean, variance) of `plan`, as used in evaluation; LookupError where it has none."""
        with self.at(plan):
            return {path: norm.statistics() for path, norm in self.norms.items()}

    def synchronize(self, synchronized: bool) -> None:
        """Whether norms take batch statistics over all processes' images."""
        for norm in self.norms.values():
            norm.synchronized = synchronized

    @contextmanager
    def averaging(self, momentum: float) -> Iterator[None]:
        """Within the block every norm normalizes by the batch, and the active plan's calibrated statistics follow it
        with `momentum`."""
        for norm in self.norms.values():
            norm.averaging = momentum
        try:
            yield
        finally:
            for norm in self.norms.values():
                norm.averaging = None

    def train(self, mode: bool = True) -> SlimmableNetwork:
        """The body, which runs but is no child, follows."""
        super().train(mode)
        self.body.training = mode
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SlimmableNetwork:
        """Statistics of calibrated plans go along to other devices and dtypes."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.calibrated = {
            plan: {path: (fn(mean), fn(var)) for path, (mean, var) in statistics.items()}
            for plan, statistics in self.calibrated.items()
            if not any(tensor.is_meta for pair in statistics.values() for tensor in map(fn, pair))  # which hold nothing
        }
        self._activate(self.active)
        return self

    def _replicate_for_data_parallel(self) -> SlimmableNetwork:
        """Of torch.nn.DataParallel. UserError: a copy would run the weights of this network, on this network's device."""
        raise UserError(
            f"{self.spec.name}: torch.nn.DataParallel copies the weights of a network, and not which plan is active, so "
            "slimmable networks do not run in it. Take a process per GPU: torch.nn.parallel.DistributedDataParallel, or "
            "`torchrun -m slimtrain train`."
        )

    def _activate(self, plan: ChannelPlan) -> None:
        if not isinstance(plan, ChannelPlan):
            raise UserError(f"{self.spec.name}: {plan!r} is no plan. Expected one, such as network.plan(0.5).")
        if plan.channels.keys() != self.spec.widest.channels.keys():
            raise ValueError(f"plan {plan.name} has other channel groups than this {self.spec.name}")
        index = self.spec.plans.index(plan) if plan in self.spec.plans else None
        calibrated = self.calibrated.get(plan, {})
        self.body.activate(plan)
        for path, norm in self.norms.items():
            norm.activate(plan, index, calibrated.get(path))
        self.active = plan


def _filled(norm: nn.Module) -> bool:
    """Whether a norm's statistics differ from what they begin with."""
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
    return bool((norm.running_mean != 0).any() or (norm.running_var != 1).any())
