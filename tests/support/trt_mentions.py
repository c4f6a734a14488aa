"""Which names of TensorRT the code mentions, and on which versions each mention is reached.

The code's own rules make this readable off its text: the module is called `trt`, its objects have the names of `OWNERS`,
and what a version may lack stands behind `hasattr(...)` or `strongly_typed(trt)`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

OWNERS = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "parser_error": "ParserError",
    "profile": "IOptimizationProfile",
    "tensor": "ITensor",
    "cache": "ITimingCache",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "inspector": "EngineInspector",
}
MODULE = "tensorrt"
Inventories = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Mention:
    owner: str  # a class, or the module
    name: str
    versions: tuple[str, ...]
    line: int


def owner_of(node: ast.expr) -> str | None:
    """The class or module that an expression is, where its text says so."""
    word = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    if isinstance(node, ast.Attribute) and owner_of(node.value) == MODULE and word[:1].isupper():
        return word
    if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "job")):
        return None
    return MODULE if word in ("trt", "tensorrt") else OWNERS.get(word)


def has(inventory: dict[str, Any], owner: str, name: str) -> bool:
    return name in inventory if owner == MODULE else name in (inventory.get(owner) or ())


class Reader:
    """Collects the mentions of one module."""

    def __init__(self, inventories: Inventories) -> None:
        self.inventories = inventories

    def mentions(self, source: str) -> list[Mention]:
        return list(self.block(ast.parse(source).body, tuple(self.inventories)))

    def holds(self, test: ast.expr, version: str) -> bool | None:
        """What a condition is on a version; None if that depends on more."""
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            inner = self.holds(test.operand, version)
            return None if inner is None else not inner
        if isinstance(test, ast.BoolOp):
            values = [self.holds(value, version) for value in test.values]
            decisive = isinstance(test.op, ast.Or)
            if decisive in values:
                return decisive
            return None if None in values else not decisive
        if isinstance(test, ast.Call) and isinstance(test.func, ast.Name):
            if test.func.id == "strongly_typed":
                return has(self.inventories[version], "NetworkDefinitionCreationFlag", "STRONGLY_TYPED")
            if test.func.id == "hasattr" and (owner := owner_of(test.args[0])) is not None:
                name = test.args[1]
                assert isinstance(name, ast.Constant)
                return has(self.inventories[version], owner, str(name.value))
        return None

    def but(self, test: ast.expr, value: bool, versions: Sequence[str]) -> tuple[str, ...]:
        """The versions on which a condition may be `value`."""
        return tuple(version for version in versions if self.holds(test, version) is not (not value))

    def block(self, statements: Sequence[ast.stmt], versions: tuple[str, ...]) -> Iterator[Mention]:
        for statement in statements:
            yield from self.visit(statement, versions)
            if isinstance(statement, ast.Assert):
                versions = self.but(statement.test, True, versions)
            if isinstance(statement, ast.If) and isinstance(statement.body[-1], ast.Return | ast.Raise):
                versions = self.but(statement.test, False, versions)

    def visit(self, node: ast.AST, versions: tuple[str, ...]) -> Iterator[Mention]:
        if isinstance(node, ast.If | ast.IfExp):
            yield from self.visit(node.test, versions)
            for part, holds in ((node.body, True), (node.orelse, False)):
                reached = self.but(node.test, holds, versions)
                yield from self.block(part, reached) if isinstance(part, list) else self.visit(part, reached)
            return
        if isinstance(node, ast.BoolOp):
            for value in node.values:
                yield from self.visit(value, versions)
                versions = self.but(value, isinstance(node.op, ast.And), versions)
            return
        if isinstance(node, ast.Attribute) and (owner := owner_of(node.value)) is not None:
            yield Mention(owner, node.attr, versions, node.lineno)
        for _, child in ast.iter_fields(node):
            if isinstance(child, list) and child and isinstance(child[0], ast.stmt):
                yield from self.block(child, versions)
            else:
                for part in child if isinstance(child, list) else [child]:
                    if isinstance(part, ast.AST):
                        yield from self.visit(part, versions)
