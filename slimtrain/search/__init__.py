"""AutoSlim's search: from a trained network to channel counts for targets, and what is done with them.

    search(config, *, ckpt=None, output_dir=None, resume=False) -> plan files, by descending target

Importing anything of this folder puts it in the place of the public name `slimtrain.search`, so it can be called, and does
what `slimtrain.search.run.search` does, which explains the arguments.

>>> import slimtrain
>>> changes = ["data=fake", "epochs=3", "search_widths=[0.15, 0.2]", "search_holdout=64", "search_finish=false"]
>>> config = slimtrain.read_config("digits", [*changes, "search_targets=[550K]"])
>>> plans = slimtrain.search(config, output_dir="runs/found")  # doctest: +ELLIPSIS
us_mobilenet_v1, widths 0.15 to 0.2: 64 images to train, 64 to test, 10 classes
...
>>> [plan.name for plan in plans]
['macs_550K.yml']
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slimtrain.config.config import Config


class _CallableFolder(ModuleType):
    def __call__(
        self,
        config: Config,
        *,
        ckpt: str | Path | None = None,
        output_dir: str | Path | None = None,
        resume: bool = False,
        weights: str | None = None,
    ) -> list[Path]:
        """A search as a function of a configuration, see `slimtrain.search.run.search`."""
        from slimtrain.search.run import search

        return search(config, ckpt=ckpt, output_dir=output_dir, resume=resume, weights=weights)


sys.modules[__name__].__class__ = _CallableFolder
