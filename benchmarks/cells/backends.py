"""The backends, a row each: what runs a bundle's networks, on which of its files, and how it is opened, probed and worded.

Adding one is a row here and a runner (`cell.CellRunner`). Nothing in this file loads a library: what opens files and what
measures ceilings are dotted names, `module:attribute`, which are loaded once a cell asks for them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.cells.cell import CellRunner, NotMeasured, Options
from slimexport.target import backends as target
from slimexport.target.backends import ONNX, TRT, load
from slimexport.target.precision import EXACT, PRECISIONS, computed_from

ONNXRUNTIME_CPU, ONNXRUNTIME_CUDA, OPENVINO, TENSORRT = target.CPU, target.CUDA, target.OPENVINO, target.TENSORRT
TORCH_EAGER, TORCH_COMPILE, TORCH_GRAPH = "torch-eager", "torch-compile", "torch-cuda-graph"
SLIMMABLE = "slimmable"

AUTO, ALL = "auto", "all"  # in the place of backends
CPU, CUDA = "cpu", "cuda"
IN_TORCH = tuple(row.name for row in PRECISIONS.values() if row.torch and row.weight_bytes is not None)
NEVER, ALWAYS, WITH_FILES = "never", "always", "with files"  # whether `--backends auto` takes a backend


@dataclass(frozen=True)
class Backend:
    """A way to run a bundle's networks.

    `title`: how sentences call what computes. `packages`: what must be importable. `format` and `precisions`: of the artifacts
    that it runs; no precisions are all of them. `no_files`: what is said of a bundle without such artifacts, with its
    `{folder}` and the precisions `{asked}` for. `device`: where it runs, "" where `Options.device` says so. `settings`: the
    fields of Options that it honours, and is given. `runner`: opens an artifact's file, called with (cell, path, inputs,
    options). `probe`: opens what measures its ceilings, called with (precision, options); where it is "", `no_probe` is the
    reason. `auto`: whether `--backends auto` takes it on its device, WITH_FILES where a bundle has artifacts of its format.
    `needs_gpu`: why it runs on a GPU only, although `Options.device` says where it runs. `times_models`: whether latency
    tables are measured with it, which takes hundreds of small ONNX files that no manifest describes.
    """

    name: str
    title: str
    packages: tuple[str, ...]
    runner: str
    no_files: str
    format: str = ONNX
    precisions: tuple[str, ...] = ()
    device: str = ""
    settings: tuple[str, ...] = ()
    probe: str = ""
    no_probe: str = ""
    auto: str = NEVER
    needs_gpu: str = ""
    times_models: bool = False

    @property
    def needs_checkpoint(self) -> bool:
        """Whether it runs the network of `Options.checkpoint`, and an artifact only says at which plan."""
        return "checkpoint" in self.settings

    def runs(self, format_: str, precision: str) -> bool:
        """Whether it is tried on artifacts of a format and a precision."""
        return format_ == self.format and (not self.precisions or precision in self.precisions)

    def chosen_by_auto(self, device: str, formats: Collection[str], checkpoint: bool) -> bool:
        """Whether `--backends auto` takes it on a machine whose best device is `device`, for bundles with artifacts of
        `formats`, with or without a checkpoint."""
        wanted = self.auto == ALWAYS or (self.auto == WITH_FILES and self.format in formats)
        return wanted and self.device in ("", device) and (checkpoint or not self.needs_checkpoint)

    def device_of(self, options: Options) -> str:
        """Where it runs."""
        return self.device or options.device

    def honoured(self, options: Options) -> Options:
        """`options` as far as it honours them; the others as they are by default."""
        return Options(**{name: getattr(options, name) for name in self.settings})

    def require_device(self, options: Options) -> None:
        """NotMeasured where it does not run on the device of `options`."""
        if self.needs_gpu and self.device_of(options) != CUDA:
            raise NotMeasured(self.needs_gpu)

    def require_precision(self, precision: str) -> None:
        """NotMeasured where it does not compute in a precision. TF32 is a GPU's way to compute what is in fp32."""
        computed = [way for own in self.precisions for way in computed_from(own)]
        if computed and precision not in computed:
            raise NotMeasured(f"{self.title} is measured in {', '.join(computed)}, not in {precision}")

    def load_runner(self) -> Callable[..., CellRunner]:
        """What opens its files. NotMeasured where a package of its own is missing that its module needs to load."""
        try:
            opener: Callable[..., CellRunner] = load(self.runner)
        except ImportError:
            for package in self.packages:
                try:
                    importlib.import_module(package)
                except ImportError as error:
                    raise NotMeasured(
                        f"needs {package}, which is not installed or does not load ({error}): pip install {package}"
                    ) from error
            raise
        return opener

    def open_probe(self, precision: str, options: Options) -> AbstractContextManager[Any]:
        """What measures its ceilings in a precision, a `ceilings.probe.Probe`. NotMeasured where nothing does, or not here."""
        if not self.probe:
            raise NotMeasured(self.no_probe)
        self.require_device(options)
        probe: AbstractContextManager[Any] = load(self.probe)(precision, self.honoured(options))
        return probe


IN_ORT = Backend(
    name=ONNXRUNTIME_CPU,
    title="onnxruntime",
    packages=("onnxruntime",),
    runner="benchmarks.runners.ort:OnnxRuntimeCpu",
    probe="benchmarks.ceilings.onnxruntime:cpu_probe",
    no_files="needs an ONNX file, the bundle has none{asked}",
    device=CPU,
    settings=("threads",),
    auto=ALWAYS,
    times_models=True,
)
EAGER = Backend(
    name=TORCH_EAGER,
    title="torch",
    packages=("torch", "onnx"),
    runner="benchmarks.runners.torch.session:open_eager",
    probe="benchmarks.ceilings.torch:eager_probe",
    no_files=f"needs an ONNX file in {', '.join(IN_TORCH)}, the bundle has none{{asked}}",
    precisions=IN_TORCH,
    settings=("threads", "transfers", "device"),
)
ROWS = (
    IN_ORT,
    replace(
        IN_ORT,
        name=ONNXRUNTIME_CUDA,
        runner="benchmarks.runners.ort_cuda:OnnxRuntimeCuda",
        probe="benchmarks.ceilings.onnxruntime:cuda_probe",
        device=CUDA,
        settings=("threads", "transfers"),
    ),
    replace(
        IN_ORT,
        name=OPENVINO,
        title="OpenVINO",
        packages=("openvino",),
        runner="benchmarks.runners.openvino:OpenVINO",
        probe="benchmarks.ceilings.openvino:cpu_probe",
        auto=NEVER,
    ),
    Backend(
        name=TENSORRT,
        title="TensorRT",
        packages=("tensorrt",),
        runner="benchmarks.runners.trt:TensorRT",
        probe="benchmarks.ceilings.tensorrt:tensorrt_probe",
        no_files="the bundle has no engines: slimexport --bundle {folder} --format trt, on this machine",
        format=TRT,
        device=CUDA,
        settings=("cuda_graph", "transfers"),
        auto=WITH_FILES,
    ),
    EAGER,
    replace(
        EAGER,
        name=TORCH_COMPILE,
        runner="benchmarks.runners.torch.session:open_compiled",
        probe="benchmarks.ceilings.torch:compiled_probe",
    ),
    replace(
        EAGER,
        name=TORCH_GRAPH,
        runner="benchmarks.runners.torch.session:open_graphed",
        probe="benchmarks.ceilings.torch:graphed_probe",
        needs_gpu="CUDA graphs need a GPU",
    ),
    replace(
        EAGER,
        name=SLIMMABLE,
        title="the slimmable network",
        runner="benchmarks.runners.torch.session:open_slimmed",
        no_files="needs an fp32 ONNX file, to say which width is meant, the bundle has none{asked}",
        precisions=(EXACT,),
        settings=(*EAGER.settings, "checkpoint"),
        auto=ALWAYS,
    ),
)
BACKENDS = {row.name: row for row in ROWS}  # in the order in which tables show them
