"""Matrix products, linear layers, attention, einsum: what is summed over is tied, what remains is handed on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from slimtrain.graph.labels.labelling import Axis, Labels
from slimtrain.graph.labels.registry import Call, rule

SUMMED = "it is summed over with a tensor that no parameter stands behind"
ALONG = "it runs along a dimension that no parameter stands behind"


@rule("linear")
def linear(call: Call) -> list[Labels]:
    run, x, weight = call.run, call.labels("input"), call.labels("weight")
    if x.shape[-1] > 1:
        run.match([x.axes[-1], weight.axes[1]], SUMMED)
    out = weight.axes[0]
    bias = call.optional("bias")
    if bias is not None and call.shape[-1] > 1:
        out = run.match([out, bias.axes[0]], ALONG)
    return [Labels.along(call.shape, {**dict(enumerate(x.axes[:-1])), len(call.shape) - 1: out})]


def contract(call: Call, x: Labels, y: Labels, shape: Sequence[int]) -> Labels:
    """[..., n, k] @ [..., k, m]."""
    run = call.run
    if x.shape[-1] > 1:
        run.match([x.axes[-1], y.axes[-2]], SUMMED)
    left = Labels((*x.shape[:-1], 1), (*x.axes[:-1], None))
    right = Labels((*y.shape[:-2], 1, y.shape[-1]), (*y.axes[:-2], None, y.axes[-1]))
    return run.broadcast([left, right], shape, ALONG)


@rule("matmul", "bmm", "mm")
def matmul(call: Call) -> list[Labels]:
    x, y = call.labels("self"), call.labels("other", "mat2")
    if len(x.shape) < 2 or len(y.shape) < 2:  # a vector: a row on the left, a column on the right
        left = x if len(x.shape) > 1 else Labels((1, *x.shape), (None, *x.axes))
        right = y if len(y.shape) > 1 else Labels((*y.shape, 1), (*y.axes, None))
        whole = contract(call, left, right, _product_shape(left.shape, right.shape))
        axes = [a for a, dropped in zip(whole.axes, _dropped(len(whole.shape), x, y), strict=True) if not dropped]
        return [Labels(call.shape, tuple(axes))]
    return [contract(call, x, y, call.shape)]


def _product_shape(x: Sequence[int], y: Sequence[int]) -> tuple[int, ...]:
    rank = max(len(x), len(y))
    lead = [max(s) for s in zip((1,) * (rank - len(x)) + tuple(x), (1,) * (rank - len(y)) + tuple(y), strict=True)][:-2]
    return (*lead, x[-2], y[-1])


def _dropped(rank: int, x: Labels, y: Labels) -> list[bool]:
    """The dimensions that a product with a vector lacks."""
    return [(dim == rank - 2 and len(x.shape) < 2) or (dim == rank - 1 and len(y.shape) < 2) for dim in range(rank)]


@rule("addmm")
def addmm(call: Call) -> list[Labels]:
    product = contract(call, call.labels("mat1"), call.labels("mat2"), call.shape)
    return [call.run.broadcast([product, call.labels("self")], call.shape, ALONG)]


@rule("baddbmm")
def baddbmm(call: Call) -> list[Labels]:
    product = contract(call, call.labels("batch1"), call.labels("batch2"), call.shape)
    return [call.run.broadcast([product, call.labels("self")], call.shape, ALONG)]


@rule("scaled_dot_product_attention")
def attention(call: Call) -> list[Labels]:
    """softmax(q @ k^T + mask) @ v."""
    run, q, k, v = call.run, call.labels("query"), call.labels("key"), call.labels("value")
    run.notes.add("attention")
    shape = (*q.shape[:-1], k.shape[-2])
    scores = contract(call, q, _swapped(k), shape)
    mask = call.optional("attn_mask")
    if mask is not None:
        scores = run.broadcast([scores, mask], shape, ALONG)
    return [contract(call, scores, v, call.shape)]


def _swapped(x: Labels) -> Labels:
    return Labels((*x.shape[:-2], x.shape[-1], x.shape[-2]), (*x.axes[:-2], x.axes[-1], x.axes[-2]))


@rule("bilinear")
def bilinear(call: Call) -> list[Labels]:
    """x [..., I], y [..., J] and a weight [O, I, J] -> [..., O]."""
    run, weight, bias = call.run, call.labels("weight"), call.optional("bias")
    operands = [call.labels(name) for name in ("input1", "input2")]
    for operand, axis in zip(operands, weight.axes[1:], strict=True):
        if operand.shape[-1] > 1:
            run.match([operand.axes[-1], axis], SUMMED)
    lead = run.broadcast([Labels(x.shape[:-1], x.axes[:-1]) for x in operands], call.shape[:-1], ALONG)
    out = [weight.axes[0]] if bias is None else [weight.axes[0], bias.axes[0]]
    return [Labels.along(call.shape, {**dict(enumerate(lead.axes)), len(lead.shape): run.match(out, ALONG)})]


@rule("cosine_similarity")
def cosine_similarity(call: Call) -> list[Labels]:
    x, y = call.labels("x1"), call.labels("x2")
    shape = np.broadcast_shapes(x.shape, y.shape)
    both = call.run.broadcast([x, y], shape, ALONG)
    dim = call.dim("dim", len(shape), 1)
    return [Labels.along(call.shape, dict(enumerate(axis for at, axis in enumerate(both.axes) if at != dim)))]


@rule("pairwise_distance")
def pairwise_distance(call: Call) -> list[Labels]:
    x, y = call.labels("x1"), call.labels("x2")
    both = call.run.broadcast([x, y], np.broadcast_shapes(x.shape, y.shape), ALONG)
    return [Labels.along(call.shape, dict(enumerate(both.axes[:-1])))]


@rule("einsum")
def einsum(call: Call) -> list[Labels]:
    run, operands = call.run, call.several("tensors")
    inputs, arrow, out = str(call["equation"]).replace(" ", "").partition("->")
    if not arrow:  # then it is the letters that stand once, in their order
        out = "..." * ("..." in inputs) + "".join(sorted(c for c in set(inputs) - set(",.") if inputs.count(c) == 1))
    terms = [_spelled(term, len(operand.shape)) for term, operand in zip(inputs.split(","), operands, strict=True)]
    letters: dict[str, list[Axis | None]] = {}
    for term, operand in zip(terms, operands, strict=True):
        for letter, axis, size in zip(term, operand.axes, operand.shape, strict=True):
            if size > 1:
                letters.setdefault(letter, []).append(axis)
    axes = {letter: run.match(along, SUMMED) for letter, along in letters.items()}
    spelled = _spelled(out, len(call.shape))
    return [Labels.along(call.shape, {dim: axes.get(letter) for dim, letter in enumerate(spelled)})]


def _spelled(term: str, rank: int) -> str:
    """A term with letters in place of `...`: the same one for the same dimension, counted from the last of them."""
    if "..." not in term:
        return term
    missing = rank - len(term) + 3
    return term.replace("...", "".join(chr(0x100 + missing - index) for index in range(missing)))
