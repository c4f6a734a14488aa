"""A trial of the coverage study on networks whose outcome is known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.studies.any_network import trial
from tests.support.user_networks import Shuffled, Unknown, images, network


def tried(monkeypatch: pytest.MonkeyPatch, module: nn.Module) -> trial.Row:
    monkeypatch.setattr(trial, "module_of", lambda library, name: (module.eval(), 16))
    return trial.tried("tests", "network")


def test_a_network_is_exported_narrowed_proven_and_written(monkeypatch: pytest.MonkeyPatch) -> None:
    row = tried(monkeypatch, network("transformer"))
    assert row.exported and row.proven and row.onnx and not row.cause
    assert row.groups == 3 and row.macs < 0.34 and row.parameters < 0.34
    assert row.full_error is not None and row.full_error < 1e-12 and set(row.onnx_errors) == {1, 3}


def test_the_policy_is_the_first_that_suffices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tried(monkeypatch, network("grouped")).policy["conv_groups"] == "inner"
    assert tried(monkeypatch, network("residual")).policy["heads"] == "outer"
    torch.manual_seed(0)
    assert tried(monkeypatch, Shuffled()).proven


def test_what_falls_short_has_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    row = tried(monkeypatch, Unknown())
    assert row.exported and row.proven and not row.onnx and "cummax" in row.cause
    assert any("cummax has no rule" in reason for reason in row.pinned)
    broken = tried(monkeypatch, nn.Linear(3, 2))
    assert not broken.exported and "mat1 and mat2" in broken.cause


def test_a_proof_that_fails_is_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "masked", lambda *args: [torch.randn(2, 7, dtype=torch.float64)])
    row = tried(monkeypatch, network("plain"))
    assert not row.proven and row.half_error is not None and row.half_error > 1e-3


def test_images_of_the_tests_have_the_size_that_is_traced() -> None:
    assert images(2).shape[-1] == 16
