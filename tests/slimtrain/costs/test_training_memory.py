"""The estimate of a training's memory against what processes took at their peak."""

from __future__ import annotations

import subprocess
import sys

import pytest

from slimtrain.costs.training_memory import testing_memory as memory_of_tests
from slimtrain.costs.training_memory import training_memory
from slimtrain.models.published import published_spec
from slimtrain.models.spec import NetworkSpec
from tests.support import ROOT

# Peaks of resident memory, in bytes, of two steps each of ascending batches, over what there was before the network was built.
MEASURE = """
import sys
import torch
from slimtrain.config.reading import make_config
from slimtrain.training.distributed import Processes
from slimtrain.training.inputs import data_of
from slimtrain.training.run import Run

network, size, *batches = sys.argv[1:]
torch.set_num_threads(1)


def resident(key):  # not getrusage, whose peak is the parent's where that was larger
    return int(next(line for line in open("/proc/self/status") if line.startswith(key)).split()[1]) * 1024


before = resident("VmRSS")
for batch in batches:
    values = {"network": network, "data": "fake", "augmentation": "none", "workers": 0, "sandwich": 2, "classes": 10}
    config = make_config({**values, "image_size": int(size), "batch_size": int(batch)}, "measured")
    processes = Processes(0, 1, torch.device("cpu"))
    run = Run(config, processes, data_of(config))
    images = run.images.training()
    for _ in range(2):
        run.train_step(next(images))
    print(resident("VmHWM") - before)
    del run, images
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("network", "size", "batches"),
    [("us_mobilenet_v1", 64, (8, 64)), ("s_resnet50", 64, (2, 16))],
    ids=["us_v1", "s_resnet50"],
)
def test_it_is_at_most_30_percent_above_the_measured_peak_and_not_below(
    network: str, size: int, batches: tuple[int, ...]
) -> None:
    words = [sys.executable, "-c", MEASURE, network, str(size), *map(str, batches)]
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    estimate = training_memory(published_spec(network, classes=10), size)
    for batch, peak in zip(batches, map(int, ran.stdout.split()), strict=True):
        assert peak * 0.97 < estimate(batch) < 1.3 * peak + 30 * 2**20, (batch, peak, estimate(batch))


def test_it_is_linear_in_images_and_counts_what_stands_beside() -> None:
    spec = NetworkSpec("mobilenet_v1", "us", (0.25, 1.0), 10, width_range=(0.25, 1.0))
    memory = training_memory(spec, 64)
    assert memory(10) - memory(4) == 6 * memory.per_image
    assert memory.images(memory(7)) == 7 and memory.images(memory(7) - 1) == 6 and memory.images(1000) == 0
    larger = training_memory(spec, 128)
    assert larger.fixed == memory.fixed and 3.9 < larger.per_image / memory.per_image < 4.1
    assert training_memory(spec, 64, averaged=True).fixed > memory.fixed
    taught = training_memory(spec, 64, taught=True)  # a copy of the weights, whose maps are gone before those of a step
    assert taught.fixed - memory.fixed == pytest.approx(training_memory(spec, 64, averaged=True).fixed - memory.fixed, abs=2)
    assert taught.per_image == memory.per_image
    assert training_memory(spec, 64, half=True).per_image < 0.6 * memory.per_image
    assert memory_of_tests(spec, 64).per_image < memory.per_image / 4


def test_the_widest_plan_counts() -> None:
    narrow = NetworkSpec("mobilenet_v1", "us", (0.25, 0.5), 10, width_range=(0.25, 0.5))
    wide = NetworkSpec("mobilenet_v1", "us", (0.25, 1.0), 10, width_range=(0.25, 1.0))
    assert training_memory(narrow, 64).per_image < 0.6 * training_memory(wide, 64).per_image
