"""Every wrapping that owners of checkpoints have is read to the same bare state dict: prefixes, {"model": ...} with meters
and optimizer beside it, a zip around the file, both serializations of torch, tensors saved on CUDA, safetensors."""

from __future__ import annotations

import sys
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from slimtrain.checkpoints.layout import load_network
from slimtrain.models.spec import NetworkSpec
from tests.support.slimtrain_states import State, identified, random_state
from tests.support.state_files import read_state_dict

SPEC = NetworkSpec("mobilenet_v1", "us", (0.25, 0.5), 10, width_range=(0.25, 0.5))
LEGACY = {"_use_new_zipfile_serialization": False}


@pytest.fixture(scope="module")
def state() -> State:
    return {key: t.float() if t.is_floating_point() else t for key, t in random_state(SPEC).items()}


def assert_same(read: State, expected: State) -> None:
    assert list(read) == list(expected)  # order too
    for key, tensor in read.items():
        assert tensor.device.type == "cpu"
        assert tensor.dtype == expected[key].dtype and torch.equal(tensor, expected[key]), key


def prefixed(state: State, prefix: str) -> State:
    return {prefix + key: t for key, t in state.items()}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("prefix", ["", "module.", "module.module."])
@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_prefixes_and_wrappers_come_off(state: State, tmp_path: Path, wrapper: str | None, prefix: str, legacy: bool) -> None:
    content: Any = prefixed(state, prefix)
    torch.save({wrapper: content, "epoch": 3} if wrapper else content, tmp_path / "a.pt", **(LEGACY if legacy else {}))
    assert_same(read_state_dict(tmp_path / "a.pt"), state)


def test_a_prefix_that_only_some_keys_have_stays(state: State, tmp_path: Path) -> None:
    mixed = {("module." if i % 2 else "") + key: t for i, (key, t) in enumerate(state.items())}
    torch.save(mixed, tmp_path / "a.pt")
    assert list(read_state_dict(tmp_path / "a.pt")) == list(mixed)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_an_entry_called_module_is_no_module(state: State, tmp_path: Path, legacy: bool) -> None:
    """Legacy files keep whole modules as ("module", class, ...): that word elsewhere says nothing."""
    inner = {"module": state["classifier.0.bias"], **state}
    content = {"module": torch.ones(3), "model": inner, "kind": ("module", "a", "b", "c")}
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    assert_same(read_state_dict(tmp_path / "a.pt"), inner)


def test_the_state_dict_of_a_real_module_and_parameters_are_read(tmp_path: Path) -> None:
    module = nn.DataParallel(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    torch.save(module.state_dict(), tmp_path / "a.pt")  # an OrderedDict with _metadata
    torch.save({"model": dict(module.named_parameters())}, tmp_path / "b.pt")
    assert list(read_state_dict(tmp_path / "a.pt"))[:3] == ["0.weight", "0.bias", "1.weight"]
    assert list(read_state_dict(tmp_path / "b.pt")) == ["0.weight", "0.bias", "1.weight", "1.bias"]


# ------------------------------------------------------------------------- published latest_checkpoint.pt, with meters


@pytest.fixture
def meters() -> Iterator[dict[str, Any]]:
    """What `meters` holds in published files: nested dictionaries of objects whose module nobody has any more."""

    class ScalarMeter:
        def __init__(self, name: str) -> None:
            self.name = name
            self.steps = [np.int64(3), np.float32(0.5)]
            self.values = {"top1": np.float64(0.25), "all": np.arange(4.0), "none": None}

    ScalarMeter.__module__, ScalarMeter.__qualname__ = "utils.meters", "ScalarMeter"
    package, module = ModuleType("utils"), ModuleType("utils.meters")
    module.ScalarMeter = ScalarMeter  # type: ignore[attr-defined]
    kept = {name: sys.modules.get(name) for name in ("utils", "utils.meters")}
    sys.modules.update({"utils": package, "utils.meters": module})
    by_width: dict[str, Any] = defaultdict(dict)
    by_width["0.25"] = {"loss": ScalarMeter("loss"), "top1_error": ScalarMeter("top1_error")}
    yield {"train": by_width, "val": OrderedDict(best=ScalarMeter("best"))}
    for name, previous in kept.items():
        sys.modules.pop(name, None)
        if previous is not None:
            sys.modules[name] = previous


def forget_meters() -> None:
    sys.modules.pop("utils.meters")
    sys.modules.pop("utils")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_meters_optimizer_and_epoch_beside_the_model_do_no_harm(
    state: State, meters: dict[str, Any], tmp_path: Path, legacy: bool
) -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=0.5, momentum=0.9, nesterov=True)
    weight.grad = torch.ones(3)
    optimizer.step()
    content = {
        "model": prefixed(state, "module."),
        "optimizer": optimizer.state_dict(),
        "last_epoch": 249,
        "best_val": np.float64(0.28),
        "meters": (meters["train"], meters["val"]),
    }
    torch.save(content, tmp_path / "latest_checkpoint.pt", **(LEGACY if legacy else {}))
    forget_meters()
    before = set(sys.modules)
    assert_same(read_state_dict(tmp_path / "latest_checkpoint.pt"), state)
    assert not {name for name in set(sys.modules) - before if name.startswith("utils")}


def test_objects_among_the_tensors_are_left_out(state: State, meters: dict[str, Any], tmp_path: Path) -> None:
    content: dict[Any, Any] = dict(state)
    content.update({"best": meters["val"]["best"], "epoch": 3, 7: "seven"})
    torch.save(content, tmp_path / "a.pt")
    forget_meters()
    assert_same(read_state_dict(tmp_path / "a.pt"), state)


# --------------------------------------------------------------------------------------------------- CUDA, zips, others


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_tensors_saved_on_cuda_devices_load_on_a_cpu(
    state: State, tmp_path: Path, legacy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:3")
        torch.save({"model": prefixed(state, "module.")}, tmp_path / "a.pt", **(LEGACY if legacy else {}))
    data = (tmp_path / "a.pt").read_bytes()
    assert b"cuda:3" in data
    assert_same(read_state_dict(tmp_path / "a.pt"), state)


def test_cuda_storage_classes_of_old_files_load_on_a_cpu(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        torch.save(state, tmp_path / "a.pt", **LEGACY)
    data = (tmp_path / "a.pt").read_bytes()
    for name in (b"FloatStorage", b"LongStorage"):
        assert b"ctorch\n" + name in data  # GLOBAL, by name
        data = data.replace(b"ctorch\n" + name, b"ctorch.cuda\n" + name)
    (tmp_path / "a.pt").write_bytes(data)
    assert_same(read_state_dict(tmp_path / "a.pt"), state)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_a_file_still_zipped_is_read_through(state: State, tmp_path: Path, legacy: bool, compression: int) -> None:
    torch.save(prefixed(state, "module."), tmp_path / "us_mbv1.pt", **(LEGACY if legacy else {}))
    with zipfile.ZipFile(tmp_path / "us_mbv1.pt.zip", "w", compression) as archive:
        archive.write(tmp_path / "us_mbv1.pt", "folder/us_mbv1.pt")
        archive.writestr("folder/", b"")
        archive.writestr("__MACOSX/folder/._us_mbv1.pt", b"not a checkpoint")
        archive.writestr("README.txt", b"hello")
    assert_same(read_state_dict(tmp_path / "us_mbv1.pt.zip"), state)


def test_the_suffix_says_nothing(state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "weights.safetensors", **LEGACY)
    save_file(state, tmp_path / "weights.pt")
    for name in ("weights.safetensors", "weights.pt"):
        assert set(read_state_dict(tmp_path / name)) == set(state)


def test_safetensors_are_read_with_and_without_prefix(state: State, tmp_path: Path) -> None:
    save_file(prefixed(state, "module."), tmp_path / "a.safetensors", metadata={"format": "pt"})
    read = read_state_dict(tmp_path / "a.safetensors")
    assert_same({key: read[key] for key in state}, state)
    with zipfile.ZipFile(tmp_path / "a.safetensors.zip", "w") as archive:
        archive.write(tmp_path / "a.safetensors", "a.safetensors")
    assert set(read_state_dict(tmp_path / "a.safetensors.zip")) == set(state)


def test_paths_may_be_strings(state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "a.pt")
    assert_same(read_state_dict(str(tmp_path / "a.pt")), state)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float16, 1e-3), (torch.bfloat16, 1e-2), (torch.float64, 0.0), (torch.float32, 0.0)]
)
def test_weights_of_any_float_type_become_float32(state: State, tmp_path: Path, dtype: torch.dtype, tolerance: float) -> None:
    torch.save({key: t.to(dtype) if t.is_floating_point() else t for key, t in state.items()}, tmp_path / "a.pt")
    network = load_network(SPEC, read_state_dict(tmp_path / "a.pt"))
    for key, tensor in network.state_dict().items():
        assert tensor.dtype == (torch.int64 if key.endswith("num_batches_tracked") else torch.float32)
        torch.testing.assert_close(tensor, state[key], rtol=tolerance, atol=tolerance)


def test_counters_of_batches_may_be_absent(state: State, tmp_path: Path) -> None:
    old = {key: t for key, t in state.items() if not key.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "a.pt", **LEGACY)
    read = read_state_dict(tmp_path / "a.pt")
    assert identified(read) == SPEC
    network = load_network(SPEC, read)
    counters: list[torch.Tensor] = [t for key, t in network.state_dict().items() if key not in old]
    assert counters and all(int(t) == 0 and t.dtype == torch.int64 for t in counters)


def test_views_into_one_storage_keep_their_values(tmp_path: Path) -> None:
    whole = torch.arange(24.0)
    views: dict[str, torch.Tensor] = {"a": whole[:6].view(2, 3), "b": whole[6:].view(3, 6).t(), "c": whole[::5]}
    for options in ({}, LEGACY):
        torch.save(views, tmp_path / "a.pt", **options)
        assert_same(read_state_dict(tmp_path / "a.pt"), views)
