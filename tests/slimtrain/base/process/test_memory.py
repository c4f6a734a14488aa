"""Errors that tell that memory ran out, in the words of the libraries that raise them."""

from __future__ import annotations

import errno

import numpy as np
import pytest
import torch

from slimtrain.base.errors import UserError
from slimtrain.base.process.memory import lack_of_memory, tells_of_memory


def refused_by_numpy() -> BaseException:
    with pytest.raises(MemoryError) as caught:
        np.empty(1 << 60, np.uint8)
    return caught.value


def refused_by_torch() -> BaseException:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    return caught.value


def test_what_libraries_raise_here() -> None:
    assert tells_of_memory(refused_by_numpy()) and tells_of_memory(refused_by_torch())


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("std::bad_alloc"),
        RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer of size 9"),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
        RuntimeError("in a process that loads images:\nTraceback\nMemoryError"),
        RuntimeError("can't start new thread"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_words_classes_and_numbers(error: BaseException) -> None:
    assert tells_of_memory(error)
    mistake = UserError("a.pt: cannot be read.")
    mistake.__cause__ = error
    assert lack_of_memory(mistake) is error


@pytest.mark.parametrize(
    "error",
    [
        UserError("'out of memory.pt': no such file."),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "out of memory.pt"),
        KeyError("bad_alloc"),
        RuntimeError("shapes differ"),
        KeyboardInterrupt("out of memory"),
    ],
)
def test_what_only_quotes_the_words_does_not(error: BaseException) -> None:
    assert lack_of_memory(error) is None
