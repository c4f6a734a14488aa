"""What all tests of slimtrain share."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import IO, Any

import pytest


@pytest.fixture(autouse=True, scope="module")
def _pictures_are_not_rendered() -> Iterator[None]:
    """Pictures are made but not rendered, which took a third of the time of the runs that tests train. The tests of pictures
    have a fixture of the same name that lets them be."""
    if importlib.util.find_spec("matplotlib") is None:
        yield
        return
    from matplotlib.figure import Figure

    def savefig(self: Figure, file: IO[bytes], **options: Any) -> None:
        file.write(b"a picture")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", savefig)
        yield
