"""Engines in a model that chooses widths, on stand-ins for TensorRT and CUDA: of every version that is supported, with its
names alone; what they hold is freed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from slimexport.target.errors import BundleError
from slimexport.target.manifest import read_manifest
from slimexport.target.serving.triton.adaptive import write_adaptive
from slimexport.target.tensorrt.build_settings import BatchRange, BuildSettings
from tests.support.pbtxt import parse
from tests.support.triton_backend import NAME, Backend, Request, arguments, model_module
from tests.support.trt_fake import VERSIONS, logits_of
from tests.support.trt_helpers import CLASSES, SIZE, Machine, build, machine, write_bundle

LONG_US = 1_800_000_000
Opened = tuple[Any, Machine, ModuleType]
Open = Callable[..., Opened]


def images(count: int) -> NDArray[Any]:
    return np.random.default_rng(count).standard_normal((count, 3, SIZE, SIZE), dtype=np.float32)


def written(tmp_path: Path, **settings: Any) -> Path:
    """The model's folder of a bundle whose engines take 1 to 6 images."""
    bundle = write_bundle(tmp_path / "bundle")
    build(bundle, **({"settings": BuildSettings(**settings)} if settings else {}))
    write_adaptive(bundle, read_manifest(bundle), tmp_path / "models", widths=[0.5, 1.0], backend="tensorrt")
    return tmp_path / "models" / "net"


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Opens a model of engines on a board; gives the copied `engine` module too."""

    def open_model(version: str = "10.3.0", behaviour: dict[str, Any] | None = None, **settings: Any) -> Opened:
        board = machine(monkeypatch, version)
        folder = written(tmp_path, **settings)
        for name, value in (behaviour or {}).items():
            setattr(board.behaviour, name, value)
        monkeypatch.setitem(sys.modules, NAME, Backend())
        module = model_module(folder)
        engine = importlib.import_module(f"{module.__package__}.engine")
        monkeypatch.setattr(
            engine, "load_cuda", lambda: importlib.import_module(f"{module.__package__}.cuda_runtime").Cuda(board.library)
        )
        board.library.memory.clear()
        model = module.TritonPythonModel()
        model.initialize(arguments(folder, slo_ms="60000"))
        return model, board, engine

    return open_model


@pytest.mark.parametrize("version", VERSIONS)
def test_engines_answer_and_are_freed(opened: Open, version: str) -> None:
    model, board, _ = opened(version)
    assert model._scheduler.latencies.batches == (1, 2, 4, 6)
    for count in (1, 3, 6):
        request = Request(images(count), LONG_US)
        model.execute([request])
        label, output = request.result()
        assert label == "1"
        np.testing.assert_allclose(output, logits_of(images(count), CLASSES), rtol=1e-5, atol=1e-5)
    assert board.library.memory and board.library.streams
    model.finalize()
    assert not board.library.memory and not board.library.streams


def test_the_configuration_is_of_one_gpu_and_the_engines_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    config = parse((written(tmp_path) / "config.pbtxt").read_text())
    assert config["max_batch_size"] == 6
    assert config["instance_group"] == [{"count": 1, "kind": "KIND_GPU", "gpus": [0]}]
    files = {path.name for path in (tmp_path / "models" / "net" / "1").iterdir()}
    assert {"net_x0_5.plan", "net_x1_0.plan", "engine.py", "cuda_library.py", "cuda_runtime.py"} <= files


def test_fewer_images_than_an_engine_takes_are_padded(opened: Open) -> None:
    model, _, _ = opened(batch=BatchRange(4, 4, 4))
    request = Request(images(3), LONG_US)
    model.execute([request])
    np.testing.assert_allclose(request.result()[1], logits_of(images(3), CLASSES), rtol=1e-5, atol=1e-5)
    staged = next(width._free.__self__._staging.array for width in model._widths if width.label == request.result()[0])
    np.testing.assert_array_equal(staged, images(3)[[0, 1, 2, 2]], "not what is left there")
    model.finalize()


def test_a_plan_with_code_of_its_own_is_allowed_where_the_manifest_says_so(opened: Open) -> None:
    model, _, _ = opened(batch=BatchRange(1, 4, 6), version_compatible=True)
    model.finalize()


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ({"deserializes": False}, r"net_x0_5.plan: TensorRT 10.3.0 does not load it \(the plan's checksum is wrong\)"),
        ({"has_context": False}, "cannot prepare to run it"),
        ({"runs": False}, "does not run it"),
    ],
)
def test_what_tensorrt_does_not_take_is_said(opened: Open, behaviour: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        opened(behaviour=behaviour)


def test_a_run_that_fails_later_is_its_batchs_error(opened: Open) -> None:
    model, board, _ = opened()
    board.behaviour.runs = False
    request = Request(images(1), LONG_US)
    model.execute([request])
    assert "does not run it" in request.refusal()[1]
    board.behaviour.runs = True
    request = Request(images(2), LONG_US)
    model.execute([request])
    request.result()
    model.finalize()


def test_more_images_than_an_engine_takes_are_refused_where_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch)
    bundle = write_bundle(tmp_path / "bundle")
    manifest = build(bundle)
    with pytest.raises(BundleError, match=r"largest batch 7: .*no more than an engine takes"):
        write_adaptive(bundle, manifest, tmp_path / "models", backend="tensorrt", max_batch=7)
    unknown = replace(manifest, artifacts=tuple(replace(artifact, engine=None) for artifact in manifest.artifacts))
    with pytest.raises(BundleError, match=r"does not say what net_x0_5\.plan was built for"):
        write_adaptive(bundle, unknown, tmp_path / "models", backend="tensorrt")
    assert not (tmp_path / "models").exists()
