"""Operators that compute element by element."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.graph_cases import Case, Function, aten, cases


def positive(x: Tensor) -> Tensor:
    return x.abs() + 0.5


def within(x: Tensor) -> Tensor:
    """Between 0 and 0.9."""
    return torch.sigmoid(x) * 0.9


def special(x: Tensor) -> Tensor:
    """Numbers, infinities of both signs, and NaN."""
    return torch.log(x) / F.relu(x - 1)


def after(change: Function, function: Function) -> Function:
    return lambda x: function(change(x))


def twice(x: Tensor) -> Tensor:
    assert isinstance(x, Tensor)
    return x * 2


PLAIN = (
    *("abs", "exp", "neg", "floor", "ceil", "sign", "round", "sin", "cos", "sinh", "cosh", "atan", "asinh", "erf", "square"),
    *("expm1", "exp2", "trunc", "fix", "positive"),
)
COMPARED = ("eq", "ne", "lt", "le", "gt", "ge", "less", "less_equal", "greater", "greater_equal", "not_equal")
LOGICAL = ("logical_and", "logical_or", "logical_xor", "bitwise_and", "bitwise_or", "bitwise_xor")
DROPPED = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")


def compared(kind: str) -> list[Function]:
    compare = getattr(torch, kind)
    return [lambda x: compare(x.round(), 1), lambda x: compare(x, x.flip(1))]


def both(kind: str) -> Function:
    function = getattr(aten, kind)
    return lambda x: function(x > 0, x.flip(1) > 0)


def dropped(kind: str) -> Function:
    function = getattr(torch, kind)
    return lambda x: function(x, 0.5, False) + 1


ARITHMETIC: list[Case] = [
    *(c for kind in PLAIN for c in cases(kind, getattr(torch, kind))),
    *(c for kind in ("isnan", "isinf") for c in cases(kind, after(special, getattr(torch, kind)))),
    *(c for kind in ("tan", "asin", "acos", "atanh") for c in cases(kind, after(within, getattr(torch, kind)))),
    *(
        c
        for kind in ("log", "sqrt", "reciprocal", "rsqrt", "log1p", "log2", "log10")
        for c in cases(kind, after(positive, getattr(torch, kind)))
    ),
    *cases("acosh", lambda x: torch.acosh(positive(x) + 1)),
    *cases("nan_to_num", lambda x: torch.nan_to_num(special(x), 0.5, 3.0, -4.0)),
    *cases("logical_not", lambda x: torch.logical_not(x > 0), torch.logical_not),
    *cases("bitwise_not", lambda x: ~(x > 0)),
    *cases("to", lambda x: x.to(torch.int32), lambda x: (x > 0).to(x), lambda x: x.to(torch.float64) + 1),
    *(c for kind in DROPPED for c in cases(kind, dropped(kind))),
    *cases("native_dropout", lambda x: torch.native_dropout(x, 0.5, False)[0] + 1),
    *cases("dropout", nn.Sequential(nn.Conv2d(6, 4, 1), nn.ReLU(True), nn.Dropout(0.2, inplace=True))),
    *cases("contiguous", lambda x: x.transpose(1, 2).contiguous()),
    *cases("clone", lambda x: x.clone() + 1),
    *cases("detach", lambda x: x.detach() + 1),
    *cases("alias", lambda x: aten.alias(x) + 1),
    *cases("lift_fresh_copy", lambda x: aten.lift_fresh_copy(x) + 1),
    *cases("add", lambda x: x + x.mean(1, True), lambda x: torch.add(x, x * 2, alpha=3), lambda x: (x > 0) + x),
    *cases("add", lambda x: (x > 0) + (x > 1), lambda x: x + 2),
    *cases("sub", lambda x: x - 1.5, lambda x: torch.sub(x, x * x, alpha=2)),
    *cases("subtract", lambda x: torch.subtract(x, 2)),
    *cases("mul", lambda x: x * 3, lambda x: x * (x > 0), lambda x: (x > 0) * (x < 1)),
    *cases("multiply", lambda x: torch.multiply(x, x)),
    *cases("div", lambda x: x / 3, lambda x: x.div(0.7, rounding_mode="floor"), lambda x: x.div(0.7, rounding_mode="trunc")),
    *cases("div", lambda x: x.round().long() / 2, lambda x: torch.div((x * 9).round().long(), 4, rounding_mode="trunc")),
    *cases("divide", lambda x: torch.divide(x, 2)),
    *cases("true_divide", lambda x: torch.true_divide(x, 2)),
    *cases("floor_divide", lambda x: x // 0.7),
    *cases("maximum", lambda x: torch.maximum(x, x.flip(1))),
    *cases("minimum", lambda x: torch.minimum(x, x.flip(1))),
    *cases("fmax", lambda x: torch.fmax(x, x.flip(1))),
    *cases("fmin", lambda x: torch.fmin(x, x.flip(1))),
    *cases("rsub", lambda x: torch.rsub(x, 2), lambda x: torch.rsub(x, x * x, alpha=2)),
    *cases("remainder", lambda x: x % 0.7, lambda x: (x * 4).long() % 3, lambda x: torch.remainder(x, -0.7)),
    *cases("fmod", lambda x: torch.fmod(x, 0.7), lambda x: torch.fmod((x * 4).long(), 3)),
    *cases("pow", lambda x: x**2, lambda x: x**3, lambda x: positive(x) ** 0.5, lambda x: 2**x, lambda x: positive(x) ** x),
    *cases("addcmul", lambda x: torch.addcmul(x, x, x + 1), lambda x: torch.addcmul(x, x, x, value=0.3)),
    *cases("addcdiv", lambda x: torch.addcdiv(x, x, positive(x), value=0.3)),
    *cases("lerp", lambda x: torch.lerp(x, x * 2, 0.3), lambda x: torch.lerp(x, x * 2, x)),
    *cases("clamp", lambda x: x.clamp(-1, 0.5), lambda x: x.clamp(x - 1, x * x), lambda x: x.clamp(1, -1)),
    *cases("clamp", lambda x: x.clamp(max=0), lambda x: (x * 3).long().clamp(0, 2)),
    *cases("clip", lambda x: torch.clip(x, 0, 1)),
    *cases("clamp_min", lambda x: x.clamp_min(0.1)),
    *cases("clamp_max", lambda x: x.clamp_max(0.1), lambda x: torch.clamp_max(x, x.flip(1))),
    *(c for kind in COMPARED for c in cases(kind, *compared(kind))),
    *cases("eq", lambda x: (x > 0) == (x > 1)),
    *(c for kind in LOGICAL for c in cases(kind, both(kind))),
    *(c for kind in ("__and__", "__or__", "__xor__") for c in cases(kind, both(kind))),
    *cases("where", lambda x: torch.where(x > 0, x, 2.0), lambda x: torch.where(x > 0, x.mean(1, True), x)),
    *cases("masked_fill", lambda x: x.masked_fill(x > 0, -1)),
    *cases("masked_fill", lambda x: x.masked_fill(x[:, :1] * 0 + x > 2, float("-inf")).softmax(1)),
    *cases("threshold", lambda x: F.threshold(x, 0.3, -2)),
]

STEEP = ("relu", "sigmoid", "tanh", "selu", "mish", "silu", "hardswish", "hardsigmoid", "softplus")
ACTIVATIONS: list[Case] = [
    *(c for kind in STEEP for c in cases(kind, after(lambda x: x * 4, getattr(F, kind)))),
    *cases("relu6", lambda x: aten.relu6(x * 4)),
    *cases("hardtanh", lambda x: F.hardtanh(x, -0.5, 1.5), nn.ReLU6()),
    *cases("leaky_relu", lambda x: F.leaky_relu(x, 0.2)),
    *cases("rrelu", lambda x: F.rrelu(x, 0.1, 0.3)),
    *cases("elu", lambda x: F.elu(x, 0.7)),
    *cases("celu", lambda x: F.celu(x, 0.7)),
    *cases("prelu", nn.PReLU(), nn.PReLU(6, 0.1)),
    *cases("prelu", nn.PReLU(6, 0.1), shape=(6,)),
    *cases("gelu", lambda x: F.gelu(x * 2), lambda x: F.gelu(x * 2, approximate="tanh")),
    *cases("softplus", lambda x: F.softplus(x, 2), lambda x: F.softplus(x * 8, 1, 3)),
    *cases("log_sigmoid", lambda x: F.logsigmoid(x * 9)),
    *cases("hardshrink", lambda x: F.hardshrink(x, 0.4)),
    *cases("softshrink", lambda x: F.softshrink(x, 0.4)),
    *cases("logit", lambda x: torch.logit(torch.sigmoid(x)), lambda x: torch.logit(torch.sigmoid(x * 3), 0.1)),
    *cases("softmax", lambda x: x.softmax(1), lambda x: F.softmax(x, -1)),
    *cases("_softmax", lambda x: aten._softmax(x, 1, False)),
    *cases("_safe_softmax", lambda x: aten._safe_softmax(x, 1)),
    *cases("log_softmax", lambda x: F.log_softmax(x, 1)),
    *cases("_log_softmax", lambda x: aten._log_softmax(x, 1, False)),
    *cases("glu", lambda x: F.glu(x, 1)),
]
