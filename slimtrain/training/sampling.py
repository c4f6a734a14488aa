"""Which plans a training step runs. No torch.

Slimmable and AutoSlim networks run every switch (arXiv 1812.08928, sec. 3.3). Universally slimmable ones follow the
sandwich rule (1903.05134, sec. 3.2): the widest, the narrowest, and widths drawn uniformly between; non-uniform: every
channel group draws a width of its own.

Draws depend on (seed, step) alone, so a resumed run and every process of a run draw the same.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from slimtrain.models.channels import ChannelPlan
from slimtrain.models.width_spec import WidthSpec


@dataclass(frozen=True)
class WidthSampler:
    """`sampler(step)` gives the plans of a step, the widest first: it is the teacher of the others.

    `sandwich` widths per step of a US network; `width_step` above 0 draws from a grid that begins at the narrowest.
    """

    spec: WidthSpec
    seed: int = 0
    sandwich: int = 4
    nonuniform: bool = False
    width_step: float = 0.0

    @property
    def count(self) -> int:
        """Plans per step."""
        return self.sandwich if self.spec.family == "us" else len(self.spec.plans)

    @property
    def fixed(self) -> list[ChannelPlan]:
        """The plans that every step runs, the widest first."""
        if self.spec.family == "us":
            low, high = self.spec.range
            return [self.spec.plan(high), self.spec.plan(low)]
        return sorted(self.spec.plans, key=lambda plan: -sum(plan.channels.values()))

    @property
    def grid(self) -> list[float]:
        """The widths that are drawn from, where they are finitely many."""
        if not self.width_step:
            return []
        low, high = self.spec.range
        steps = int((high - low) / self.width_step + 1e-9)
        # Rounded to what a person would write, which may lie a digit outside of a range with more digits.
        return [min(max(round(low + i * self.width_step, 9), low), high) for i in range(steps + 1)]

    def __call__(self, step: int) -> list[ChannelPlan]:
        plans = self.fixed
        if self.spec.family != "us":
            return plans
        draw = random.Random(f"{self.seed}:{step}")  # noqa: S311 (no secret)
        return [*plans, *(self._draw(draw, i) for i in range(self.sandwich - 2))]

    def _draw(self, draw: random.Random, number: int) -> ChannelPlan:
        low, high = self.spec.range
        if self.width_step:
            return self.spec.plan(draw.choice(self.grid))
        if not self.nonuniform:
            return self.spec.plan(draw.uniform(low, high))
        return self.spec.mixed_plan(f"nonuniform_{number}", [draw.uniform(low, high) for _ in range(self.spec.entries)])
