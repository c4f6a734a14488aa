"""Checkpoints that cannot be exported, through the command: one message one can act on, and nothing half-written."""

from __future__ import annotations

import importlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.export_helpers import State, export, last_norm, leaves_nothing, refused, small_spec, write_checkpoint


def test_a_missing_file(out: Path, tmp_path: Path) -> None:
    leaves_nothing(export(tmp_path / "none.pt", out), out, 2, "none.pt", "no such file", "random:NETWORK")


def test_a_file_name_that_no_file_system_has(out: Path) -> None:
    leaves_nothing(export("x" * 300 + ".pt", out), out, 2, "xxx")


def test_a_folder(out: Path, tmp_path: Path) -> None:
    leaves_nothing(export(tmp_path, out), out, 2, "is a folder")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"hello, this is no checkpoint", "text file"),
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"\xfe\xed\xfa\xce\x00\x00\x00\x00\x00\x00", "no known checkpoint"),
    ],
    ids=["text", "empty", "web page", "LFS pointer", "other bytes"],
)
def test_a_file_that_is_no_checkpoint(out: Path, tmp_path: Path, content: bytes, part: str) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    leaves_nothing(export(tmp_path / "x.pt", out), out, 2, "x.pt", part)


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.9999])
def test_a_truncated_checkpoint(good: Path, out: Path, tmp_path: Path, share: float) -> None:
    content = good.read_bytes()
    (tmp_path / "x.pt").write_bytes(content[: int(len(content) * share)])
    leaves_nothing(export(tmp_path / "x.pt", out), out, 2, "x.pt", "truncated or damaged")


class Hostile:
    """Runs a command when it is unpickled by something that allows it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code(good: Path, out: Path, tmp_path: Path, zipped: bool) -> None:
    marker = tmp_path / "marker"
    content = {**torch.load(good, weights_only=True), "module.extra": Hostile(marker)}
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    leaves_nothing(export(tmp_path / "x.pt", out), out, 2, "x.pt", "refused")
    assert not marker.exists()
    torch.load(tmp_path / "x.pt", weights_only=False)
    assert marker.exists(), "the file would have run code"


def test_a_bare_pickle_that_would_run_code(out: Path, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(pickle.dumps(Hostile(tmp_path / "marker")))
    leaves_nothing(export(tmp_path / "x.pt", out), out, 2, "x.pt")
    assert not (tmp_path / "marker").exists()


def damaged(out: Path, tmp_path: Path, change: Callable[[State], object], *parts: str, family: str = "s") -> None:
    path = write_checkpoint(tmp_path / "x.pt", small_spec(family), change)
    leaves_nothing(export(path, out), out, 2, "x.pt", *parts)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("key", ["features.3.body.0.weight", "features.3.body.1.bn.1.running_mean", "classifier.0.bias"])
def test_values_that_are_not_finite(out: Path, tmp_path: Path, key: str, bad: float) -> None:
    def spoil(state: State) -> None:
        state[key].view(-1)[0] = bad

    damaged(out, tmp_path, spoil, f"NaN or infinite values in {key} (1 of")


def test_a_negative_variance(out: Path, tmp_path: Path) -> None:
    key = "features.3.body.1.bn.1.running_var"
    damaged(out, tmp_path, lambda state: state[key].neg_(), key, "negative variances")


@pytest.mark.parametrize("family", ["s", "us"])
@pytest.mark.parametrize("key", ["features.3.body.0.weight", "classifier.0.weight", "classifier.0.bias"])
def test_one_tensor_of_a_wrong_shape(out: Path, tmp_path: Path, family: str, key: str) -> None:
    def cut(state: State) -> None:
        state[key] = state[key][:-1] if "bias" in key else state[key][:, :-1]

    damaged(out, tmp_path, cut, f"{key} is [", "expected [", "damaged", family=family)


@pytest.mark.parametrize("switch", [0, 1])
def test_a_missing_norm(out: Path, tmp_path: Path, switch: int) -> None:
    def remove(state: State) -> None:
        path = last_norm(state, switch).removesuffix(".weight")
        for key in [key for key in state if key.startswith(path)]:
            del state[key]

    damaged(out, tmp_path, remove, f"features.13.body.4.bn.{switch}.weight", "missing", "damaged")


def test_an_unrelated_network(out: Path, tmp_path: Path) -> None:
    models = importlib.import_module("torchvision.models")
    torch.save(models.resnet18().state_dict(), tmp_path / "r.pt")
    leaves_nothing(export(tmp_path / "r.pt", out), out, 2, "r.pt", "none of the known slimmable networks", "torchvision")
    torch.save(models.squeezenet1_0(num_classes=2).state_dict(), tmp_path / "q.pt")
    leaves_nothing(export(tmp_path / "q.pt", out), out, 2, "q.pt", "none of the known slimmable networks")


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.zeros(3)], torch.zeros(3), {"model": {"a": 1}}], ids=str)
def test_a_file_without_a_state_dict(out: Path, tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "x.pt")
    leaves_nothing(export(tmp_path / "x.pt", out), out, 2, "x.pt", "expected")


def test_weights_so_large_that_float32_overflows_fail_as_a_table_and_as_json(out: Path, tmp_path: Path) -> None:
    """Finite numbers in the file, and finite logits in float64; in float32 there are none."""
    path = write_checkpoint(tmp_path / "x.pt", change=lambda state: state["classifier.0.weight"].fill_(3e38))
    outcome = export(path, out)
    refused(outcome, 1, "s_mobilenet_v1_x0_25", "s_mobilenet_v1_x0_5", "Nothing was written.")
    outcome = export(path, out, "--json")
    assert outcome.code == 1
    assert [artifact["verification"]["float32_gap"] for artifact in outcome.manifest["rejected"]] == [None, None]
    assert list(out.iterdir()) == []
