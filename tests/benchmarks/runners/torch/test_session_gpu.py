"""What only a GPU can show: every torch backend there computes what the file says, and its parts are timed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.cells.backends import TORCH_COMPILE, TORCH_EAGER, TORCH_GRAPH
from benchmarks.cells.cell import Options
from benchmarks.runners.torch.modes import current
from tests.support.bench_torch_helpers import FewImages, cell, gap, open_torch, probes, torch_logits, write_tiny

pytestmark = pytest.mark.gpu
TOLERANCES = {"fp32": 1e-5, "tf32": 5e-3, "fp16": 1e-2, "bf16": 5e-2}


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("backend", [TORCH_EAGER, TORCH_COMPILE, TORCH_GRAPH])
@pytest.mark.parametrize("transfers", [False, True])
def test_every_backend(backend: str, precision: str, transfers: bool, tmp_path: Path) -> None:
    before = current()
    network = write_tiny(tmp_path, precision="fp32" if precision == "tf32" else precision)
    options = Options(device="cuda", transfers=transfers)
    runner = open_torch(cell(backend=backend, precision=precision), tmp_path, FewImages(), options)
    for seed in range(2):
        images = probes() + seed
        assert gap(runner.logits(images), torch_logits(network, images)) < TOLERANCES[precision]
        timings = [runner.run(index) for index in range(5)]
        for timing in timings:
            assert timing.device is not None and 0 < timing.device <= timing.wall
            assert timing.enqueue is not None and 0 < timing.enqueue < timing.wall
            assert (timing.upload is not None) == (timing.download is not None) == transfers
    assert runner.settings["tf32"] == (precision == "tf32") and runner.settings["cudnn_benchmark"] is True
    assert bool(runner.settings["cuda_graph"]) == (backend == TORCH_GRAPH)
    runner.close()
    assert current() == before


def test_memory_that_does_not_suffice(tmp_path: Path) -> None:
    from benchmarks.cells.cell import OutOfMemory
    from benchmarks.runners.torch.errors import torch_reasons

    with pytest.raises(OutOfMemory, match="GPU's memory"), torch_reasons("cuda"):
        torch.empty(1 << 58, device="cuda")
