"""Sums, means, maxima over dimensions."""

from __future__ import annotations

from slimtrain.graph.labels.labelling import Labels
from slimtrain.graph.labels.registry import Call, rule

REDUCTIONS = (
    *("mean", "sum", "amax", "amin", "max", "min", "var", "std", "norm", "linalg_vector_norm", "var_mean", "std_mean"),
    *("all", "any", "prod", "logsumexp", "argmax", "argmin", "nansum", "count_nonzero"),
)


@rule(*REDUCTIONS)
def reduction(call: Call) -> list[Labels]:
    if len(call.node.inputs) > 1:  # max and min of two tensors compare element by element
        return [call.run.broadcast(call.inputs, call.shape, "it is compared with a tensor that no parameter stands behind")]
    x = call.labels("self", "x", "input")
    rank = len(x.shape)
    dims = call.get("dim")
    reduced = {d % max(rank, 1) for d in ([dims] if isinstance(dims, int) else dims or range(rank))}
    if any(x.axes[dim] is not None for dim in reduced):
        call.run.notes.add("reductions over channels")
    if call.node.kind.startswith("arg") or (len(call.shapes) > 1 and call.node.kind in ("max", "min")):
        for axis in (x.axes[dim] for dim in reduced):
            call.run.pin_axis(axis, "its positions are counted")  # which would have other numbers
    if call.get("keepdim"):
        kept = tuple(None if dim in reduced else axis for dim, axis in enumerate(x.axes))
    else:
        kept = tuple(axis for dim, axis in enumerate(x.axes) if dim not in reduced)
    return [Labels(shape, kept) if len(shape) == len(kept) else Labels.none(shape) for shape in call.shapes]
