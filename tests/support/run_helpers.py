"""What the tests of runs share: tiny networks, tiny configurations, and the command in this process or in its own."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from slimtrain.base.errors import UserError
from slimtrain.cli import main
from slimtrain.config.config import Config
from slimtrain.config.reading import make_config
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.calibrate import calibrate
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.training.distributed import Processes
from slimtrain.training.optimizer import initialize
from slimtrain.training.run import train
from tests.support import ROOT
from tests.support.outcomes import Outcome, outcome_of

HEAVY = ("torch", "torchvision", "onnx", "onnxruntime", "safetensors", "sklearn", "scipy")


torch.set_num_threads(1)  # small networks: two threads wait for each other longer than they work
TIMING = ("images_per_s", "data_wait")  # of summary.csv: what no two runs share
ALONE = Processes(0, 1, torch.device("cpu"))
# 4 steps an epoch of 8 images, a few milliseconds each.
TINY: dict[str, Any] = {
    **{"network": "us_mobilenet_v1", "width_range": [0.125, 0.25], "test_widths": [0.1875], "stem_stride": 1},
    **{"data": "fake", "image_size": 16, "augmentation": "none", "workers": 0, "batch_size": 8, "sandwich": 3},
    **{"epochs": 2, "calibration_batches": 2, "device": "cpu", "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
}
US1 = NetworkSpec("mobilenet_v1", "us", (0.125, 0.25), 10, width_range=(0.125, 0.25), stem_stride=1)
US2 = NetworkSpec("mobilenet_v2", "us", (0.25, 0.5), 7, width_range=(0.25, 0.5))
S2 = NetworkSpec("mobilenet_v2", "s", (0.5, 0.25), 5)
LISTS = ((8, 16, *(16,) * 12), (8, 24, *(16,) * 5, *(40,) * 7))
AUTO = NetworkSpec("mobilenet_v1", "autoslim", (1, 2), 3, LISTS)
SPECS = {"us_v1": US1, "us_v2": US2, "s_v2": S2, "autoslim_v1": AUTO}


# ------------------------------------------------------------------------------------------------------ configurations


def config(folder: Path, **changes: Any) -> Config:
    """The tiny configuration, its run in `folder`."""
    return make_config({**TINY, "output_dir": str(folder), **changes}, "tiny")


def config_file(path: Path, **changes: Any) -> Path:
    """The tiny configuration as a YAML file; keys that are None are left out."""
    values = {key: value for key, value in {**TINY, **changes}.items() if value is not None}
    path.write_text(yaml.safe_dump(values))
    return path


def app_settings(path: Path, **changes: object) -> Path:
    """A published file for the tiny network; keys that are None stay without a value, as published files have them."""
    values: dict[str, object] = {
        "model": "models.us_mobilenet_v1",
        "width_mult_range": [0.125, 0.25],
        "width_mult_list_test": [0.125, 0.1875, 0.25],
        "num_sample_training": 3,
        "soft_target": True,
        "universally_slimmable_training": True,
        "image_size": 32,
        "batch_size": 8,
        "num_epochs": 1,
        "lr": 0.05,
        "lr_scheduler": "linear_decaying",
        "data_transforms": "imagenet1k_mobile",
        "bn_cal_batch_num": 2,
        "random_seed": 5,
        "num_gpus_per_job": 8,
        "pretrained": None,
        "resume": None,
        **changes,
    }
    path.write_text(yaml.safe_dump(values))
    return path


# ------------------------------------------------------------------------------------------------------------ networks


@torch.no_grad()
def network_of(spec: NetworkSpec, seed: int = 0) -> SlimmableNetwork:
    """A network of `spec` with random weights, scales and statistics, in evaluation mode."""
    network = SlimmableNetwork(spec)
    initialize(network, seed)
    draw = torch.Generator().manual_seed(seed)
    for key, value in network.state_dict().items():
        if value.dim() == 1:  # norms, and the classifier's bias
            low = 0.5 if key.endswith(("weight", "running_var")) else -0.5
            value.uniform_(low, low + 1, generator=draw)
    return network.eval()


def mixed(spec: NetworkSpec, name: str = "mixed") -> ChannelPlan:
    """A plan with another width in every group."""
    low, high = spec.range
    groups = spec.wiring.groups
    return spec.mixed_plan(name, [low + (high - low) * (i * 7 % 11) / 10 for i in range(len(groups))])


def noise(count: int = 4, size: int = 32, seed: int = 5) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def calibrated_network(spec: NetworkSpec, *more: ChannelPlan) -> SlimmableNetwork:
    """As `network_of`, its own plans and `more` calibrated on noise."""
    network = network_of(spec)
    calibrate(network, [*spec.plans, *more], [noise(), noise(seed=6)])
    return network


@torch.inference_mode()
def logits(network: SlimmableNetwork, plan: ChannelPlan, size: int = 32) -> Tensor:
    with network.at(plan):
        return network(noise(3, size, 9))


def same_state(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> None:
    """Bit for bit, in the same order."""
    assert list(a) == list(b)
    assert [key for key in a if a[key].dtype != b[key].dtype or not torch.equal(a[key], b[key])] == []


def same_calibrated(a: SlimmableNetwork, b: SlimmableNetwork) -> None:
    """Plans, their names and widths, and every norm's statistics bit for bit."""
    described = [[(plan.name, plan.width, dict(plan.channels)) for plan in network.calibrated] for network in (a, b)]
    assert described[0] == described[1]
    for plan, statistics in a.calibrated.items():
        other = b.calibrated[plan]
        assert statistics.keys() == other.keys()
        for path, pair in statistics.items():
            assert all(torch.equal(x, y) for x, y in zip(pair, other[path], strict=True)), (plan.name, path)


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Where two nested values of tensors and plain values differ, bit for bit."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [path]
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if list(a) != list(b):
            return [f"{path}: keys"]
        return [line for key in a for line in differences(a[key], b[key], f"{path}/{key}")]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [line for i, (x, y) in enumerate(zip(a, b, strict=True)) for line in differences(x, y, f"{path}/{i}")]
    return [] if type(a) is type(b) and a == b else [path]


def raw(path: Path) -> dict[str, Any]:
    """What plain torch reads from a file."""
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def timeless(path: Path) -> dict[str, Any]:
    """What a checkpoint holds, but for times and for how the run was called."""
    held = raw(path)
    if "training" in held:
        held["training"]["rows"] = [{k: v for k, v in row.items() if k not in TIMING} for row in held["training"]["rows"]]
        for key in ("output_dir", "resume"):
            del held["training"]["config"][key]
    return held


# ------------------------------------------------------------------------------------------------------------- failures


def failure(settings: Config, error: type[UserError], *parts: str) -> str:
    """The run fails so; one message that holds all `parts`."""
    with pytest.raises(error) as caught:
        train(settings, ALONE)
    assert type(caught.value) is error
    message = str(caught.value)
    assert all(part in message for part in parts) and "\n" not in message, message
    return message


def resume_refusal(folder: Path, error: type[UserError], settings: Mapping[str, Any], **changes: Any) -> str:
    """Going on with the run of `settings` in a folder of its own is refused, and nothing is touched; the message."""
    before = tree(folder)
    with pytest.raises(error) as caught:
        train(config(folder, **{**settings, "resume": "auto", **changes}), ALONE)
    assert tree(folder) == before and os.listdir(folder.parent) == [folder.name]
    return str(caught.value)


# --------------------------------------------------------------------------------------------------------- the command


def run(*args: str | Path) -> Outcome:
    """`python -m slimtrain ARGS` in this process."""
    return outcome_of(main, "slimtrain", *args)


def done(*args: str | Path) -> Outcome:
    """As `run`; it succeeds."""
    outcome = run(*args)
    assert outcome.code == 0, outcome.err
    return outcome


def export_words(outcome: Outcome) -> list[str]:
    """The options of the `slimexport` line that a training ends with, whichever way that is called here."""
    words = shlex.split(outcome.lines[-1])
    assert words[0] == "slimexport" or words[1:3] == ["-m", "slimexport"], words
    return words[words.index("slimexport") + 1 :]


def refused(outcome: Outcome, code: int, *parts: str) -> None:
    """One message that holds all `parts`, nothing on standard output."""
    assert outcome.code == code, outcome
    message = " ".join(outcome.err.split())
    assert all(part in message for part in parts), (message, parts)
    assert "Traceback" not in message and outcome.out == ""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def command(*args: str | Path, module: str = "slimtrain", cwd: Path) -> subprocess.CompletedProcess[str]:
    """`python -m MODULE ARGS` in a process of its own."""
    words = [sys.executable, "-m", module, *map(str, args)]
    return subprocess.run(words, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300, check=False)


def tree(folder: Path, leave_out: Sequence[str] = ()) -> dict[str, bytes]:
    """Every file below a folder: relative path -> content."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in leave_out)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def without_torch(*args: str | Path) -> subprocess.CompletedProcess[str]:
    """`python -m slimtrain ARGS` where torch cannot be imported."""
    code = f"import sys; sys.modules.update(dict.fromkeys({HEAVY!r}))\n" + (
        "import runpy; sys.argv = ['slimtrain', *sys.argv[1:]]; runpy.run_module('slimtrain', run_name='__main__')"
    )
    words = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120, check=False)
