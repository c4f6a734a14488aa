"""TensorRT's timing cache on disk: how long each way of computing a layer took, so that no build measures it again.

One file per GPU, TensorRT, CUDA and those builder flags that change what is measured; all networks and widths share
it. The file begins with a line of ours and the SHA-256 of TensorRT's bytes: a damaged one never reaches TensorRT.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slimexport.target.cuda.device import GpuDevice
from slimexport.target.timings.cache_folder import cache_folder
from slimtrain.base.errors import UserError
from slimtrain.base.files import write_atomically
from slimtrain.base.untrusted.opening import read_file
from slimtrain.base.untrusted.quoting import reason

log = logging.getLogger(__name__)

MAGIC = b"slimexport timing cache 1\n"
DIGEST_BYTES = 32
MOST_BYTES = 1 << 30
COLD, WARM, DISCARDED = "cold", "warm", "discarded"


def cache_path(device: GpuDevice, tensorrt: str, flags: Sequence[str] = (), folder: Path | None = None) -> Path:
    """The file for a GPU, a TensorRT version and builder `flags`."""
    parts = [device.gpu, f"trt{tensorrt}", f"cuda{device.cuda}", *sorted(flags)]
    name = "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", part).strip("_") for part in parts)
    return (folder or cache_folder()) / f"{name}.timing"


class TimingCache:
    """The cache at `path`. Nothing that is wrong with it stops a build; `state` says what was found at the last one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = COLD

    def attach(self, config: Any) -> None:
        """Give the stored measurements, or none, to a builder's configuration."""
        content = self.read()
        if content:
            cache = config.create_timing_cache(content)
            empty = _bytes_of(config.create_timing_cache(b""))
            held = content == empty or _bytes_of(cache) != empty  # of bytes that it cannot read TensorRT makes an empty one
            if cache is not None and held and config.set_timing_cache(cache, False):
                self.state = COLD if content == empty else WARM
                return
            self._discard("TensorRT does not take it")
        cache = config.create_timing_cache(b"")
        if cache is None or not config.set_timing_cache(cache, False):
            log.warning("TensorRT makes no timing cache here: builds take longer")

    def read(self) -> bytes:
        """TensorRT's bytes; none where there is no file or it is damaged."""
        self.state = COLD
        try:
            stored = read_file(self.path, MOST_BYTES)
        except FileNotFoundError:
            return b""
        except OSError as error:
            log.warning("timing cache %s cannot be read (%s): builds take longer", self.path, reason(error))
            return b""
        start = len(MAGIC) + DIGEST_BYTES
        content = stored[start:]
        if not stored.startswith(MAGIC) or hashlib.sha256(content).digest() != stored[len(MAGIC) : start] or not content:
            self._discard("it is damaged")
            return b""
        return content

    def _discard(self, reason: str) -> None:
        self.state = DISCARDED
        log.warning("timing cache %s is discarded, %s: this build measures anew", self.path, reason)

    def keep(self, config: Any) -> None:
        """Store what a build has measured."""
        content = _bytes_of(config.get_timing_cache())
        if not content:
            return
        try:
            write_atomically(self.path, MAGIC + hashlib.sha256(content).digest() + content)
        except UserError as error:
            log.warning("timing cache %s cannot be written (%s): the next build takes as long", self.path, error)


def _bytes_of(cache: Any) -> bytes:
    """What a cache of TensorRT's holds; nothing of none, or of one that cannot be written down."""
    serialized = None if cache is None else cache.serialize()
    return b"" if serialized is None else bytes(serialized)
