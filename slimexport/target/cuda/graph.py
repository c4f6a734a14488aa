"""CUDA graphs: work that a stream would do, captured once and queued again with one call.

Launching a network's kernels one by one takes the host longer than the GPU takes for small networks; a graph takes one
launch. Which memory is read and written is part of the graph.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable

from slimexport.target.cuda.runtime import CudaError, Resource, Stream
from slimexport.target.errors import MissingBackend

CAPTURE_THREAD_LOCAL = 1  # other threads may do as they like while this one captures


class Captured(Resource):
    """Work that was queued on a stream while it captured."""

    kind, destroy = "captured work", "cudaGraphDestroy"

    def __init__(self, stream: Stream, work: Callable[[], None]) -> None:
        self.cuda, self.handle = stream.cuda, None
        self.cuda.call("capturing a stream's work", "cudaStreamBeginCapture", stream.address, CAPTURE_THREAD_LOCAL)
        try:
            work()
        except BaseException:
            with contextlib.suppress(CudaError):  # the first failure is told
                self._end(stream)
                self.close()
            raise
        self._end(stream)

    def _end(self, stream: Stream) -> None:
        """The stream no longer captures, also where this fails."""
        handle = ctypes.c_void_p()
        try:
            self.cuda.call("ending a capture", "cudaStreamEndCapture", stream.address, ctypes.byref(handle))
        except CudaError:
            self.cuda.library.cudaGetLastError()  # else CUDA's next caller is told of this failure again
            raise
        self.handle = handle.value

    def __enter__(self) -> Captured:
        return self


class Graph(Resource):
    """What `work` queues on `stream`, for a `with` block: nothing of it is done before a launch.

    The memory that it works on must outlive it. MissingBackend where CUDA is too old, CudaError where the work cannot be
    captured, such as work that waits for the device; whatever fails, the stream takes work as before.
    """

    kind, destroy = "a graph", "cudaGraphExecDestroy"

    def __init__(self, stream: Stream, work: Callable[[], None]) -> None:
        if not hasattr(stream.cuda.library, "cudaGraphInstantiateWithFlags"):
            raise MissingBackend("CUDA graphs need CUDA 11.4 or later, an older runtime was found. Measure without them.")
        with contextlib.ExitStack() as undo:
            with Captured(stream, work) as captured:
                super().__init__(stream.cuda, "cudaGraphInstantiateWithFlags", captured.address, 0)
                undo.callback(self.close)
            undo.pop_all()

    def __enter__(self) -> Graph:
        return self

    def launch(self, stream: Stream) -> None:
        """Queue the work."""
        self.cuda.call("launching a graph", "cudaGraphLaunch", self.address, stream.address)
