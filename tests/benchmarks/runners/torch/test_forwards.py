"""torch.compile as a backend: compiled once per cell, never in a sample, and never eager in its name."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import nn

from benchmarks.cells.backends import TORCH_COMPILE
from benchmarks.cells.cell import NotMeasured, Options
from benchmarks.runners.torch.forwards import Compiled, graphs
from tests.support.bench_torch_helpers import FewImages, cell, gap, open_torch, probes, torch_logits, write_tiny

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++"))), reason="torch.compile needs a C++ compiler on a CPU"
)
CELL = cell(backend=TORCH_COMPILE)


@pytest.fixture(autouse=True)
def compiler() -> Iterator[None]:
    """A compiler that has seen nothing."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@needs_compiler
def test_each_cell_is_compiled_once_and_before_it_is_measured(tmp_path: Path) -> None:
    """More networks than torch compiles of one function before it gives up."""
    channels = (8, 16)
    files = {count: f"tiny_{count}.onnx" for count in channels}
    networks = {count: write_tiny(tmp_path, count, file=files[count]) for count in channels}
    with torch._dynamo.config.patch(recompile_limit=1):
        runners = {}
        for place, count in enumerate(channels):
            before = graphs()
            runners[count] = open_torch(cell(backend=TORCH_COMPILE, file=files[count]), tmp_path, FewImages(), Options())
            assert graphs() == before + 1, place
        compiled = graphs()
        for _ in range(2):
            for index in range(4):
                for count, runner in runners.items():
                    assert runner.run(index).wall > 0
                    assert gap(runner.logits(probes()), torch_logits(networks[count], probes())) < 1e-5
        assert graphs() == compiled
    settings = runners[8].settings
    assert settings["compile"] == "inductor, default mode, static shapes" and settings["compile_s"] > 0
    torch._dynamo.reset()  # forgets both: their next call compiles again, which is no sample
    calls: list[Callable[[], Any]] = [lambda: runners[8].run(0), lambda: runners[16].logits(probes())]
    for act in calls:
        with pytest.raises(NotMeasured, match="compiled the network again while it was measured"):
            act()
    for runner in runners.values():
        runner.close()


@pytest.mark.parametrize("change", [{"recompile_limit": 0}, {"disable": True}], ids=["limit", "switched off"])
def test_eager_is_never_measured_in_its_name(tmp_path: Path, change: dict[str, Any]) -> None:
    write_tiny(tmp_path)
    with torch._dynamo.config.patch(**change), pytest.raises(NotMeasured, match=r"torch\.compile (failed|made 0 graphs)"):
        open_torch(CELL, tmp_path, FewImages(), Options())


def test_errors_are_told_though_torch_is_to_suppress_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, real = write_tiny(tmp_path), torch.compile

    def fails(graph: object, examples: object) -> object:
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(torch, "compile", lambda network, **options: real(network, **options, backend=fails))
    with (
        torch._dynamo.config.patch(suppress_errors=True),
        pytest.raises(NotMeasured, match=r"torch\.compile failed: .*'fails'"),
    ):
        Compiled(network, torch.from_numpy(probes()))


class Breaks(nn.Module):
    """Dynamo makes one graph of it, and the rest runs eagerly."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        means = images.mean((2, 3))
        torch._dynamo.graph_break()
        return means


def test_a_network_that_is_compiled_in_part() -> None:
    with pytest.raises(NotMeasured, match=r"torch\.compile failed"):
        Compiled(Breaks(), torch.from_numpy(probes()))


def test_a_compiler_that_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of torch 2.11 where it is switched off."""
    asked = []

    def nothing(network: nn.Module, **options: object) -> nn.Module:
        asked.append(options)
        return network

    monkeypatch.setattr(torch, "compile", nothing)
    write_tiny(tmp_path)
    with pytest.raises(NotMeasured, match=r"made 0 graphs of the network, expected one: .* TORCHDYNAMO_DISABLE"):
        open_torch(CELL, tmp_path, FewImages(), Options())
    assert asked == [{"dynamic": False, "fullgraph": True}]


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.config as inductor

    write_tiny(tmp_path, 20)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))  # nothing there that was compiled before
    missing = {"cpp.cxx": (None, str(tmp_path / "no-such-compiler"))}
    with inductor.patch(missing), pytest.raises(NotMeasured, match=r"needs a C\+\+ compiler and found none\. Install g\+\+"):
        open_torch(CELL, tmp_path, FewImages(), Options())
