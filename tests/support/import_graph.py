"""Who imports whom, read off the syntax trees: every import counts, also those inside functions, behind TYPE_CHECKING, and by
a name that `import_module` is given."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class Arrow:
    """`importer` (a file, relative to the root) imports `imported` in `line`; `top`: when the file itself is imported."""

    importer: str
    line: int
    imported: str
    top: bool

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


@dataclass(frozen=True)
class ImportGraph:
    """`files` maps a module's dotted name to its file below the root; `arrows` are between those files; `foreign` maps a file
    to what it imports from elsewhere, by dotted name, with the line and whether that is at the top level."""

    files: Mapping[str, str]
    arrows: tuple[Arrow, ...]
    foreign: tuple[Arrow, ...]

    @staticmethod
    def read(root: Path, packages: Sequence[str]) -> ImportGraph:
        """The graph of the Python files of `packages` below `root`."""
        files = {
            module_name(path): path for package in packages for path in sorted(_python_files(root, PurePosixPath(package)))
        }
        arrows, foreign = [], []
        for module, path in files.items():
            tree = ast.parse((root / path).read_text(encoding="utf-8"))
            for line, names, top in _imports(tree, module, path.endswith("__init__.py")):
                name = next((name for name in names if name in files), None)
                if name is None:
                    foreign.append(Arrow(path, line, names[-1], top))
                elif name != module:
                    arrows.append(Arrow(path, line, files[name], top))
        return ImportGraph(files, tuple(arrows), tuple(foreign))

    def between_files(self) -> dict[str, dict[str, Arrow]]:
        """File -> imported file -> the first arrow."""
        edges: dict[str, dict[str, Arrow]] = {path: {} for path in self.files.values()}
        for arrow in self.arrows:
            edges[arrow.importer].setdefault(arrow.imported, arrow)
        return edges

    def between_folders(self) -> dict[str, dict[str, Arrow]]:
        """Folder -> imported folder -> the first arrow."""
        edges: dict[str, dict[str, Arrow]] = {folder_of(path): {} for path in self.files.values()}
        for arrow in self.arrows:
            if folder_of(arrow.importer) != folder_of(arrow.imported):
                edges[folder_of(arrow.importer)].setdefault(folder_of(arrow.imported), arrow)
        return edges

    def loaded_by(self, path: str) -> dict[str, Arrow]:
        """What importing a file loads from elsewhere, by top-level package, with the arrow that does: its own imports at the
        top level, those of the files that it imports there, and of the packages around them."""
        loaded: dict[str, Arrow] = {}
        waiting, seen = [path], set[str]()
        inner: dict[str, list[Arrow]] = {}
        for arrow in (*self.arrows, *self.foreign):
            if arrow.top:
                inner.setdefault(arrow.importer, []).append(arrow)
        own = set(self.files.values())
        while waiting:
            file = waiting.pop()
            if file in seen:
                continue
            seen.add(file)
            waiting += [init for init in package_files(file) if init in own]
            for arrow in inner.get(file, ()):
                if arrow.imported in own:
                    waiting.append(arrow.imported)
                else:
                    loaded.setdefault(arrow.imported.split(".")[0], arrow)
        return loaded


def circles(edges: Mapping[str, Mapping[str, Arrow]]) -> list[list[Arrow]]:
    """A shortest circle of arrows for every strongly connected part; none where the graph has no circle."""
    paths = []
    left = set(edges)
    while left:
        start = min(left)
        circle = _circle_through(start, edges)
        left.discard(start)
        if circle:
            paths.append(circle)
            left -= {node for node in left if any(arrow in circle for arrow in edges[node].values())}
    return paths


def _circle_through(start: str, edges: Mapping[str, Mapping[str, Arrow]]) -> list[Arrow]:
    """A shortest way from `start` back to it, breadth first."""
    ways: list[tuple[str, list[Arrow]]] = [(start, [])]
    seen = set[str]()
    for node, way in ways:
        for target, arrow in edges[node].items():
            if target == start:
                return [*way, arrow]
            if target not in seen and target in edges:
                seen.add(target)
                ways.append((target, [*way, arrow]))
    return []


def module_name(path: str) -> str:
    """`slimtrain/base/errors.py` -> `slimtrain.base.errors`."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def folder_of(path: str) -> str:
    return str(PurePosixPath(path).parent)


def package_files(path: str) -> list[str]:
    """The `__init__.py` of every package around a file."""
    return [f"{parent}/__init__.py" for parent in PurePosixPath(path).parents if str(parent) != "."]


def _python_files(root: Path, package: PurePosixPath) -> Iterator[str]:
    for path in (root / package).rglob("*.py"):
        yield path.relative_to(root).as_posix()


def _imports(tree: ast.Module, module: str, is_package: bool) -> Iterator[tuple[int, list[str], bool]]:
    """Line, the dotted names that an import may stand for (a module, or a name in one), and whether it is at the top level."""
    lazy = {id(inner) for node in ast.walk(tree) if _is_lazy(node) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, [name.name], id(node) not in lazy
        elif isinstance(node, ast.ImportFrom):
            package = node.module or ""
            if node.level:
                around = module.split(".")[: len(module.split(".")) - node.level + is_package]
                package = ".".join([*around, *filter(None, [node.module])])
            for name in node.names:
                yield node.lineno, [f"{package}.{name.name}", package], id(node) not in lazy
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant):
                    yield node.lineno, [str(argument.value)], id(node) not in lazy


def _is_lazy(node: ast.AST) -> bool:
    """Whether what is inside does not run when the file is imported."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return True
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
