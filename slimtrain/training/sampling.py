"""Which plans a training step runs. No torch.

Slimmable and AutoSlim networks run every switch (arXiv 1812.08928, sec. 3.3). Universally slimmable ones follow the
sandwich rule (1903.05134, sec. 3.2): the widest, the narrowest, and widths drawn uniformly between; non-uniform: every
channel group draws a width of its own. The range may grow in stages, from the widest on: progressive shrinking (1908.09791,
sec. 3.3), which goes on with narrower networks once the wider ones are trained.

Draws depend on (seed, step) alone, so a resumed run and every process of a run draw the same.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from slimtrain.models.channels import ChannelPlan, number_text
from slimtrain.models.width_spec import WidthSpec


@dataclass(frozen=True)
class Stages:
    """The narrowest width of every stage of a run, falling, which share its first `epochs` evenly, each at least one; later
    epochs are the last stage's. `steps` are an epoch's."""

    narrowest: tuple[float, ...]
    epochs: int
    steps: int

    def number(self, step: int) -> int:
        """The stage of a step, both counted from 0: of n stages over E epochs, epoch e is in stage floor(e n / E)."""
        return min(step // self.steps * len(self.narrowest) // self.epochs, len(self.narrowest) - 1)

    def begins(self, step: int) -> bool:
        """Whether a stage begins with `step`."""
        return step == 0 or self.number(step) != self.number(step - 1)

    def describe(self, step: int) -> str:
        """The stage of `step`, as a line for the log."""
        number, most = self.number(step), len(self.narrowest)
        own = [epoch + 1 for epoch in range(self.epochs) if self.number(epoch * self.steps) == number]
        until = (
            f"from epoch {own[0]} on"
            if number + 1 == most
            else f"epochs {own[0]} to {own[-1]}"
            if len(own) > 1
            else f"epoch {own[0]}"
        )
        return f"stage {number + 1} of {most}, {until}: widths from {number_text(self.narrowest[number])} up"


@dataclass(frozen=True)
class WidthSampler:
    """`sampler(step)` gives the plans of a step, the widest first: it is the teacher of the others.

    `sandwich` widths per step of a US network; `width_step` above 0 draws from a grid that begins at the narrowest. With
    `stages` the widths of a step are those of its stage.
    """

    spec: WidthSpec
    seed: int = 0
    sandwich: int = 4
    nonuniform: bool = False
    width_step: float = 0.0
    stages: Stages | None = None

    @property
    def count(self) -> int:
        """Plans per step, once all widths are trained: in an earlier stage there may be fewer."""
        return self.sandwich if self.spec.family == "us" else len(self.spec.plans)

    @property
    def fixed(self) -> list[ChannelPlan]:
        """The plans that every step runs once all widths are trained, the widest first."""
        if self.spec.family == "us":
            low, high = self.spec.range
            return [self.spec.plan(high), self.spec.plan(low)]
        return sorted(self.spec.plans, key=lambda plan: -sum(plan.channels.values()))

    @property
    def returning(self) -> list[ChannelPlan]:
        """The plans that come back step after step: the fixed ones of all stages, then the grid."""
        narrowest = self.stages.narrowest if self.stages and self.spec.family == "us" else ()
        return list(dict.fromkeys([*self.fixed, *map(self.spec.plan, (*narrowest, *self.grid))]))

    @property
    def grid(self) -> list[float]:
        """The widths that are drawn from, where they are finitely many."""
        if not self.width_step:
            return []
        low, high = self.spec.range
        steps = int((high - low) / self.width_step + 1e-9)
        # Rounded to what a person would write, which may lie a digit outside of a range with more digits.
        return [min(max(round(low + i * self.width_step, 9), low), high) for i in range(steps + 1)]

    def narrowest(self, step: int) -> float:
        """The narrowest width that is trained in the stage of `step`."""
        return self.spec.range[0] if self.stages is None else self.stages.narrowest[self.stages.number(step)]

    def fixed_at(self, step: int) -> list[ChannelPlan]:
        """The plans that every step of the stage of `step` runs, the widest first."""
        if self.stages is None:
            return self.fixed
        low = self.narrowest(step)
        if self.spec.family == "us":
            return list(dict.fromkeys(map(self.spec.plan, (self.spec.range[1], low))))
        return [plan for plan in self.fixed if plan.width is not None and plan.width >= low]

    def trains_all(self, step: int) -> bool:
        """Whether all widths are trained in the stage of `step`: it is the last."""
        return self.stages is None or self.narrowest(step) == self.stages.narrowest[-1]

    def __call__(self, step: int) -> list[ChannelPlan]:
        plans = self.fixed_at(step)
        low, high = self.narrowest(step), self.spec.range[1]
        if self.spec.family != "us" or low == high:
            return plans
        draw = random.Random(f"{self.seed}:{step}")  # noqa: S311 (no secret)
        return [*plans, *(self._draw(draw, i, low) for i in range(self.sandwich - 2))]

    def _draw(self, draw: random.Random, number: int, low: float) -> ChannelPlan:
        high = self.spec.range[1]
        if self.width_step:
            return self.spec.plan(draw.choice([width for width in self.grid if width >= low] or [low]))
        if not self.nonuniform:
            return self.spec.plan(draw.uniform(low, high))
        return self.spec.mixed_plan(f"nonuniform_{number}", [draw.uniform(low, high) for _ in range(self.spec.entries)])
