"""An ONNX file in, the bytes of a TensorRT plan out. One path for TensorRT 8.6, 10, 11 and TensorRT-RTX; see
`api`.

The builder works in a second thread: Python sees Ctrl-C in the main one only, which never waits inside TensorRT.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from slimexport.target.errors import NotProven
from slimexport.target.tensorrt.api import (
    Emission,
    bit,
    create,
    load_plugins,
    logger,
    messages,
    network_flags,
    said,
    strongly_typed,
    target,
)
from slimexport.target.tensorrt.build_settings import BuildSettings
from slimexport.target.tensorrt.libraries import VC_PLUGINS, lacks_plugins, titled
from slimexport.target.tensorrt.timing_cache import TimingCache
from slimtrain.base.untrusted.quoting import shortened

log = logging.getLogger(__name__)
Outcome = TypeVar("Outcome")

POLL_S = 0.1
SHOWN_ERRORS = 3
REMEDIES = "More workspace or memory on the GPU, a smaller batch or another precision may help."


class BuildFailed(NotProven):
    """TensorRT made no engine of a network."""


@dataclass(frozen=True)
class Built:
    """A plan, the flags that it was built with, how long that took, what the timing cache held, and TensorRT's warnings, each
    as often as it was said."""

    plan: bytes
    flags: tuple[str, ...]
    build_seconds: float
    timing_cache: str | None
    warnings: tuple[str, ...]


def build(trt: Any, onnx: Path, emission: Emission, settings: BuildSettings, timing_cache: TimingCache | None = None) -> Built:
    """Build the engine of one ONNX file (input [N, C, H, W], N dynamic) for this machine's GPU, or for others.

    BuildFailed with TensorRT's own words where it reads the file not or finds no implementation; MissingBackend where it
    does not run here at all. On Ctrl-C TensorRT 10 and later stop soon, 8.6 ends its build first.
    """
    content = onnx.read_bytes()
    cancelled = threading.Event()
    started = time.perf_counter()
    with messages(trt) as collected:
        try:
            plan, flags = in_thread(
                lambda: _build(trt, content, emission, settings, timing_cache, cancelled), cancelled, _stops(trt)
            )
        except BuildFailed as error:
            more = said(collected)
            raise BuildFailed(f"{onnx.name}: {error}" + (f" TensorRT says: {more}" if more else "")) from error
        warnings = tuple(text for level, text in collected if level == "warning")
    return Built(plan, flags, time.perf_counter() - started, None if timing_cache is None else timing_cache.state, warnings)


def _stops(trt: Any) -> bool:
    """Whether builds of this TensorRT can be stopped."""
    return hasattr(trt, "IProgressMonitor")


def in_thread(work: Callable[[], Outcome], cancelled: threading.Event, stops: bool) -> Outcome:
    """`work()` of TensorRT's in a second thread, so that Ctrl-C is raised in none of its callbacks, where TensorRT prints it
    and goes on. On Ctrl-C `cancelled` is set, the end of the work awaited, and KeyboardInterrupt passed on; a second Ctrl-C
    no longer waits."""
    go, done = threading.Event(), threading.Event()
    outcome: list[Outcome] = []
    failure: list[BaseException] = []

    def run() -> None:
        go.wait()
        try:
            if not cancelled.is_set():
                outcome.append(work())
        except BaseException as error:
            failure.append(error)
        finally:
            done.set()

    threading.Thread(target=run, name="TensorRT build", daemon=True).start()
    try:
        go.set()  # only now, so that Ctrl-C in the line above leaves nothing at work
        while not done.wait(POLL_S):
            pass
    except KeyboardInterrupt:
        cancelled.set()
        go.set()
        if not stops and not done.is_set():
            log.warning("this TensorRT cannot stop a build: waiting for its end (Ctrl-C again to leave at once)")
        done.wait()
        raise
    if failure:
        raise failure[0]
    return outcome[0]


def _build(
    trt: Any,
    content: bytes,
    emission: Emission,
    settings: BuildSettings,
    timing_cache: TimingCache | None,
    cancelled: threading.Event,
) -> tuple[bytes, tuple[str, ...]]:
    builder = create("a builder", trt.Builder, logger(trt))
    network = create("a network", builder.create_network, network_flags(trt))
    load_plugins(trt)
    parser = create("a parser of ONNX", trt.OnnxParser, network, logger(trt))
    if not _reads(trt, parser, content):
        raise BuildFailed(f"{titled(trt)} does not read it ({_parser_errors(parser)}).")
    config = create("a configuration", builder.create_builder_config)
    flags = configure(trt, config, emission, settings)
    profile = create("an optimization profile", builder.create_optimization_profile)
    _set_batches(network, profile, settings)
    if config.add_optimization_profile(profile) < 0:
        raise BuildFailed(f"TensorRT does not take the batch range {settings.batch}.")
    if hasattr(config, "progress_monitor"):
        config.progress_monitor = monitor(trt, cancelled)
    if timing_cache is not None:
        timing_cache.attach(config)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise BuildFailed(f"{titled(trt)} built no {emission.precision} engine of it{_for(settings)}. {REMEDIES}")
    if timing_cache is not None:
        timing_cache.keep(config)
    return bytes(serialized), flags


def _reads(trt: Any, parser: Any, content: bytes) -> bool:
    """Whether the parser reads a network, which 8.6's ends with exceptions too."""
    try:
        return bool(parser.parse(content))
    except RuntimeError as error:
        if VC_PLUGINS in str(error):
            raise lacks_plugins(trt) from error
        raise BuildFailed(f"{titled(trt)} does not read it ({shortened(str(error))}).") from error


def _for(settings: BuildSettings) -> str:
    return f" for compute capability {', '.join(settings.targets)}" if settings.targets else ""


def _parser_errors(parser: Any) -> str:
    reasons = []
    for index in range(min(parser.num_errors, SHOWN_ERRORS)):
        parser_error = parser.get_error(index)
        where = f"node {parser_error.node()}"
        if hasattr(parser_error, "node_operator"):
            where = f"{parser_error.node_operator()} {parser_error.node_name()}".strip() or where
        reasons.append(f"{where}: {' '.join(parser_error.desc().split())}")
    return "; ".join(reasons) or "it gives no reason"


def configure(trt: Any, config: Any, emission: Emission, settings: BuildSettings) -> tuple[str, ...]:
    """Set a builder's configuration; the names of the flags that it has, for the manifest."""
    config.clear_flag(trt.BuilderFlag.TF32)  # which TensorRT sets by itself
    for name in emission.flags:
        config.set_flag(getattr(trt.BuilderFlag, name))
    flags = [*emission.flags, *["STRONGLY_TYPED"] * strongly_typed(trt)]
    if settings.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        flags.append("VERSION_COMPATIBLE")
    if settings.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
        flags.append("AMPERE_PLUS")
    if not settings.library_tactics:
        config.set_tactic_sources(own_tactics(trt, config.get_tactic_sources()))
    config.builder_optimization_level = settings.optimization_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the inspector tells precisions only then
    if settings.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
    if settings.aux_streams is not None:
        config.max_aux_streams = settings.aux_streams
    if settings.targets:
        config.num_compute_capabilities = len(settings.targets)
        for index, capability in enumerate(settings.targets):
            if not config.set_compute_capability(target(trt, capability), index):
                raise BuildFailed(f"{titled(trt)} does not take compute capability {capability}.")
    return tuple(flags)


def own_tactics(trt: Any, sources: int) -> int:
    """A mask of tactic sources without cuBLAS and cuDNN, which 11 no longer has."""
    if hasattr(trt.TacticSource, "CUBLAS"):
        sources &= ~bit(trt.TacticSource.CUBLAS)
    if hasattr(trt.TacticSource, "CUBLAS_LT"):
        sources &= ~bit(trt.TacticSource.CUBLAS_LT)
    if hasattr(trt.TacticSource, "CUDNN"):
        sources &= ~bit(trt.TacticSource.CUDNN)
    return sources


def _set_batches(network: Any, profile: Any, settings: BuildSettings) -> None:
    """One profile: the network's input at the least, usual and largest batch."""
    if network.num_inputs != 1:
        raise BuildFailed(f"it has {network.num_inputs} inputs, expected one that takes images.")
    tensor = network.get_input(0)
    batch, *rest = tuple(tensor.shape)
    if batch != -1 or len(rest) != 3 or min(rest) < 1:
        raise BuildFailed(f"its input is {tuple(tensor.shape)}, expected a dynamic batch of images of one size.")
    sizes = settings.batch
    profile.set_shape(tensor.name, (sizes.min, *rest), (sizes.opt, *rest), (sizes.max, *rest))


def monitor(trt: Any, cancelled: threading.Event) -> Any:
    """A progress monitor (TensorRT 10 and later) that ends the build once `cancelled` is set."""
    assert hasattr(trt, "IProgressMonitor")

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Called by TensorRT, from any of its threads."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            pass

        def phase_finish(self, phase_name: str) -> None:
            pass

        def step_complete(self, phase_name: str, step: int) -> bool:
            return not cancelled.is_set()

    return Monitor()
