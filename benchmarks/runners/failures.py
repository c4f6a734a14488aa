"""A backend's failure, as the reason of a row: out of memory, or whatever else it says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.cells.cell import NotMeasured, OutOfMemory
from slimexport.target.cuda.runtime import CudaError
from slimexport.target.errors import BundleError, MissingBackend
from slimtrain.base.process.memory import in_words

CUDA_OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation, since CUDA's first version
OF_THE_TARGET = (BundleError, MissingBackend)  # CudaError and PlanMismatch among them


@contextmanager
def reasons(*kinds: type[Exception]) -> Iterator[None]:
    """Errors of `kinds` in a `with` block become NotMeasured, or OutOfMemory where they tell of that; a reason is one line."""
    try:
        yield
    except NotMeasured:
        raise
    except MemoryError as error:
        raise OutOfMemory(f"the host's memory does not suffice ({first_line(error)}).") from error
    except kinds as error:
        raise (OutOfMemory if is_out_of_memory(error) else NotMeasured)(first_line(error)) from error


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error of the CUDA runtime, onnxruntime or TensorRT tells that memory ran out."""
    if isinstance(error, CudaError):
        return error.code == CUDA_OUT_OF_MEMORY
    # onnxruntime and TensorRT have neither a class nor a code for it; torch has, see `torch.errors`
    return in_words(str(error))


def first_line(error: BaseException) -> str:
    """What an error says first; its type where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
