"""AutoSlim's search: from a trained network to channel counts for targets, and what is done with them.

The folder's name is that of the public function too, and importing anything of the folder puts it in the place of the name
`slimtrain.search`: so it can be called, and does what `slimtrain.search.run.search` does.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slimtrain.config.config import Config


class _Search(ModuleType):
    def __call__(self, config: Config, **options: Any) -> list[Path]:
        """A search as a function of a configuration, see `slimtrain.search.run.search`."""
        from slimtrain.search.run import search

        return search(config, **options)


sys.modules[__name__].__class__ = _Search
