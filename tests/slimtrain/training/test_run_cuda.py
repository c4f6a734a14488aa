"""What only a GPU can show: training there, in every mode, and that a GPU's checkpoint is read on a CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.config.reading import make_config
from slimtrain.training.distributed import Processes
from slimtrain.training.run import train

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"amp": "bf16", "channels_last": False},
        {"amp": "fp16", "ema": 0.9, "accumulate": 2},
        {"amp": "bf16", "compile": True},
    ],
    ids=["fp32", "bf16", "fp16", "compile"],
)
def test_a_small_run(tmp_path: Path, changes: dict[str, object]) -> None:
    values = {
        "network": "us_mobilenet_v1",
        "width_range": [0.25, 0.5],
        "test_widths": [0.35],
        "stem_stride": 1,
        "data": "fake",
        "image_size": 32,
        "augmentation": "none",
        "batch_size": 16,
        "epochs": 2,
        "lr": 0.01,
        "distill": True,
        "workers": 0,
        "calibration_batches": 2,
        "device": "cuda",
        "output_dir": str(tmp_path),
        **changes,
    }
    path = train(make_config(values, "test"), Processes(0, 1, torch.device("cuda", 0)))
    checkpoint = open_checkpoint(path)
    plans = checkpoint.network.known_plans
    assert [plan.width for plan in plans] == [0.25, 0.5, 0.35]
    assert all(checkpoint.network.has_statistics(plan) for plan in plans)
    assert not any(t.is_cuda for t in checkpoint.network.state_dict().values())


def test_a_resumed_run_goes_on(tmp_path: Path) -> None:
    values = {
        "network": "s_mobilenet_v1",
        "switches": [0.25, 0.5],
        "stem_stride": 1,
        "data": "fake",
        "image_size": 32,
        "augmentation": "none",
        "batch_size": 16,
        "epochs": 1,
        "workers": 0,
        "calibration_batches": 0,
        "amp": "fp16",
        "device": "cuda",
        "output_dir": str(tmp_path),
    }
    processes = Processes(0, 1, torch.device("cuda", 0))
    train(make_config(values, "test"), processes)
    again = train(make_config({**values, "resume": "auto"}, "test"), processes)
    assert again.exists()
    assert not (tmp_path.parent / f"{tmp_path.name}.1").exists()
