"""Checkpoints in the published layouts, made once per session from the layouts in `tests/reference`."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.reference import make_checkpoint

# Started in the background, a process ignores Ctrl-C, and tests that interrupt themselves would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Test processes beside each other share the cores: with as many threads each as there are cores, the threads of small layers
# mostly wait for each other (an export took 40 s instead of 2).
if (processes := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))) > 1:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))


@pytest.fixture(autouse=True, scope="session")
def commands_leave_this_process_running() -> Iterator[None]:
    """A command that a test runs in this process does not end it for a thread that another test left behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("slimtrain.base.command.end_without_them", lambda code: None)
        yield


PUBLISHED = (
    "s_mobilenet_v1",
    "s_mobilenet_v2",
    "s_resnet50",
    "s_shufflenet",
    "us_mobilenet_v1",
    "us_mobilenet_v2",
    "autoslim_mobilenet_v1",
    "autoslim_mobilenet_v2",
    "autoslim_mnasnet",
    "autoslim_resnet50",
)


def published_state(name: str) -> dict[str, torch.Tensor]:
    """The reference state dict of a published network, bare keys."""
    return {key: torch.from_numpy(value) for key, value in make_checkpoint.state_dict(name, prefix="").items()}


@pytest.fixture(scope="session")
def checkpoint_path(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Name of a published network -> a file in its layout, as published: keys beginning with `module.`."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def path(name: str) -> Path:
        file = folder / f"{name}.pt"
        if not file.exists():
            torch.save({f"module.{key}": value for key, value in published_state(name).items()}, file)
        return file

    return path


@pytest.fixture(scope="session")
def detector_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a small detector at 0.5 and 1.0, for images of 64 px, of 3 named classes; to read only."""
    from tests.support.exported_detectors import write_detector_bundle  # loads torchvision, which most tests need not

    return write_detector_bundle(tmp_path_factory.mktemp("detector"))


@pytest.fixture(scope="session")
def golden_images() -> np.ndarray:
    """The images of the golden logits: float32 [2, 3, 224, 224]."""
    images: np.ndarray = make_checkpoint.images(0, 2, 224)
    return images


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Every test, and what its fixtures make, draws the same numbers whichever tests ran before it in its process; other
    ones with TEST_SEED=N in the environment."""
    seed = int(os.environ.get("TEST_SEED", "0"))
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """A test that changes the number of threads does not change it for the next."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` or `tensorrt` skip, with the reason, where there is none."""
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))
        if item.get_closest_marker("tensorrt") and importlib.util.find_spec("tensorrt") is None:
            item.add_marker(pytest.mark.skip(reason="TensorRT is not installed"))
