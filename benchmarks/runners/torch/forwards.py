"""The ways that torch runs a network: as it is, at a width of a slimmable one, compiled, replayed as a CUDA graph.

Each is made with the images that it will run, float32 [batch, C, H, W], and takes no others: what takes time once (choosing
kernels, compiling, capturing) is over when it is made.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cells.cell import NotMeasured
from benchmarks.runners.failures import first_line
from benchmarks.runners.torch.errors import is_out_of_memory, out_of_memory
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.channels import ChannelPlan
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.tracing.outputs import tensors_of

CAPTURE_WARMUP = 3  # runs before a capture: libraries allocate and choose in the first ones, which cannot be captured
C_COMPILERS = ("gcc", "clang")  # what Triton looks for where CC names none
COMPILED, GRAPH = "inductor, default mode, static shapes", "replay alone; input copied before it"


class Eager:
    """A network, called as it is. `call` is what is timed."""

    def __init__(self, network: Callable[[Tensor], Tensor], images: Tensor) -> None:
        self.call = network
        self.settings: Mapping[str, Any] = {}
        with self.active():
            self.call(self.target(images))

    def active(self) -> AbstractContextManager[Any]:
        """What `call` runs in."""
        return nullcontext()

    def target(self, images: Tensor) -> Tensor:
        """Where `call` reads images: they must be there when it runs."""
        return images

    def named(self, given: Any) -> Tensor | dict[str, Tensor]:
        """What `call` gave: its output, or several by name."""
        result: Tensor | dict[str, Tensor] = given
        return result

    def check(self) -> None:
        """NotMeasured where the last `call` was not what it is taken for."""


class Slimmed(Eager):
    """The slimmable network at `plan`, as a user has it who exports nothing. Switching to the plan is not timed."""

    def __init__(self, network: SlimmableNetwork, plan: ChannelPlan, images: Tensor) -> None:
        self.network, self.plan = network, plan
        super().__init__(network, images)

    def active(self) -> AbstractContextManager[Any]:
        return self.network.at(self.plan)

    def named(self, given: Any) -> Tensor | dict[str, Tensor]:
        if not isinstance(self.network.spec, GraphSpec):
            return super().named(given)
        tensors, names = tensors_of(given), [name for name, _ in self.network.spec.graph.results]
        return tensors[0] if len(tensors) == 1 else dict(zip(names, tensors, strict=True))


class Compiled(Eager):
    """A network in `torch.compile`, with the default mode and static shapes. Its code must be its own, as a GraphModule's
    is: torch gives up on code that many networks share.

    torch falls back to eager in silence where it is switched off, and in part where it cannot follow. `fullgraph` makes that
    an error, but not all of it in all versions: so graphs are counted. One is made here, and none afterwards.
    """

    def __init__(self, network: nn.Module, images: Tensor) -> None:
        before, began = graphs(), time.perf_counter()
        try:
            super().__init__(torch.compile(network, dynamic=False, fullgraph=True), images)
        except Exception as error:  # what dynamo and inductor raise has no other ancestor in common
            device = images.device.type
            if any(is_out_of_memory(cause, device, images.nbytes) for cause in causes(error)):
                raise out_of_memory(error, device) from error
            raise NotMeasured(f"torch.compile failed: {advice(error, images.is_cuda)}") from error
        count = graphs() - before
        if count != 1:
            raise NotMeasured(
                f"torch.compile made {count} graphs of the network, expected one: some or all of it would run eagerly. Is it "
                "switched off (TORCH_COMPILE_DISABLE, TORCHDYNAMO_DISABLE)?"
            )
        self.settings = {"compile": COMPILED, "compile_s": round(time.perf_counter() - began, 1)}

    def target(self, images: Tensor) -> Tensor:
        self.seen = graphs()  # other networks are compiled in between
        return images

    def check(self) -> None:
        if graphs() != self.seen:
            raise NotMeasured("torch.compile compiled the network again while it was measured, so its times mean nothing")


def graphs() -> int:
    """How many graphs torch.compile has made in this process."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error of the compiler, and those that it stands for, one within the other."""
    from torch._dynamo.exc import BackendCompilerFailed

    inner: BaseException | None = error
    while inner is not None:
        yield inner
        inner = inner.inner_exception if isinstance(inner, BackendCompilerFailed) else inner.__cause__


def advice(error: Exception, on_gpu: bool) -> str:
    """What went wrong, and what to do about it."""
    from torch._inductor.exc import InvalidCxxCompiler, TritonMissing

    kinds = {type(cause) for cause in causes(error)}
    if InvalidCxxCompiler in kinds:
        return "on a CPU it needs a C++ compiler and found none. Install g++, or name one in the variable CXX."
    if TritonMissing in kinds:
        return "on a GPU it needs Triton and found none: pip install triton."
    if on_gpu and "CC" not in os.environ and not any(map(shutil.which, C_COMPILERS)):
        return "Triton needs a C compiler and found none. Install gcc, or name one in the variable CC."
    return first_line(error)


class Graphed(Eager):
    """A network's kernels as one CUDA graph. Its input is part of the graph: images are copied there first, untimed."""

    def __init__(self, network: nn.Module, images: Tensor) -> None:
        self.input = torch.empty_like(images).copy_(images)
        beside, here = torch.cuda.Stream(), torch.cuda.current_stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(here)
        with torch.cuda.stream(beside):
            for _ in range(CAPTURE_WARMUP):
                network(self.input)
        here.wait_stream(beside)
        self.network = network  # its weights are read where they are
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.output = network(self.input)
        self.call = self._replay
        self.settings = {"cuda_graph": GRAPH}

    def target(self, images: Tensor) -> Tensor:
        return self.input

    def _replay(self, images: Tensor) -> Tensor:
        self.graph.replay()
        return self.output
