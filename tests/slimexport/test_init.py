"""The public names of slimexport: there when asked for, documented by examples that run, loading no more than they need."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

import slimexport
from tests.support import ROOT
from tests.support.doc_examples import run_examples
from tests.support.export_helpers import python
from tests.support.trt_helpers import machine

FUNCTIONS = ("build_engines", "export", "materialize", "open_network", "read_manifest", "verify_bundle")
WITHOUT_TORCH = [name for name in slimexport.__all__ if name not in ("export", "materialize", "__version__")]


def test_the_names_are_these() -> None:
    assert set(FUNCTIONS) <= set(slimexport.__all__)
    assert set(slimexport.__all__) <= set(dir(slimexport))
    for name in slimexport.__all__:
        assert getattr(slimexport, name) is not None
        assert name == "__version__" or name in (slimexport.__doc__ or "") or inspect.isclass(getattr(slimexport, name))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        slimexport.nothing  # noqa: B018


def test_what_is_public_is_documented() -> None:
    for name in slimexport.__all__:
        if name != "__version__":
            assert len(inspect.getdoc(getattr(slimexport, name)) or "") > 80, name
    assert "internal" in (slimexport.__doc__ or "")


@pytest.mark.parametrize("name", [name for name in slimexport.__all__ if name != "__version__"])
def test_the_example_in_its_docstring_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands there, in an empty folder; engines by a stand-in of TensorRT."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    machine(monkeypatch)
    assert run_examples(inspect.getdoc(getattr(slimexport, name)) or "", name) >= (3 if name in FUNCTIONS else 2)


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_a_name_of_the_target_loads_no_torch(name: str) -> None:
    done = python(f"from slimexport import {name}\nprint('torch' in sys.modules)", without=["onnx", "torchvision"])
    assert done.stdout.strip() == "False", done.stdout + done.stderr


def test_importing_the_package_loads_none_of_its_modules() -> None:
    code = (
        "import slimexport\nprint(sorted(n for n in sys.modules if n.startswith(('slimexport', 'numpy', 'torch', 'click'))))"
    )
    assert python(code).stdout.strip() == "['slimexport']"


def test_every_home_defines_its_names() -> None:
    for name, home in slimexport.HOMES.items():
        assert getattr(importlib.import_module(home), name).__module__ == home


def test_packages_say_that_they_are_typed() -> None:
    for package in ("slimexport", "slimtrain"):
        assert (ROOT / package / "py.typed").exists()
