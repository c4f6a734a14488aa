"""The house rules, computed from the syntax trees: sizes of folders and files, one way for imports, no torch where none is
promised, tests that mirror the packages. A rule that is broken names the offending line."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from slimtrain.base.packages import is_installed
from tests.support import ROOT
from tests.support.import_graph import Arrow, ImportGraph, circles, folder_of, module_name

PACKAGES = ("slimtrain", "slimexport", "benchmarks")
MOST_FILES, MOST_LINES = 16, 400

# From the ground up: a folder imports folders before it. docs/design.md says what each holds.
FLOORS = (
    "slimtrain/base/untrusted",
    "slimtrain/base/process",
    "slimtrain/base",
    "slimtrain/base/folders",
    "slimtrain/graph",
    "slimtrain/graph/labels",
    "slimtrain/models",
    "slimtrain/groups",
    "slimtrain/costs",
    "slimtrain/slimmable",
    "slimtrain/data",
    "slimtrain/data/detection",
    "slimtrain/config",
    "slimtrain/checkpoints/files",
    "slimtrain/checkpoints",
    "slimtrain/tracing/doubles",
    "slimtrain/tracing",
    "slimtrain/detection",
    "slimtrain/detection/fixed",
    "slimtrain/detection/losses",
    "slimtrain/training/records",
    "slimtrain/training",
    "slimtrain/detection/training",
    "slimtrain/search",
    "slimtrain",
    "slimexport/target",
    "slimexport/target/inside",
    "slimexport/target/proof",
    "slimexport/target/cuda",
    "slimexport/target/timings",
    "slimexport/target/tensorrt",
    "slimexport/target/serving",
    "slimexport/target/serving/http",
    "slimexport/target/serving/ray_app",
    "slimexport/serving",
    "slimexport/target/serving/triton",
    "slimexport/references",
    "slimexport/onnx_files/operators",
    "slimexport/onnx_files",
    "slimexport/onnx_files/parts",
    "slimexport/onnx_files/layer_proof",
    "slimexport/detector_proof",
    "slimexport/detector_proof/near",
    "slimexport/probes",
    "slimexport/detectors",
    "slimexport",
    "benchmarks/cells",
    "benchmarks/machine",
    "benchmarks/onnx_models",
    "benchmarks/measure",
    "benchmarks/runners",
    "benchmarks/runners/torch",
    "benchmarks/ceilings",
    "benchmarks/report",
    "benchmarks/report/plots",
    "benchmarks/layers",
    "benchmarks/load",
    "benchmarks/studies/searching",
    "benchmarks/studies/any_network",
    "benchmarks/studies/quantizing",
    "benchmarks/studies",
    "benchmarks/studies/zoo",
    "benchmarks/studies/consumers",
    "benchmarks/studies/onnxruntimes",
    "benchmarks/studies/defects",
    "benchmarks/studies/serving",
    "benchmarks/studies/layouts",
    "benchmarks/studies/detection",
    "benchmarks",
)
# What is beyond the standard library and may be loaded by importing any file of a folder. No torch in any of them.
LIGHT = {
    "slimtrain/base": {"click", "yaml"},
    "slimtrain/base/untrusted": set[str](),
    "slimtrain/base/process": set[str](),
    "slimtrain/base/folders": set[str](),
    "slimtrain/models": {"numpy", "yaml", "click"},
    "slimtrain/graph": {"numpy"},
    "slimtrain/graph/labels": {"numpy"},
    "slimtrain/groups": {"numpy", "yaml", "click"},
    "slimtrain/costs": {"numpy", "yaml", "click"},
    "slimtrain/config": {"numpy", "yaml", "click"},
    "slimexport/target": {"numpy"},
    "slimexport/target/inside": {"numpy"},
    "slimexport/target/proof": {"numpy"},
    "slimexport/target/cuda": {"numpy"},
    "slimexport/target/timings": {"numpy"},
    "slimexport/target/tensorrt": {"numpy"},
    "slimexport/target/serving": {"numpy"},
    "slimexport/target/serving/http": {"numpy", "prometheus_client", "starlette", "uvicorn"},
    "slimexport/target/serving/ray_app": {"numpy"},
    "slimexport/serving": {"click", "numpy"},
    "slimexport/target/serving/triton": {"numpy"},
}
LIGHT_FILES = {
    "slimtrain/__init__.py": set[str](),
    "slimtrain/cli.py": {"click", "yaml"},
    "slimtrain/data/catalog.py": set[str](),
    "slimtrain/data/image_files.py": {"numpy"},
    "slimtrain/data/images.py": {"numpy"},
    "slimtrain/data/noise.py": {"numpy"},
    "slimtrain/data/opening.py": {"numpy"},
    "slimtrain/data/sampling.py": {"numpy"},
    "slimtrain/search/from_plans.py": {"click", "numpy", "yaml"},
    "slimtrain/search/greedy.py": {"click", "numpy", "yaml"},
    "slimtrain/search/slimming.py": {"click", "numpy", "yaml"},
    "slimtrain/search/supernet.py": {"click", "numpy", "yaml"},
    "slimtrain/search/trace.py": {"click", "numpy", "yaml"},
    "slimexport/__init__.py": set[str](),
    "slimexport/bundle.py": {"click", "numpy", "yaml"},
    "slimexport/cli.py": {"click", "yaml"},
    "slimexport/serving/options.py": {"click"},
    "slimexport/commands.py": {"click", "numpy", "yaml"},
    "slimexport/detectors/form.py": {"click", "yaml"},
    "slimexport/detectors/options.py": {"click", "yaml"},
    "slimexport/detectors/pasting.py": {"click", "numpy", "yaml"},
    "slimexport/detectors/predicting.py": {"click", "numpy", "yaml"},
    "slimexport/environment.py": {"click", "numpy", "yaml"},
    "slimexport/predict.py": {"click", "numpy", "yaml"},
    "slimexport/report.py": {"click", "numpy", "yaml"},
    "slimexport/request.py": {"click", "yaml"},
    "benchmarks/cli.py": {"click"},
    "benchmarks/commands.py": {"click", "numpy"},
}
# What of slimtrain the target side may use: a board has neither PyYAML nor torch.
GROUND = {
    "slimtrain/__init__.py",
    *(f"slimtrain/base/{name}.py" for name in ("__init__", "errors", "files", "image_size", "packages", "text", "version")),
    *(f"slimtrain/base/folders/{name}.py" for name in ("__init__", "claim", "replacing")),
    *(f"slimtrain/base/process/{name}.py" for name in ("__init__", "leaving", "memory")),
    *(f"slimtrain/base/untrusted/{name}.py" for name in ("__init__", "json_text", "opening", "quoting", "zip_members")),
}
OPTIONAL = {"onnxruntime", "openvino", "tensorrt", "triton_python_backend_utils"}
SERVERS = {  # an extra's, there alone
    "slimexport/target/serving/http": {"prometheus_client", "starlette", "uvicorn"},
    "slimexport/target/serving/ray_app": {"click", "ray"},
}


@pytest.fixture(scope="module")
def graph() -> ImportGraph:
    return ImportGraph.read(ROOT, PACKAGES)


def lines(arrows: list[Arrow]) -> str:
    return "\n".join(map(str, arrows))


# --------------------------------------------------------------------------------------------------------------- sizes


def test_no_folder_holds_too_many_files() -> None:
    for package in PACKAGES:
        for folder in [ROOT / package, *filter(Path.is_dir, (ROOT / package).rglob("*"))]:
            files = sorted(path.name for path in folder.glob("*.py"))
            assert len(files) <= MOST_FILES, f"{folder.relative_to(ROOT)} holds {len(files)} files: {', '.join(files)}"


def test_no_file_is_too_long(graph: ImportGraph) -> None:
    for path in graph.files.values():
        length = len((ROOT / path).read_text(encoding="utf-8").splitlines())
        assert length <= MOST_LINES, f"{path}:{MOST_LINES + 1} is beyond the longest file, it has {length} lines"


def test_every_folder_and_file_says_what_it_is(graph: ImportGraph) -> None:
    for path in graph.files.values():
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), f"{path}:1 has no docstring"


# ------------------------------------------------------------------------------------------------------------- imports


def test_no_file_is_in_a_circle_of_imports(graph: ImportGraph) -> None:
    assert not (rings := circles(graph.between_files())), "\n\n".join(map(lines, rings))


def test_no_folder_is_in_a_circle_of_imports(graph: ImportGraph) -> None:
    assert not (rings := circles(graph.between_folders())), "\n\n".join(map(lines, rings))


def test_every_folder_has_its_floor(graph: ImportGraph) -> None:
    assert {folder_of(path) for path in graph.files.values()} == set(FLOORS)


def test_the_design_has_a_line_for_every_folder() -> None:
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    sections = {package: design.split(f"| `{package}/` |")[1].split("\n\n")[0] for package in PACKAGES}
    for folder in set(FLOORS) - set(PACKAGES):
        package, _, inner = folder.partition("/")
        assert f"`{inner}/`" in sections[package], f"docs/design.md has no line for {folder}"


def test_imports_go_down(graph: ImportGraph) -> None:
    floor = {folder: number for number, folder in enumerate(FLOORS)}
    up = [arrow for arrow in graph.arrows if floor[folder_of(arrow.importer)] < floor[folder_of(arrow.imported)]]
    assert not up, lines(up)


def test_packages_import_in_one_direction(graph: ImportGraph) -> None:
    below = {"slimtrain": {"slimtrain"}, "slimexport": {"slimtrain", "slimexport"}, "benchmarks": set(PACKAGES)}
    wrong = [arrow for arrow in graph.arrows if arrow.imported.split("/")[0] not in below[arrow.importer.split("/")[0]]]
    assert not wrong, lines(wrong)


def test_the_target_side_uses_the_ground_floor_of_slimtrain_only(graph: ImportGraph) -> None:
    wrong = [
        arrow
        for arrow in graph.arrows
        if arrow.importer.startswith("slimexport/target/")
        and not arrow.imported.startswith("slimexport/target/")
        and arrow.imported not in GROUND
    ]
    assert not wrong, lines(wrong)


def test_the_target_side_knows_its_backends_and_numpy_only(graph: ImportGraph) -> None:
    allowed = {*sys.stdlib_module_names, "numpy", *OPTIONAL}
    wrong = [
        arrow
        for arrow in graph.foreign
        if arrow.importer.startswith("slimexport/target/")
        and arrow.imported.split(".")[0] not in allowed | SERVERS.get(folder_of(arrow.importer), set())
    ]
    assert not wrong, lines(wrong)


# ------------------------------------------------------------------------------------------------------------ no torch


def light_files(graph: ImportGraph) -> dict[str, set[str]]:
    whole = {path: LIGHT[folder_of(path)] for path in graph.files.values() if folder_of(path) in LIGHT}
    return {**whole, **LIGHT_FILES}


def test_what_needs_no_torch_loads_none(graph: ImportGraph) -> None:
    for path, allowed in light_files(graph).items():
        for name, arrow in graph.loaded_by(path).items():
            assert name in {*sys.stdlib_module_names, *allowed}, f"importing {path} loads {name}: {arrow}"


def test_it_is_true_of_a_process_that_cannot_import_torch(graph: ImportGraph) -> None:
    """What the syntax trees promise, tried: None in sys.modules makes an import fail."""
    heavy = ("torch", "torchvision", "onnx", "onnxruntime", "openvino", "tensorrt", "safetensors", "matplotlib")
    here = {folder for folder, packages in SERVERS.items() if all(map(is_installed, packages))}
    paths = [path for path in light_files(graph) if folder_of(path) not in SERVERS.keys() - here]
    names = [module_name(path) for path in paths if not path.endswith("__main__.py")]
    code = (
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({heavy!r}))\n"
        "for name in sys.argv[1:]:\n    importlib.import_module(name)\n"
        f"print([name for name in {heavy!r} if sys.modules[name] is not None])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, *names], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "[]\n"), ran.stderr


def test_the_barrier_bites(graph: ImportGraph) -> None:
    assert "torch" in graph.loaded_by("slimtrain/slimmable/network.py")
    assert "torch" in graph.loaded_by("slimtrain/checkpoints/reading.py")
    assert "torch" not in graph.loaded_by("slimtrain/cli.py")


# --------------------------------------------------------------------------------------------------------------- tests


def test_tests_mirror_the_packages(graph: ImportGraph) -> None:
    """tests/PACKAGE/FOLDER/test_MODULE.py or test_MODULE_TOPIC.py; commands end to end in tests/PACKAGE/test_cli_TOPIC.py."""
    for package in PACKAGES:
        for path in sorted((ROOT / "tests" / package).rglob("test_*.py")):
            folder = path.parent.relative_to(ROOT / "tests").as_posix()
            modules = {Path(file).stem for file in graph.files.values() if folder_of(file) == folder} | {"init"}
            topic = path.stem.removeprefix("test_")
            assert any(topic == module or topic.startswith(f"{module}_") for module in modules), (
                f"{path.relative_to(ROOT)}:1 mirrors no module of {folder}, whose modules are {', '.join(sorted(modules))}"
            )


def test_no_test_imports_another_one() -> None:
    tests = ImportGraph.read(ROOT, ["tests"])
    wrong = [arrow for arrow in tests.arrows if Path(arrow.imported).name.startswith("test_")]
    assert not wrong, lines(wrong)
    for path in (ROOT / "tests").rglob("*.py"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            assert "sys.path.insert" not in line.replace('"sys.path.insert" not in', ""), f"{path.relative_to(ROOT)}:{number}"


VAGUE = re.compile(r"(.*_)?(found|made|told|each)(_.*)?", re.IGNORECASE)
WORDS = {"made_for", "MADE_UP"}  # a field's name, and what tests call machines that are not there


def test_what_is_named_is_named_by_a_noun() -> None:
    """`found` says that something was, not what it is."""
    for package in (*PACKAGES, "tests"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                name = ""
                if isinstance(node, ast.arg):
                    name = node.arg
                elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    name = node.id
                assert name in WORDS or not VAGUE.fullmatch(name), f"{path.relative_to(ROOT)}: {name}"


# ---------------------------------------------------------------------------------------------- that these rules bite


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A package in which every rule of imports is broken."""
    for name, content in {
        "p/__init__.py": "",
        "p/low/__init__.py": "",
        "p/low/a.py": "import json\n\n\ndef later():\n    from p.high import b\n    return b\n",
        "p/low/c.py": "from . import a\n",
        "p/low/e.py": "import importlib\n\n\ndef later():\n    return importlib.import_module('torch')\n",
        "p/high/__init__.py": "",
        "p/high/b.py": "from p.low.c import a\nimport torch\n",
        "p/high/d.py": "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from p.low.a import later\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def test_an_import_inside_a_function_closes_a_circle(house: Path) -> None:
    house_graph = ImportGraph.read(house, ["p"])
    (circle,) = circles(house_graph.between_files())
    assert sorted(map(str, circle)) == [
        "p/high/b.py:1 imports p/low/c.py",
        "p/low/a.py:5 imports p/high/b.py",
        "p/low/c.py:1 imports p/low/a.py",
    ]
    (between,) = circles(house_graph.between_folders())
    assert {str(arrow) for arrow in between} == {"p/high/b.py:1 imports p/low/c.py", "p/low/a.py:5 imports p/high/b.py"}


def test_what_a_file_loads_is_followed_but_not_into_functions(house: Path) -> None:
    house_graph = ImportGraph.read(house, ["p"])
    assert set(house_graph.loaded_by("p/high/b.py")) == {"torch", "json"}
    assert set(house_graph.loaded_by("p/low/c.py")) == {"json"}
    assert str(house_graph.loaded_by("p/high/b.py")["torch"]) == "p/high/b.py:2 imports torch"
    assert set(house_graph.loaded_by("p/high/d.py")) == {"typing"}
    assert [str(arrow) for arrow in house_graph.foreign if arrow.importer == "p/low/e.py"] == [
        "p/low/e.py:1 imports importlib",
        "p/low/e.py:5 imports torch",
    ]


def test_a_tree_without_circles_has_none(house: Path) -> None:
    (house / "p" / "low" / "a.py").write_text("import json\n")
    house_graph = ImportGraph.read(house, ["p"])
    assert circles(house_graph.between_files()) == circles(house_graph.between_folders()) == []
