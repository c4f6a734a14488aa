"""Who may import whom: no torch for a start or a target, and arrows in one direction only."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.export_helpers import python, run, write_checkpoint

# Beside numpy, click and onnxruntime: what a board lacks that had `pip install --no-deps .`
HEAVY = ("torch", "torchvision", "onnx", "yaml", "tqdm", "safetensors", "PIL", "scipy")


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports anywhere, in functions and `if TYPE_CHECKING` too; dotted, absolute."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__", "find_spec")):
            yield from (str(argument.value) for argument in node.args[:1] if isinstance(argument, ast.Constant))


def files(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found
    return found


def test_the_training_package_does_not_know_the_export_package() -> None:
    for path in files("slimtrain"):
        assert not [name for name in imports(path) if name.split(".")[0] in ("slimexport", "benchmarks")], path


def test_the_export_package_does_not_know_the_benchmarks() -> None:
    for path in files("slimexport"):
        assert not [name for name in imports(path) if name.split(".")[0] == "benchmarks"], path


def test_the_target_imports_the_standard_library_numpy_its_backends_and_itself() -> None:
    allowed = {*sys.stdlib_module_names, "numpy", "onnxruntime", "tensorrt"}
    own = ("slimexport.target", *(f"slimtrain.base.{name}" for name in ("errors", "files", "text")))
    for path in files("slimexport/target"):
        for name in imports(path):
            assert name.split(".")[0] in allowed or name.startswith(own), f"{path}: {name}"


@pytest.mark.parametrize("module", ["slimexport", "slimexport.cli", "slimtrain", "slimexport.target.verify"])
def test_importing_loads_no_torch(module: str) -> None:
    code = f"import {module}\nprint([m for m in sys.modules if m.split('.')[0] in {HEAVY!r} and sys.modules[m] is not None])"
    free = python(code)
    assert free.stdout.strip() == "[]", free.stdout + free.stderr
    assert python(code, without=HEAVY).returncode == 0


def test_every_target_module_imports_without_torch_and_onnx() -> None:
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files("slimexport/target")]
    code = "import importlib\nfor name in sys.argv[1:]:\n    importlib.import_module(name.removesuffix('.__init__'))"
    done = python(code, *modules, without=(*HEAVY, "onnxruntime", "tensorrt", "click"))
    assert done.returncode == 0, done.stderr


def test_a_bundle_is_verified_end_to_end_without_torch_and_onnx(tmp_path: Path) -> None:
    """By the library and by the command, in a process that has numpy, click and onnxruntime only."""
    checkpoint = write_checkpoint(tmp_path / "x.pt")
    assert run("--ckpt", checkpoint, "--image-size", "64", "--output-dir", tmp_path / "b").code == 0
    code = """
from pathlib import Path
from slimexport.target.manifest import read_manifest
from slimexport.target.verify import verify_bundle

bundle = Path(sys.argv[1])
print([verification.status for _, verification in verify_bundle(bundle, read_manifest(bundle))])
from slimexport.cli import main
main(["--bundle", sys.argv[1], "--verify-only"], prog_name="slimexport")
"""
    done = python(code, tmp_path / "b", without=HEAVY)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "['passed', 'passed']"
    assert [line.split()[0] for line in lines[2:4]] == ["0.25", "0.5"]


def test_packages_say_that_they_are_typed() -> None:
    for package in ("slimexport", "slimtrain"):
        assert (ROOT / package / "py.typed").exists()
