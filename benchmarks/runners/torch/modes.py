"""torch's settings that belong to the whole process: held while runners are open, and put back after the last one.

All networks of a group are open at once and take turns, so a runner sets them again before each iteration, where another
one changed them. torch.compile looks at them too: a network that was compiled under others is compiled again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from slimexport.target.precision import row_of


@dataclass(frozen=True)
class Modes:
    """CPU threads within an operator; whether cuDNN times its kernels to choose; whether float32 is computed as TF32."""

    threads: int
    cudnn_benchmark: bool
    cudnn_tf32: bool
    matmul_tf32: bool

    def apply(self) -> None:
        """Make these the process's, as far as they are not."""
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
        if cudnn.benchmark != self.cudnn_benchmark:
            cudnn.benchmark = self.cudnn_benchmark
        # Not the newer `fp32_precision`: where that was set, torch's own reading of these two raises, within torch.compile
        # for one (pytorch issue 166387).
        if cudnn.allow_tf32 != self.cudnn_tf32:
            cudnn.allow_tf32 = self.cudnn_tf32
        if matmul.allow_tf32 != self.matmul_tf32:
            matmul.allow_tf32 = self.matmul_tf32


def modes_for(device: str, precision: str, threads: int) -> Modes:
    """Those that a cell is measured with: `threads` of a CPU (a GPU's host threads are left alone); fp32 is fp32."""
    before, on_gpu = current(), device == "cuda"
    tf32 = row_of(precision).tf32
    return Modes(before.threads if on_gpu else threads, on_gpu or before.cudnn_benchmark, tf32, tf32)


def current() -> Modes:
    """The process's."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    return Modes(torch.get_num_threads(), cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32)


class _Holders:
    """How many hold modes, and what there was before the first of them."""

    count = 0
    before: Modes | None = None


@contextmanager
def held(modes: Modes) -> Iterator[None]:
    """Apply `modes`. Such blocks may end in any order: with the last one, the modes from before the first come back."""
    if _Holders.count == 0:
        _Holders.before = current()
    _Holders.count += 1
    try:
        modes.apply()
        yield
    finally:
        _Holders.count -= 1
        if _Holders.count == 0 and _Holders.before is not None:
            _Holders.before.apply()
