"""What all tests of slimtrain share."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _pictures_are_not_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are made but not rendered, which took a third of the time of the runs that tests train. The tests of pictures
    have a fixture of the same name that lets them be."""
    if importlib.util.find_spec("matplotlib") is None:
        return
    from matplotlib.figure import Figure

    def savefig(self: Figure, file: Any, **options: Any) -> None:
        if hasattr(file, "write"):
            file.write(b"a picture")
        else:
            raise AssertionError(f"{file}: pictures are written by write_atomically")

    monkeypatch.setattr(Figure, "savefig", savefig)
