"""What a module gives out, read off torch's description of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.utils import _pytree as pytree

from slimtrain.graph.structure import DICTIONARY, LIST, NOTHING, TUPLE, Structure, usual_structure


def exported_structure(program: ExportedProgram) -> Structure | None:
    """What the outputs of a program stand in; None for nothing, or a tuple."""
    spec = program.call_spec.out_spec
    if spec is None:
        return None
    user = (part for part in program.graph_signature.output_specs if part.kind == OutputKind.USER_OUTPUT)
    structure = _structure(spec, (getattr(part.arg, "value", 0) is None for part in user))
    return None if structure == usual_structure(structure.tensors) else structure


def _structure(spec: Any, nothing: Iterator[bool]) -> Structure:
    """`nothing`: of every leaf that is left whether it is None."""
    if spec.is_leaf():
        return Structure(NOTHING) if next(nothing) else Structure()
    parts = tuple(_structure(child, nothing) for child in spec.children())
    keys = _keys(spec, len(parts))
    named = isinstance(spec.type, type) and (issubclass(spec.type, Mapping) or dataclasses.is_dataclass(spec.type))
    if named and len(keys) == len(parts):
        return Structure(DICTIONARY, parts, keys)
    return Structure(LIST if spec.type is list else TUPLE, parts, keys)


def _keys(spec: Any, count: int) -> tuple[str | int, ...]:
    """The keys of a dictionary, the names of a named tuple or a dataclass; none where they are no text or whole numbers.
    torch keeps them alone, or after a default, or before the names of what is None."""
    context = spec.context
    fields = getattr(context, "_fields", None)
    candidates = [fields, context, *(context if isinstance(context, list | tuple) else ())]
    for keys in candidates:
        plain = isinstance(keys, list | tuple) and len(keys) == count and all(type(key) in (str, int) for key in keys)
        if plain and len(set(keys)) == count:
            return tuple(keys)
    return ()


def tensors_of(output: object) -> list[Tensor]:
    """The tensors that a module gave, in the order in which torch.export lists them."""
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]
