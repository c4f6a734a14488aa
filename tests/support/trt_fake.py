"""TensorRT in Python, one for each inventory of the real bindings: a name that a version lacks is an AttributeError. It is
for what TensorRT-RTX, which is real (`tests.support.rtx`), cannot show: other versions' names, weak typing, engines that run.

Builds "networks" that are JSON, `{"size": 4, "classes": 5, "precision": "fp32"}`, into plans that have a real header, and runs
them on the memory of a `FakeCudart`: logits are a fixed function of the images (`logits_of`), with what `defect` makes of
them. A real ONNX file is built and run too, in onnxruntime. Numbers of enumerations are drawn anew per version, as a
reminder that nobody may store them.
"""

from __future__ import annotations

import functools
import json
import random
import struct
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimexport.target.tensorrt.libraries import RTX_LIBRARY, TRT_LIBRARY, Library, library_of
from slimexport.target.tensorrt.plan_header import numbers
from tests.support import REFERENCE
from tests.support.cuda_fake import FakeCudart
from tests.support.onnx_outlines import outline

INVENTORIES = REFERENCE / "tensorrt_api"
FILES = {path.name.removesuffix(".json"): path for path in INVENTORIES.glob("*.json")}
VERSIONS = sorted(FILES, key=lambda version: [int(part) for part in version.split(".")])
RTX = "1.7.1.116"  # of TensorRT-RTX
FILES[RTX] = INVENTORIES / "rtx" / f"{RTX}.json"
ENUMS = (
    "BuilderFlag",
    "ComputeCapability",
    "DataType",
    "HardwareCompatibilityLevel",
    "LayerInformationFormat",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "ProfilingVerbosity",
    "TacticSource",
    "TensorIOMode",
)
KINDS = {"float32": "FLOAT", "int32": "INT32", "int64": "INT64", "bool": "BOOL"}
WEIGHTS = {"fp32": "Float", "fp16": "Half", "bf16": "BFloat16", "int8": "Int8", "int8-fp16": "Int8"}


@functools.cache
def inventory(version: str) -> dict[str, Any]:
    """Names -> members (None for what is no class)."""
    names: dict[str, Any] = json.loads(FILES[version].read_text())
    return names


def library_named(version: str) -> Library:
    """Which library an inventory's version is of."""
    return RTX_LIBRARY if version == RTX else TRT_LIBRARY


def network(precision: str = "fp32", size: int = 4, classes: int = 5, **more: Any) -> bytes:
    """What passes for an ONNX file here."""
    return outline(json.dumps({"precision": precision, "size": size, "classes": classes, **more}).encode())


def logits_of(images: NDArray[Any], classes: int) -> NDArray[Any]:
    """What every network computes: images [N, 3, H, W] -> [N, classes]."""
    return images.astype(np.float64).mean((2, 3)) @ np.cos(np.arange(3 * classes)).reshape(3, classes)


def description(content: bytes) -> dict[str, Any]:
    """What a network is: JSON as it stands, or what an ONNX file says, with the file."""
    if content.startswith(outline(b"{}")[:3]):
        described: dict[str, Any] = json.loads(content[content.index(b"{") :])
        return described
    from tests.support.trt_networks import described as onnx_described

    return onnx_described(content)


def outputs_of(plan: dict[str, Any], trt: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    """An engine's outputs by name: NumPy type and shape without the batch. 8.6 makes int32 of int64."""
    outputs = plan.get("outputs", [["output", "float32", [plan["classes"]]]])
    has_int64 = hasattr(trt.DataType, "INT64")
    return {name: ("int32" if kind == "int64" and not has_int64 else kind, tuple(shape)) for name, kind, shape in outputs}


def given_by(plan: dict[str, Any], images: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """What an engine's network gives, by name."""
    if "onnx" not in plan:
        return {"output": logits_of(images, plan["classes"])}
    from tests.support.trt_networks import run_onnx

    return run_onnx(plan["onnx"], images)


class Value:
    """A member of an enumeration, as pybind11 makes them: has a number, but is none."""

    def __init__(self, name: str, number: int) -> None:
        self.name, self.number = name, number

    def __int__(self) -> int:
        return self.number

    def __repr__(self) -> str:
        return self.name


@dataclass
class Behaviour:
    """What the fake does, and what it saw."""

    library: FakeCudart
    defect: Callable[[NDArray[Any], int], NDArray[Any]] = lambda logits, batch: logits
    defects: dict[str, Callable[[NDArray[Any], int], NDArray[Any]]] = field(default_factory=dict)  # of outputs by name
    plugins: bool = True  # whether EfficientNMS_TRT is there, once plugins were asked for
    plugins_loaded: int = 0
    parser_errors: list[str] = field(default_factory=list)
    build_steps: Callable[[Callable[[], bool]], bool] = lambda step: step()
    deserializes: bool = True
    has_context: bool = True
    runs: bool = True
    layers: list[Any] | None = None  # of the inspector, else three of the plan's precision
    says: list[tuple[str, str]] = field(default_factory=list)  # (level, text) that a build logs
    mentioned: set[tuple[str, str]] = field(default_factory=set)  # (class, member) that were touched
    asked_by: dict[str, set[str]] = field(default_factory=dict)  # module that asks -> names of classes, members, the module
    configs: list[Any] = field(default_factory=list)
    networks: list[int] = field(default_factory=list)  # creation flags

    def note(self, name: str, owner: str = "") -> None:
        """A name is touched: what asks for it is the frame that called the one that calls this."""
        self.asked_by.setdefault(sys._getframe(2).f_globals["__name__"], set()).add(name)
        if owner:
            self.mentioned.add((owner, name))


def fake_tensorrt(version: str, behaviour: Behaviour) -> Any:
    """The module `tensorrt` of one version, with exactly the names that its inventory lists."""
    names = inventory(version)

    class Module(types.ModuleType):
        def __getattribute__(self, key: str) -> Any:
            if key in names:
                behaviour.note(key)
            return super().__getattribute__(key)

    module = Module(library_named(version).modules[0])
    members = _members(module, behaviour)
    drawing = random.Random(version)
    for name, listed in names.items():
        if listed is None:
            setattr(module, name, Value(name, -1))
        elif name in ENUMS:
            drawn = drawing.sample(range(1, 40), len(listed))
            own = {member: Value(f"{name}.{member}", number) for member, number in zip(listed, drawn, strict=True)}
            setattr(module, name, _restricted(name, listed, {**own, "__members__": own}, behaviour))
        elif isinstance(listed, list):
            setattr(module, name, _restricted(name, listed, members.get(name, {}), behaviour))

    def load_plugins(logger: Any, namespace: str) -> bool:
        assert isinstance(logger, module.ILogger) and namespace == ""
        behaviour.plugins_loaded += 1
        return True

    module.init_libnvinfer_plugins = load_plugins  # type: ignore[attr-defined]
    module.get_plugin_registry = module.IPluginRegistry  # type: ignore[attr-defined]
    module.__version__ = names["__version__"]  # type: ignore[attr-defined]
    return module


def _restricted(name: str, listed: list[str], members: dict[str, Any], behaviour: Behaviour) -> type:
    """A class with the listed names, and no others: `members` where given, else data of the instance."""

    class Meta(type):
        def __getattribute__(cls, key: str) -> Any:
            if key in listed:
                behaviour.note(key, name)
            return super().__getattribute__(key)

    def get(self: Any, key: str) -> Any:
        if key in listed:
            behaviour.note(key, name)
        return object.__getattribute__(self, key)

    def put(self: Any, key: str, value: Any) -> None:
        if type(self) is instance and not key.startswith("_") and key not in listed:  # subclasses have names of their own
            raise AttributeError(f"{name} has no {key}")
        if key in listed:
            behaviour.note(key, name)
        object.__setattr__(self, key, value)

    body = {key: members.get(key) for key in listed if not key.startswith("__")}
    inner = {key: value for key, value in members.items() if key.startswith("_")}
    instance = Meta(name, (), {**body, **inner, "__getattribute__": get, "__setattr__": put})
    return instance


def _members(trt: Any, behaviour: Behaviour) -> dict[str, dict[str, Any]]:
    """The behaviour of the classes, by name. Names that a version lacks never reach it."""

    def text(value: Any, kind: str) -> None:
        assert isinstance(value, getattr(trt, kind)), f"{value!r} is no {kind}"

    # ------------------------------------------------------------------------------------------------- building
    def builder_init(self: Any, logger: Any) -> None:
        text(logger, "ILogger")
        self._logger = logger

    def create_network(self: Any, flags: int) -> Any:
        behaviour.networks.append(flags)
        instance = trt.INetworkDefinition()
        instance._content = None
        return instance

    def create_config(self: Any) -> Any:
        instance = trt.IBuilderConfig()
        instance._flags, instance._profiles, instance._cache, instance._limits = {"TF32"}, [], None, {}
        instance._sources = sum(1 << int(getattr(trt.TacticSource, name)) for name in inventory_of(trt)["TacticSource"])
        behaviour.configs.append(instance)
        return instance

    def create_profile(self: Any) -> Any:
        return trt.IOptimizationProfile()

    def build(self: Any, defined: Any, config: Any) -> Any:
        text(defined, "INetworkDefinition")
        text(config, "IBuilderConfig")
        assert defined._parser is not None
        for level, message in behaviour.says:
            self._logger.log(getattr(trt.ILogger, level), message)
        monitor = config.__dict__.get("progress_monitor")

        def step() -> bool:
            return monitor is None or monitor.step_complete("building", 0)

        if monitor is not None:
            monitor.phase_start("building", None, 1)
        finished = behaviour.build_steps(step)
        if monitor is not None:
            monitor.phase_finish("building")
        if not finished:
            return None
        (profile,) = config._profiles
        described = description(defined._content)
        version = (*numbers(trt.__version__), 0)[:4]
        header = struct.pack("<4sI16x4B", library_of(trt).tag, 0, *version)
        flags = sorted(config._flags)
        batches = [list(shape) for shape in profile._shapes]
        instance = trt.IHostMemory()
        instance._content = header + json.dumps({**described, "flags": flags, "batches": batches}).encode()
        if config._cache is not None:
            config._cache._content += b"measured;"
        return instance

    def parse(self: Any, content: bytes) -> bool:
        if behaviour.parser_errors:
            return False
        self._network._content, self._network._parser = content, self
        return True

    def parser_init(self: Any, defined: Any, logger: Any) -> None:
        text(logger, "ILogger")
        self._network = defined
        self.num_errors = len(behaviour.parser_errors)

    def get_error(self: Any, index: int) -> Any:
        instance = trt.ParserError()
        instance._text = behaviour.parser_errors[index]
        return instance

    def get_input(self: Any, index: int) -> Any:
        described = description(self._content)
        instance = trt.ITensor()
        instance.name = "input"
        instance.shape = (-1, 3, described["size"], described["size"])
        return instance

    def set_shape(self: Any, name: str, least: Any, usual: Any, largest: Any) -> None:
        assert name == "input"
        self._shapes = (least, usual, largest)

    def add_profile(self: Any, profile: Any) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_cache(self: Any, content: bytes) -> Any:
        instance = trt.ITimingCache()
        instance._content = content
        return instance

    def set_cache(self: Any, cache: Any, ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        self._cache = cache
        return True

    def serialize(self: Any) -> Any:
        instance = trt.IHostMemory()
        instance._content = self._content
        return instance

    def set_capability(self: Any, capability: Any, index: int) -> bool:
        assert index < self.num_compute_capabilities
        return capability.name != "ComputeCapability.NONE"

    def set_sources(self: Any, sources: int) -> bool:
        self._sources = sources
        return True

    def set_flag(self: Any, flag: Any) -> None:
        owner, name = flag.name.split(".")
        assert owner == "BuilderFlag"
        typed = any(1 << int(value) & behaviour.networks[-1] for value in _flags(trt, "STRONGLY_TYPED"))
        assert not (typed and name in ("FP16", "INT8", "BF16")), "a strongly typed network takes no such flag"
        self._flags.add(name)

    def clear_flag(self: Any, flag: Any) -> None:
        self._flags.discard(flag.name.split(".")[1])

    # -------------------------------------------------------------------------------------------------- running
    def runtime_init(self: Any, logger: Any) -> None:
        text(logger, "ILogger")
        self._logger = logger

    def deserialize(self: Any, plan: bytes) -> Any:
        if not behaviour.deserializes:
            self._logger.log(trt.ILogger.ERROR, "the plan's checksum\n is wrong")
            return None
        instance = trt.ICudaEngine()
        instance._plan = json.loads(plan[28:])
        if "VERSION_COMPATIBLE" in instance._plan["flags"]:
            assert self.engine_host_code_allowed
        instance.num_io_tensors = 1 + len(outputs_of(instance._plan, trt))
        assert behaviour.plugins_loaded, "a plan may hold some"
        for key in ("device_memory_size", "device_memory_size_v2"):
            if key in inventory_of(trt)["ICudaEngine"]:
                object.__setattr__(instance, key, 12345)
        return instance

    def mode(self: Any, name: str) -> Any:
        return trt.TensorIOMode.INPUT if name == "input" else trt.TensorIOMode.OUTPUT

    def shape(self: Any, name: str) -> Any:
        size = self._plan["size"]
        return (-1, *((3, size, size) if name == "input" else outputs_of(self._plan, trt)[name][1]))

    def kind(self: Any, name: str) -> Any:
        number = "float32" if name == "input" else outputs_of(self._plan, trt)[name][0]
        return getattr(trt.DataType, self._plan.get("io", KINDS[number]))

    def creator(self: Any, name: str, version: str, namespace: str) -> Any:
        known = behaviour.plugins and behaviour.plugins_loaded and (name, version, namespace) == ("EfficientNMS_TRT", "1", "")
        return object() if known else None

    def create_context(self: Any) -> Any:
        if not behaviour.has_context:
            return None
        instance = trt.IExecutionContext()
        instance._plan, instance._addresses, instance._shape = self._plan, {}, None
        return instance

    def set_input_shape(self: Any, name: str, wanted: Any) -> bool:
        least, _, largest = self._plan["batches"]
        fits = name == "input" and least[0] <= wanted[0] <= largest[0] and list(wanted[1:]) == largest[1:]
        self._shape = wanted if fits else self._shape
        return fits

    def set_address(self: Any, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute(self: Any, stream: int) -> bool:
        assert self._shape is not None
        if not behaviour.runs:
            return False
        addresses, wanted = dict(self._addresses), self._shape

        def run() -> None:
            memory = behaviour.library.memory
            images = np.frombuffer(memory[addresses["input"]], np.float32, int(np.prod(wanted))).reshape(wanted)
            exact = given_by(self._plan, images)
            for name, (number, own_shape) in outputs_of(self._plan, trt).items():
                defect = behaviour.defects.get(name, behaviour.defect if name == "output" else _as_it_is)
                values = defect(exact[name], wanted[0]).astype(number)
                assert values.shape == (wanted[0], *own_shape)
                content = values.tobytes()
                assert len(content) <= len(memory[addresses[name]]), f"{name} has too little memory"
                memory[addresses[name]][: len(content)] = content

        behaviour.library.streams[stream].append(run)
        return True

    def information(self: Any, kind: Any) -> str:
        assert kind is trt.LayerInformationFormat.JSON
        assert self.execution_context._shape is not None
        weights = "Half" if "FP16" in self._plan["flags"] else WEIGHTS[self._plan["precision"]]
        if "INT8" in self._plan["flags"]:
            weights = "Int8"
        conv = {"LayerType": "CaskConvolution", "Weights": {"Type": weights, "Count": 9}}
        layers = behaviour.layers if behaviour.layers is not None else [{"LayerType": "Reformat"}, conv, conv]
        extra = {"I/O Tensors": [{"Name": "input"}]} if trt.__version__.startswith("11") else {"Bindings": ["input"]}
        return json.dumps({"Layers": layers, **extra})

    def create_inspector(self: Any) -> Any:
        instance = trt.EngineInspector()
        instance._plan = self._plan
        return instance

    return {
        "Builder": {
            "__init__": builder_init,
            "create_network": create_network,
            "create_builder_config": create_config,
            "create_optimization_profile": create_profile,
            "build_serialized_network": build,
        },
        "INetworkDefinition": {"get_input": get_input, "num_inputs": 1},
        "OnnxParser": {"__init__": parser_init, "parse": parse, "get_error": get_error},
        "ParserError": {
            "desc": lambda self: self._text,
            "node": lambda self: 7,
            "node_operator": lambda self: "Conv",
            "node_name": lambda self: "stem",
        },
        "IOptimizationProfile": {"set_shape": set_shape},
        "IBuilderConfig": {
            "set_flag": set_flag,
            "clear_flag": clear_flag,
            "add_optimization_profile": add_profile,
            "create_timing_cache": create_cache,
            "set_timing_cache": set_cache,
            "get_timing_cache": lambda self: self._cache,
            "set_compute_capability": set_capability,
            "get_tactic_sources": lambda self: self._sources,
            "set_tactic_sources": set_sources,
            "set_memory_pool_limit": lambda self, pool, limit: self._limits.update({pool.name: limit}),
        },
        "ITimingCache": {"serialize": serialize},
        "IHostMemory": {"__bytes__": lambda self: self._content},
        "ILogger": {name: Value(name, number) for number, name in enumerate(("INTERNAL_ERROR", "ERROR", "WARNING", "INFO"))},
        "Runtime": {"__init__": runtime_init, "deserialize_cuda_engine": deserialize},
        "ICudaEngine": {
            "get_tensor_name": lambda self, index: ("input", *outputs_of(self._plan, trt))[index],
            "get_tensor_mode": mode,
            "get_tensor_dtype": kind,
            "get_tensor_shape": shape,
            "get_tensor_profile_shape": lambda self, name, index: [tuple(s) for s in self._plan["batches"]],
            "create_execution_context": create_context,
            "create_engine_inspector": create_inspector,
        },
        "IPluginRegistry": {"get_plugin_creator": creator},
        "EngineInspector": {"get_engine_information": information},
        "IExecutionContext": {
            "set_input_shape": set_input_shape,
            "set_tensor_address": set_address,
            "execute_async_v3": execute,
        },
    }


def _as_it_is(values: NDArray[Any], batch: int) -> NDArray[Any]:
    return values


def _flags(trt: Any, name: str) -> list[Any]:
    flags = trt.NetworkDefinitionCreationFlag
    return [getattr(flags, name)] if hasattr(flags, name) else []


def inventory_of(trt: Any) -> dict[str, Any]:
    return inventory(next(version for version in FILES if inventory(version)["__version__"] == trt.__version__))
