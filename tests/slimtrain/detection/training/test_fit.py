"""A detector that is trained on scenes: its steps, their rates, and that the same seed gives the same bits."""

from __future__ import annotations

import pytest
import torch

from slimtrain.detection.making import slimmable_detector
from slimtrain.detection.training.fit import StepReport, fit
from slimtrain.detection.training.step import losses_of
from slimtrain.training.optimizer import Schedule
from tests.support.trained_detectors import SAMPLING, SIZE, drawn_batch, quick_detector, quick_settings


def run(
    steps: range, seed: int, state: dict[str, torch.Tensor] | None = None
) -> tuple[list[StepReport], dict[str, torch.Tensor]]:
    network = slimmable_detector(quick_detector(), (0.5, 1.0), image_size=SIZE, order="none")
    if state is not None:
        network.load_state_dict(state)
    batches = (drawn_batch([2, 3])._replace(step=step) for step in steps)
    reports: list[StepReport] = []
    schedule = Schedule(0.02, "linear", epochs=1, steps=4, warmup_epochs=0.5)
    plans = [network.plan(width) for width in (1.0, 0.5)]
    fit(network, plans, batches, losses_of(quick_settings(), SAMPLING), schedule, seed=seed, on_step=reports.append)
    return reports, {name: value.clone() for name, value in network.state_dict().items()}


def test_steps_are_reported_and_repeat_bit_for_bit() -> None:
    reports, state = run(range(2), 0)
    torch.manual_seed(99)  # of no account
    again, same = run(range(2), 0)
    other, _ = run(range(2), 1)
    assert [report.step for report in reports] == [0, 1]
    assert [report.lr for report in reports] == pytest.approx([0.01, 0.015])
    assert [report.totals for report in reports] == [report.totals for report in again] != [report.totals for report in other]
    assert all(torch.equal(value, same[name]) for name, value in state.items())
    assert all(len(report.losses) == 2 and report.gradient > 0 for report in reports)
    begun = slimmable_detector(quick_detector(), (0.5, 1.0), image_size=SIZE, order="none").state_dict()
    assert any(not torch.equal(value, begun[name]) for name, value in state.items())
