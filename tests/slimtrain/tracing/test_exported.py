"""Modules that torch does not export: one message, torch's reason, the line of the user's module."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import _lazy_graph_module

from slimtrain.graph.graph import Batch
from slimtrain.tracing.exported import BATCHES, NotExportable, exported_program, size_of, user_line


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if x.sum() > 0:
            return x
        return -x


def test_a_branch_on_values_is_refused_with_its_line() -> None:
    with pytest.raises(NotExportable) as refusal:
        exported_program(Branching(), torch.zeros(2, 3, 8, 8))
    message = str(refusal.value)
    assert "Branching" in message and "test_exported.py:" in message and "3x8x8" in message
    assert len(message) < 900 and refusal.value.exit_code == 2


def test_a_wrong_image_size_is_the_module_s_own_refusal() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    with pytest.raises(NotExportable, match=r"does not take inputs of 3x8x8: mat1 and mat2 .*--image-size"):
        exported_program(module, torch.zeros(2, 3, 8, 8))


def test_torch_s_own_talk_is_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    for module in (Branching(), nn.Sequential(nn.Flatten(), nn.Linear(12, 2))):
        with pytest.raises(NotExportable) as refusal:
            exported_program(module, torch.zeros(2, 3, 8, 8))
        assert str(BATCHES[0]) not in str(refusal.value) and ".." not in str(refusal.value)
    captured = capfd.readouterr()
    assert not captured.out and not captured.err


def test_training_mode_comes_back() -> None:
    module = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 2)).train()
    module[0].eval()
    exported_program(module, torch.zeros(2, 4))
    assert module.training and not module[0].training and module[1].training


def test_python_collects_again_afterwards_whatever_happens() -> None:
    during: list[bool] = []

    def noting(module: Any, inputs: Any) -> None:
        during.append(gc.isenabled())

    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    module.register_forward_pre_hook(noting)
    exported_program(module, torch.zeros(2, 4))
    assert not any(during) and during and gc.isenabled()
    with pytest.raises(NotExportable):
        exported_program(module, torch.zeros(2, 5))
    assert gc.isenabled()
    gc.disable()
    try:
        exported_program(module, torch.zeros(2, 4))
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_torch_that_always_writes_graphs_as_code_exports_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    waiting = exported_program(module, torch.zeros(2, 4))
    monkeypatch.delattr(_lazy_graph_module, "_use_lazy_graph_module")
    written = exported_program(module, torch.zeros(2, 4))
    assert str(written.graph) == str(waiting.graph) and written.graph_module.code == waiting.graph_module.code


def test_sizes_are_images_or_numbers() -> None:
    assert size_of(1009, 1009) == Batch(1) and size_of(64 * 1009, 1009) == Batch(64)
    assert size_of(64, 1009) == 64 and size_of(0, 1009) == 0 and size_of(1, 1009) == 1


def test_a_module_with_sizes_like_the_batch_is_exported_with_another_one() -> None:
    program = exported_program(nn.Linear(1009, 2 * 1013), torch.zeros(2, 1009))
    (image,) = (node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs)
    assert image.meta["val"].shape[0] == 1019


def test_the_user_s_own_line_is_the_innermost_that_is_not_torch_s() -> None:
    inner = torch.__file__.replace("__init__.py", "nn/functional.py")
    trace = f'File "/home/me/net.py", line 7, in forward\n    x = f(x)\n  File "{inner}", line 9, in relu\n    return x\n'
    assert user_line(trace) == "net.py:7" and user_line("") == ""
