"""Every width of a slimmable network as an ordinary, small, verified network. Importing this loads no torch.

slimexport.materialize("us_mbv1.pt", width=0.5)    # an nn.Module of torch.nn layers
slimexport.export("us_mbv1.pt", widths=[0.5, 1.0]) # a bundle on disk; returns its manifest
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from slimtrain.base.version import __version__

if TYPE_CHECKING:
    from slimexport.dense import materialize
    from slimexport.exporter import export

__all__ = ["__version__", "export", "materialize"]


def __getattr__(name: str) -> Any:
    if name == "materialize":
        from slimexport.dense import materialize

        return materialize
    if name == "export":
        from slimexport.exporter import export

        return export
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
