"""Settings of the whole process, held and put back."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import torch

from benchmarks.runners.torch.modes import current, held, modes_for


@pytest.fixture
def as_before() -> Iterator[None]:
    before = current()
    yield
    before.apply()


@pytest.mark.usefixtures("as_before")
def test_modes_of_a_gpu_and_of_a_cpu() -> None:
    before = current()
    fp32, tf32, cpu = modes_for("cuda", "fp32", 7), modes_for("cuda", "tf32", 7), modes_for("cpu", "fp32", 7)
    assert (fp32.threads, fp32.cudnn_benchmark, fp32.cudnn_tf32, fp32.matmul_tf32) == (before.threads, True, False, False)
    assert (tf32.cudnn_benchmark, tf32.cudnn_tf32, tf32.matmul_tf32) == (True, True, True)
    assert (cpu.threads, cpu.cudnn_benchmark) == (7, before.cudnn_benchmark)
    for modes in (fp32, tf32, cpu, before):
        modes.apply()
        assert current() == modes
        assert torch.backends.cuda.matmul.allow_tf32 == modes.matmul_tf32
        assert torch.backends.cudnn.allow_tf32 == modes.cudnn_tf32
        assert torch.backends.cudnn.benchmark == modes.cudnn_benchmark


@pytest.mark.usefixtures("as_before")
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_modes_come_back_when_the_last_holder_ends(order: tuple[int, ...]) -> None:
    before = current()
    wanted = [modes_for("cuda", "fp32", 1), modes_for("cuda", "tf32", 1), modes_for("cpu", "fp32", before.threads + 1)]
    holders = [ExitStack() for _ in wanted]
    for holder, modes in zip(holders, wanted, strict=True):
        holder.enter_context(held(modes))
        assert current() == modes
    for place in order[:-1]:
        holders[place].close()
        assert current() == wanted[-1]
    holders[order[-1]].close()
    assert current() == before


@pytest.mark.usefixtures("as_before")
def test_modes_come_back_after_an_error() -> None:
    before = current()
    with pytest.raises(KeyError), held(modes_for("cuda", "tf32", 1)):
        raise KeyError
    assert current() == before
