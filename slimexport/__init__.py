"""Every width of a slimmable network as an ordinary, small, verified network.

    slimexport.export("us_mbv1.pt", widths=[0.5, 1.0])              # a bundle on disk; its manifest comes back
    slimexport.materialize("us_mbv1.pt", width=0.5)                 # an nn.Module of torch.nn layers

And without torch, where the networks run:

    slimexport.read_manifest("exports/us_mobilenet_v1")             # what a bundle holds
    slimexport.verify_bundle("exports/us_mobilenet_v1")             # its files, proven again
    slimexport.build_engines("exports/us_mobilenet_v1")             # TensorRT engines beside them
    slimexport.open_network("exports/us_mobilenet_v1", 0.5)         # runs one: numpy in, numpy out
    slimexport.Runtime("exports/us_mobilenet_v1", slo_ms=50)        # serves all, as wide as the load leaves time for

The names in `__all__` are public: these functions, and the values that group their less common arguments. Everything else is
internal, and may change. Importing this loads nothing; torch is loaded by `export` and `materialize` alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from slimtrain.base.version import __version__

if TYPE_CHECKING:
    from slimexport.bundle import open_network, verify_bundle
    from slimexport.dense import materialize
    from slimexport.detectors.form import Detecting
    from slimexport.exporter import export
    from slimexport.request import CalibrationImages, Proof, Reading, Writing
    from slimexport.target.manifest import read_manifest
    from slimexport.target.serving.runtime import Runtime
    from slimexport.target.tensorrt.build_settings import BatchRange, BuildSettings
    from slimexport.target.tensorrt.engines import build_engines

__all__ = [
    "BatchRange",
    "BuildSettings",
    "CalibrationImages",
    "Detecting",
    "Proof",
    "Reading",
    "Runtime",
    "Writing",
    "__version__",
    "build_engines",
    "export",
    "materialize",
    "open_network",
    "read_manifest",
    "verify_bundle",
]

# Where the public names are defined: a module is loaded once its name is asked for.
HOMES = {
    "export": "slimexport.exporter",
    "materialize": "slimexport.dense",
    **dict.fromkeys(("CalibrationImages", "Proof", "Reading", "Writing"), "slimexport.request"),
    "Detecting": "slimexport.detectors.form",
    **dict.fromkeys(("open_network", "verify_bundle"), "slimexport.bundle"),
    "read_manifest": "slimexport.target.manifest",
    "Runtime": "slimexport.target.serving.runtime",
    **dict.fromkeys(("BatchRange", "BuildSettings"), "slimexport.target.tensorrt.build_settings"),
    "build_engines": "slimexport.target.tensorrt.engines",
}


def __getattr__(name: str) -> Any:
    if name in HOMES:
        return getattr(importlib.import_module(HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
