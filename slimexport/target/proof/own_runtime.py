"""What a file runs in: the library and the processor. The same ones give the same numbers, to the last bit."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

from slimexport.target.backends import CPU
from slimexport.target.runners import require_onnxruntime

TELLING = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features", "CPU implementer", "CPU part")
DIGITS = 16  # of a hash


def own_runtime(backend: str, root: Path = Path("/")) -> str | None:
    """What runs files here in `backend`, onnxruntime on a CPU, as manifests tell it; None of another backend, and where the
    system does not tell the processor. How many threads there are makes no difference to onnxruntime's results."""
    if backend != CPU or (processor := _processor(root)) is None:
        return None
    onnxruntime = require_onnxruntime()
    return f"onnxruntime {onnxruntime.__version__}, {platform.system()} {platform.machine()}, {processor}"


def _processor(root: Path) -> str | None:
    """The processor's name, and a hash of what it can do: kernels are chosen by that."""
    try:
        lines = (root / "proc/cpuinfo").read_text(errors="replace").split("\n\n")[0].splitlines()
    except OSError:
        return None
    entries = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    known = [entries[key] for key in TELLING if key in entries]
    if not known:
        return None
    return f"{entries.get('model name', 'CPU')[:80]} ({hashlib.sha256(' '.join(known).encode()).hexdigest()[:DIGITS]})"
