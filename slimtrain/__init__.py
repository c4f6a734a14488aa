"""Slimmable networks: what they are, how they are trained, searched and read. Importing this loads no torch.

    config = slimtrain.read_config("digits")            # as `python -m slimtrain train digits`
    path = slimtrain.train(config)                      # the finished checkpoint
    network = slimtrain.open_checkpoint(path).network   # a SlimmableNetwork: `with network.at(plan): network(images)`

Public are the names in `__all__`, loaded when they are asked for (PEP 562). Everything else is internal and may change.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from slimtrain.base import threads as _threads  # noqa: F401 (before torch is imported: tells its threads how to wait)
from slimtrain.base.version import __version__

if TYPE_CHECKING:
    from slimtrain.base.errors import UserError
    from slimtrain.checkpoints.own_layout import save
    from slimtrain.config.config import Config
    from slimtrain.config.reading import read_config
    from slimtrain.detection.opening import open_checkpoint
    from slimtrain.models.channels import ChannelPlan
    from slimtrain.models.published import published_spec
    from slimtrain.models.spec import NetworkSpec
    from slimtrain.running import train
    from slimtrain.search.run import search
    from slimtrain.slimmable.calibrate import calibrate
    from slimtrain.slimmable.network import SlimmableNetwork
    from slimtrain.tracing.slimmed import make_slimmable
    from slimtrain.training.evaluate import evaluate

__all__ = [
    "ChannelPlan",
    "Config",
    "NetworkSpec",
    "SlimmableNetwork",
    "UserError",
    "__version__",
    "calibrate",
    "evaluate",
    "make_slimmable",
    "open_checkpoint",
    "published_spec",
    "read_config",
    "save",
    "search",
    "train",
]
_HOMES = {
    "ChannelPlan": "slimtrain.models.channels",
    "Config": "slimtrain.config.config",
    "NetworkSpec": "slimtrain.models.spec",
    "SlimmableNetwork": "slimtrain.slimmable.network",
    "UserError": "slimtrain.base.errors",
    "calibrate": "slimtrain.slimmable.calibrate",
    "evaluate": "slimtrain.training.evaluate",
    "make_slimmable": "slimtrain.tracing.slimmed",
    "open_checkpoint": "slimtrain.detection.opening",
    "published_spec": "slimtrain.models.published",
    "read_config": "slimtrain.config.reading",
    "save": "slimtrain.checkpoints.own_layout",
    "train": "slimtrain.running",
}


def __getattr__(name: str) -> Any:
    if name == "search":  # the folder of that name: calling it is the search, see there
        return importlib.import_module("slimtrain.search")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
