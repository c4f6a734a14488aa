"""Every path through the code that touches TensorRT, on a stand-in of every version.

The stand-ins are made from inventories of the real bindings, and refuse a name that their version lacks. So a path that runs
on all of them asks none for what it has not; and no line is left out, as the last test sees.
"""

from __future__ import annotations

import contextlib
import importlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from slimexport.environment import engine_lines
from slimexport.target.errors import BundleError, MissingBackend
from slimexport.target.manifest import read_manifest
from slimexport.target.tensorrt import api, libraries, timing_cache
from slimexport.target.tensorrt import build as building
from slimexport.target.tensorrt import engine as loading
from slimexport.target.tensorrt.build_settings import BatchRange, BuildSettings
from slimexport.target.tensorrt.engine import TensorRTRunner
from slimexport.target.tensorrt.engines import EnginesFailed
from slimexport.target.tensorrt.verification import verify_engines
from slimtrain.base.errors import UserError
from tests.support.code_lines import function_lines, lines_run
from tests.support.trt_fake import RTX, VERSIONS, inventory
from tests.support.trt_helpers import (
    SIZE,
    Machine,
    build,
    engines_of,
    machine,
    refuses_measurements,
    without_gpu,
    write_bundle,
)

FILES = ("fp32", "fp16", "bf16", "int8", "int8-fp16")
TOUCHING = (api, libraries, building, loading, timing_cache)  # these alone hold TensorRT's objects
OF_PACKAGES = (  # nothing of TensorRT's is in these
    libraries.install_hint,
    libraries.repair_hint,
    libraries._driver_cuda_major,
)
Patch = pytest.MonkeyPatch


def path_all_precisions(board: Machine, folder: Path, monkeypatch: Patch) -> None:
    bundle = write_bundle(folder / "b", FILES, (0.5,))
    everything = BuildSettings(BatchRange(2, 2, 3), 1 << 20, 5, 1, version_compatible=True, hardware_compatible=True)
    board.behaviour.says = [("WARNING", "a"), ("ERROR", "b"), ("INFO", "c")]
    for settings in (everything, replace(everything, library_tactics=True), BuildSettings(BatchRange(2, 2, 3))):
        build(bundle, precisions=api.supported(board.trt), settings=settings)
    assert len(verify_engines(bundle, read_manifest(bundle))) == len(api.supported(board.trt))
    with TensorRTRunner(bundle / "net_x0_5.plan") as runner:
        assert len(runner(np.zeros((1, 3, SIZE, SIZE), np.float32))) == 1
        assert len(runner(np.zeros((7, 3, SIZE, SIZE), np.float32))) == 7
        with pytest.raises(BundleError, match="takes images"):
            runner(np.zeros((1, 3, SIZE, 2), np.float32))
        with pytest.raises(BundleError, match="does not take 9 images"):
            runner.set_batch(9)
    runner.close()


def path_of_rtx(board: Machine, folder: Path, monkeypatch: Patch) -> None:
    bundle = write_bundle(folder / "b", FILES, (0.5,))
    options: dict[str, Any] = {"form": "trt-rtx", "precisions": api.supported(board.trt)}
    for targets in (("8.6", "12.0"), ("9.9",), ()):
        with monkeypatch.context() as patch, contextlib.suppress(UserError):  # of what it does not build for
            without_gpu(patch)
            build(bundle, settings=BuildSettings(BatchRange(2, 2, 3), targets=targets), **options)
    with pytest.raises(UserError, match="version-compatible"):
        build(bundle, settings=BuildSettings(version_compatible=True), **options)
    with monkeypatch.context() as patch:
        patch.setattr(board.trt.IBuilderConfig, "set_compute_capability", lambda self, capability, index: False)
        with pytest.raises(EnginesFailed, match=r"does not take compute capability 8\.6"):
            build(bundle, settings=BuildSettings(targets=("8.6",)), **options)
    with monkeypatch.context() as patch:
        patch.setattr(board.trt.Builder, "build_serialized_network", lambda self, network, config: None)
        with pytest.raises(EnginesFailed, match=r"engine of it for compute capability 8\.6"):
            build(bundle, settings=BuildSettings(targets=("8.6",)), **options)
    assert len(verify_engines(bundle, read_manifest(bundle), "trt-rtx")) == len(options["precisions"])
    with TensorRTRunner(bundle / "net_x0_5.rtx.plan") as runner:
        assert len(runner(np.zeros((1, 3, SIZE, SIZE), np.float32))) == 1
    assert "built without a GPU" in engine_lines()[2]


def path_a_precision_that_is_not_built(board: Machine, folder: Path, monkeypatch: Patch) -> None:
    bundle = write_bundle(folder / "b", FILES, (0.5,))
    with contextlib.suppress(MissingBackend):  # of bf16, on 8.6
        build(bundle, precisions=["bf16"])
    assert "TensorRT" in engine_lines()[1]


def path_refused_builds(board: Machine, folder: Path, monkeypatch: Patch) -> None:
    bundle = write_bundle(folder / "b", widths=(0.5,))
    network, config = board.trt.INetworkDefinition, board.trt.IBuilderConfig

    def refused(message: str) -> None:
        with pytest.raises(EnginesFailed, match=message):
            build(bundle)

    board.behaviour.parser_errors = ["no such operator", "another", "more", "than are shown"]
    refused("does not read it")
    board.behaviour.parser_errors = []
    with monkeypatch.context() as patch:
        patch.setattr(board.trt.OnnxParser, "parse", lambda self, content: False)
        refused("it gives no reason")

    def parse(self: Any, content: bytes) -> bool:
        raise RuntimeError(words)

    with monkeypatch.context() as patch:
        patch.setattr(board.trt.OnnxParser, "parse", parse)
        words = "std::bad_cast"
        refused("std::bad_cast")
        words = "Unable to open library: libnvinfer_vc_plugin.so.8"
        with pytest.raises(MissingBackend, match="ln -s"):
            build(bundle)
    assert "FOLDER_OF" in str(libraries.lacks_plugins(board.trt, folder / "no maps"))
    with monkeypatch.context() as patch:
        patch.setattr(board.trt.Builder, "build_serialized_network", lambda self, network, config: None)
        refused("built no fp32 engine")
    with monkeypatch.context() as patch:
        patch.setattr(network, "num_inputs", 2)
        refused("has 2 inputs")
    with monkeypatch.context() as patch:
        patch.setattr(config, "add_optimization_profile", lambda self, profile: -1)
        refused("does not take the batch range")
    with monkeypatch.context() as patch:
        patch.setattr(network, "get_input", lambda self, index: SimpleNamespace(name="input", shape=(1, 3, SIZE, SIZE)))
        refused("expected a dynamic batch")


def path_interrupted_builds(board: Machine, folder: Path, monkeypatch: Patch) -> None:
    bundle = write_bundle(folder / "b", widths=(0.5,))
    monkeypatch.setattr(building, "POLL_S", 0.01)

    def interrupted(step: Callable[[], bool]) -> bool:
        threading.Event().wait(0.05)
        signal.raise_signal(signal.SIGINT)
        threading.Event().wait(0.05)
        return step()

    board.behaviour.build_steps = interrupted
    with pytest.raises(KeyboardInterrupt):
        build(bundle)

    def fails(step: Callable[[], bool]) -> bool:
        raise ZeroDivisionError

    board.behaviour.build_steps = fails
    with pytest.raises(ZeroDivisionError):
        build(bundle)


def path_refused_engines(board: Machine, folder: Path, monkeypatch: Patch) -> None:
    bundle = write_bundle(folder / "b", widths=(0.5,))
    build(bundle)
    (plan,) = engines_of(bundle).values()
    path = bundle / plan.file

    def refused(message: str) -> None:
        with pytest.raises((BundleError, MissingBackend), match=message), TensorRTRunner(path, plan) as runner:
            runner(np.zeros((1, 3, SIZE, SIZE), np.float32))

    for fault, message in (("deserializes", "does not load it"), ("has_context", "cannot prepare"), ("runs", "not run it")):
        setattr(board.behaviour, fault, False)
        refused(message)
        setattr(board.behaviour, fault, True)
    engine = board.trt.ICudaEngine
    with monkeypatch.context() as patch:
        patch.setattr(engine, "get_tensor_mode", lambda self, name: board.trt.TensorIOMode.INPUT)
        refused("expected images and logits")
    with monkeypatch.context() as patch:
        patch.setattr(engine, "get_tensor_dtype", lambda self, name: board.trt.DataType.HALF)
        refused("expected float32")
    with monkeypatch.context() as patch:
        patch.setattr(engine, "get_tensor_shape", lambda self, name: (-1, 5, -1))
        refused("expected a row for each image")
    with monkeypatch.context() as patch:
        patch.setattr(board.trt.IExecutionContext, "set_tensor_address", lambda self, name, address: False)
        refused("does not take an address")
    path.write_bytes(path.read_bytes() + b"!")
    refused("SHA-256")
    path.unlink()
    refused("not there")


def path_timing_caches(board: Machine, folder: Path, monkeypatch: Patch) -> None:
    bundle = write_bundle(folder / "b", widths=(0.5,))

    def state() -> str | None:
        build(bundle)
        engine = engines_of(bundle)["net_x0_5.plan"].engine
        assert engine is not None
        return engine.timing_cache

    assert [state(), state()] == ["cold", "warm"]
    (cache,) = (folder / "cache").iterdir()
    cache.write_bytes(cache.read_bytes()[:-1])
    assert state() == "discarded"
    with monkeypatch.context() as patch:
        patch.setattr(board.trt.IBuilderConfig, "set_timing_cache", refuses_measurements)
        assert state() == "discarded"
    with monkeypatch.context() as patch:
        patch.setattr(board.trt.IBuilderConfig, "create_timing_cache", lambda self, content: None)
        patch.setattr(board.trt.IBuilderConfig, "get_timing_cache", lambda self: None)
        assert state() == "discarded"
    cache.unlink()
    cache.mkdir()  # neither read nor written
    assert state() == "cold"


def path_tensorrts_that_do_not_serve(board: Machine, folder: Path, monkeypatch: Patch) -> None:
    def refused(message: str) -> None:
        with pytest.raises(MissingBackend, match=message):
            libraries.require_tensorrt()

    old: Any = ModuleType("tensorrt")
    old.__spec__, old.__version__, old.IBuilderConfig = ModuleSpec("tensorrt", None), "8.5.3", object
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tensorrt", old)
        refused("too old")
        patch.setitem(sys.modules, "tensorrt", None)
        refused("not installed")
        patch.setitem(sys.modules, "tensorrt", ModuleType("tensorrt"))  # without a spec: a broken entry
        refused("not installed")
    with monkeypatch.context() as patch:
        patch.setattr(importlib, "import_module", lambda name: 1 / 0)
        refused("does not load")
    with monkeypatch.context() as patch:
        patch.setattr(board.trt.Builder, "create_builder_config", lambda self: None)
        with pytest.raises(MissingBackend, match="cannot make a configuration"):
            build(write_bundle(folder / "b"))

    def null(self: Any, logger: Any) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    with monkeypatch.context() as patch:
        patch.setattr(board.trt.Builder, "__init__", null)
        with pytest.raises(MissingBackend, match="cannot make a builder"):
            build(folder / "b")
    with pytest.raises(UserError, match="Leave out --targets"):
        build(folder / "b", settings=BuildSettings(targets=("8.6",)))


def path_plugins(board: Machine, folder: Path, monkeypatch: Patch) -> None:
    assert api.has_efficient_nms(board.trt) == (not board.trt.__version__.startswith("11"))
    board.behaviour.plugins = False
    assert not api.has_efficient_nms(board.trt)


PATHS = [value for name, value in list(globals().items()) if name.startswith("path_") and value is not path_of_rtx]
DRIVEN = [*((version, path) for version in VERSIONS for path in PATHS), (RTX, path_of_rtx)]


@contextlib.contextmanager
def board_of(version: str) -> Iterator[tuple[Machine, Patch]]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        board = machine(monkeypatch, version)
        yield board, monkeypatch
        assert board.library.leaks == []


@pytest.mark.parametrize(("version", "path"), DRIVEN, ids=lambda value: getattr(value, "__name__", value))
def test_a_path_asks_no_version_for_what_it_lacks(version: str, path: Callable[..., None], tmp_path: Path) -> None:
    with board_of(version) as (board, monkeypatch):
        path(board, tmp_path, monkeypatch)
    names = inventory(version)
    assert all(name in (names[owner] or ()) for owner, name in board.behaviour.mentioned)


def test_no_line_is_left_out_and_other_modules_ask_for_the_version_only(tmp_path: Path) -> None:
    reached: set[tuple[str, str]] = set()
    asking: dict[str, set[str]] = {}
    with lines_run(*TOUCHING) as seen:
        for version, path in DRIVEN:
            with board_of(version) as (board, monkeypatch):
                path(board, tmp_path / version / path.__name__, monkeypatch)
            reached |= board.behaviour.mentioned
            for asker, names in board.behaviour.asked_by.items():
                asking.setdefault(asker, set()).update(names)
    for module in TOUCHING:
        left_out = function_lines(module, but=OF_PACKAGES) - seen[module.__name__]
        assert not left_out, f"{module.__file__}: no path runs the lines {sorted(left_out)}"
    assert len(reached) > 60
    own = {module.__name__ for module in TOUCHING}
    others = {asker: names for asker, names in asking.items() if asker.startswith("slimexport.") and asker not in own}
    assert set().union(*others.values()) <= {"__version__"}, others


def test_the_inventories_are_of_the_versions_that_are_supported() -> None:
    assert VERSIONS == ["8.6.0", "10.3.0", "10.13.3.9", "10.16.1.11", "11.4.0"]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_stand_ins_refuse_what_their_version_lacks(version: str) -> None:
    """Of a class, of an instance, of the module; read or written. Names are some that another version has."""
    with board_of(version) as (board, _):
        trt, names = board.trt, inventory(version)
        everywhere = {(owner, name) for v in VERSIONS for owner, listed in inventory(v).items() for name in listed or ()}
        lacking = {(owner, name) for owner, name in everywhere if owner in names and name not in (names[owner] or ())}
        assert lacking
        for owner, name in lacking:
            with pytest.raises(AttributeError):
                getattr(getattr(trt, owner), name)
        config = trt.IBuilderConfig()
        for name in [name for owner, name in lacking if owner == "IBuilderConfig"] + ["invented"]:
            with pytest.raises(AttributeError):
                getattr(config, name)
            if not name.startswith("_"):
                with pytest.raises(AttributeError):
                    setattr(config, name, 1)
        for name in {name for v in VERSIONS for name in inventory(v)} - set(names):
            with pytest.raises(AttributeError):
                getattr(trt, name)
