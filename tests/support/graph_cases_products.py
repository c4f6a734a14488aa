"""Matrix products, attention, recurrent layers, norms, reductions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.graph_cases import Calls, Case, aten, cases

attention = F.scaled_dot_product_attention
HEADS = (2, 5, 4)  # heads, positions, channels


PRODUCTS: list[Case] = [
    *cases("linear", nn.Linear(7, 4), nn.Linear(7, 4, bias=False), Calls(lambda x: F.linear(x, x.mean((0, 1))))),
    *cases("linear", nn.Linear(6, 4), nn.Linear(6, 4, bias=False), shape=(6,)),
    *cases("matmul", lambda x: x @ x.transpose(-1, -2), Calls(lambda x, w: x @ w, (7, 3)), Calls(lambda x, w: x @ w, (7,))),
    *cases("matmul", Calls(lambda x, w: w @ x, (4, 5)), Calls(lambda x, w: w @ x, (5,))),
    *cases("bmm", lambda x: torch.bmm(x, x.transpose(1, 2)), shape=(5, 7)),
    *cases("mm", Calls(torch.mm, (6, 3)), shape=(6,)),
    *cases("mv", Calls(torch.mv, (6,)), shape=(6,)),
    *cases("dot", Calls(lambda x, w: x * torch.dot(w.abs(), x.mean((0, 2, 3)) * 0 + 1), (6,))),
    *cases("outer", Calls(lambda x, w: torch.outer(x.mean(1), w), (3,)), shape=(6,)),
    *cases("addmm", Calls(lambda x, b, w: torch.addmm(b, x, w, beta=0.5, alpha=2), (3,), (6, 3)), shape=(6,)),
    *cases("baddbmm", lambda x: torch.baddbmm(x, x, x, beta=0.5, alpha=2), lambda x: torch.baddbmm(x, x, x), shape=(5, 5)),
    *cases("scaled_dot_product_attention", lambda x: attention(x, x * 2, x + 1), shape=HEADS),
    *cases("scaled_dot_product_attention", lambda x: attention(x, x[:, :, :3], x[:, :, :3], scale=0.3), shape=HEADS),
    *cases("scaled_dot_product_attention", lambda x: attention(x, x, x, is_causal=True), shape=HEADS),
    *cases("scaled_dot_product_attention", Calls(lambda x, m: attention(x, x, x, m), (2, 5, 5)), shape=HEADS),
    *cases("scaled_dot_product_attention", Calls(lambda x, m: attention(x, x, x, m.abs() < 1.5), (5, 5)), shape=HEADS),
    *cases("einsum", Calls(lambda x, w: torch.einsum("nchw,co->nohw", x, w), (6, 3))),
    *cases("einsum", Calls(lambda x, w: torch.einsum("... h w, w o -> ... h o", x, w), (7, 3))),
    *cases("bilinear", Calls(lambda x, w, b: F.bilinear(x, x * 2, w, b), (4, 7, 7), (4,))),
    *cases("bilinear", Calls(lambda x, w: F.bilinear(x, x[..., :3], w), (4, 7, 3))),
    *cases("pairwise_distance", lambda x: F.pairwise_distance(x, x.flip(2)), lambda x: F.pairwise_distance(x, x * x, 1)),
    *cases("pairwise_distance", lambda x: F.pairwise_distance(x, x + 1, float("inf"), keepdim=True)),
    *cases(
        "pairwise_distance", lambda x: F.pairwise_distance(x, x * x, 3), lambda x: F.pairwise_distance(x, x * 2, -float("inf"))
    ),
    *cases("cosine_similarity", lambda x: F.cosine_similarity(x, x.flip(2)), lambda x: F.cosine_similarity(x, x * x, -1)),
]


class Read(nn.Module):
    """What a recurrent layer gives for its sequence, and the states that it ends with, in one tensor [N, ...]."""

    def __init__(self, layer: nn.RNNBase, images_first: bool = True) -> None:
        super().__init__()
        self.layer, self.images_first = layer, images_first

    def forward(self, x: Tensor) -> Tensor:
        whole, states = self.layer(x if self.images_first else x.transpose(0, 1))
        ended = torch.cat(states if isinstance(states, tuple) else [states])
        whole = whole if self.images_first else whole.transpose(0, 1)
        return torch.cat([whole.flatten(1), ended.transpose(0, 1).flatten(1)], 1)


class Begun(nn.Module):
    """A recurrent layer of two layers and directions that begins with states of its own."""

    def __init__(self, layer: nn.RNNBase, states: int) -> None:
        super().__init__()
        self.layer, self.states = layer, nn.ParameterList(nn.Parameter(torch.randn(4, 1, 4)) for _ in range(states))

    def forward(self, x: Tensor) -> Tensor:
        states = tuple(state.expand(-1, len(x), -1).contiguous() for state in self.states)
        whole: Tensor = self.layer(x, states if len(states) > 1 else states[0])[0]
        return whole


class Steps(nn.Module):
    """A cell that goes along a sequence [N, T, I], from no state or a given one."""

    def __init__(self, cell: nn.RNNCellBase, begun: bool = False) -> None:
        super().__init__()
        self.cell, self.begun = cell, begun

    def forward(self, x: Tensor) -> Tensor:
        pair = isinstance(self.cell, nn.LSTMCell)
        first = x[:, 0, :1].expand(-1, self.cell.hidden_size)
        state: Any = ((first, first * 2) if pair else first) if self.begun else None
        for place in range(x.shape[1]):
            state = self.cell(x[:, place], state)
        result: Tensor = torch.cat(state, 1) if pair else state
        return result


class Shared(nn.Module):
    """Two layers in both directions that share one weight of one direction, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.GRU(7, 4, batch_first=True, bidirectional=True) for _ in range(2))
        self.second.weight_ih_l0 = self.first.weight_ih_l0

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.first(x)[0] + self.second(x)[0]
        return result


SEQUENCE = (5, 7)
FORMS: list[dict[str, bool | int]] = [{}, {"bidirectional": True}, {"num_layers": 2}, {"num_layers": 2, "bidirectional": True}]
RECURRENT: list[Case] = [
    *cases("lstm", *(Read(nn.LSTM(7, 4, batch_first=True, **form)) for form in FORMS), shape=SEQUENCE),
    *cases("gru", *(Read(nn.GRU(7, 4, batch_first=True, **form)) for form in FORMS), shape=SEQUENCE),
    *cases("rnn_tanh", *(Read(nn.RNN(7, 4, batch_first=True, **form)) for form in FORMS), shape=SEQUENCE),
    *cases("rnn_relu", Read(nn.RNN(7, 4, nonlinearity="relu", bidirectional=True, batch_first=True)), shape=SEQUENCE),
    *cases("lstm", Read(nn.LSTM(7, 4, bias=False, bidirectional=True), False), shape=SEQUENCE),
    *cases("gru", Read(nn.GRU(7, 4, 2, bias=False), False), shape=SEQUENCE),
    *cases("lstm", Begun(nn.LSTM(7, 4, 2, batch_first=True, bidirectional=True), 2), shape=SEQUENCE),
    *cases("gru", Begun(nn.GRU(7, 4, 2, batch_first=True, bidirectional=True), 1), shape=SEQUENCE),
    *cases("gru", Shared(), shape=SEQUENCE),
    *cases("lstm_cell", Steps(nn.LSTMCell(7, 4)), Steps(nn.LSTMCell(7, 4, bias=False), True), shape=SEQUENCE),
    *cases("gru_cell", Steps(nn.GRUCell(7, 4)), Steps(nn.GRUCell(7, 4), True), shape=SEQUENCE),
    *cases("rnn_tanh_cell", Steps(nn.RNNCell(7, 4)), Steps(nn.RNNCell(7, 4), True), shape=SEQUENCE),
    *cases("rnn_relu_cell", Steps(nn.RNNCell(7, 4, nonlinearity="relu"), True), shape=SEQUENCE),
]


def batch_normed(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return F.batch_norm(x, mean, variance.abs() + 0.5)


NORMS: list[Case] = [
    *cases("batch_norm", nn.BatchNorm2d(6), Calls(batch_normed, (6,), (6,))),
    *cases("batch_norm", nn.BatchNorm1d(6), shape=(6,)),
    *cases(
        "native_batch_norm",
        Calls(lambda x, m, v: torch.native_batch_norm(x, m, None, m, v.abs() + 1, False, 0.1, 1e-3)[0], (6,), (6,)),
    ),
    *cases("instance_norm", nn.InstanceNorm2d(6, affine=True), nn.InstanceNorm2d(6)),
    *cases("instance_norm", nn.InstanceNorm2d(6, affine=True, track_running_stats=True)),
    *cases("layer_norm", nn.LayerNorm(7), nn.LayerNorm((5, 7), bias=False), nn.LayerNorm(7, 1e-2, False)),
    *cases("native_layer_norm", lambda x: torch.native_layer_norm(x, [7], None, None, 1e-5)[0]),
    *cases("rms_norm", nn.RMSNorm(7), nn.RMSNorm((5, 7), 1e-2), lambda x: F.rms_norm(x, [7])),
    *cases("group_norm", nn.GroupNorm(3, 6), nn.GroupNorm(1, 6, 1e-2), nn.GroupNorm(6, 6, affine=False)),
    *cases("group_norm", nn.GroupNorm(3, 6), shape=(6,)),
    *cases("native_group_norm", lambda x: torch.native_group_norm(x, None, None, x.shape[0], 6, 35, 2, 1e-5)[0]),
    *cases("linalg_vector_norm", *(lambda x, p=p: torch.linalg.vector_norm(x, p, (1, 3)) for p in (1, 2, 3, float("inf")))),
    *cases("linalg_vector_norm", lambda x: x / torch.linalg.vector_norm(x, -float("inf"), 1, keepdim=True)),
    *cases("norm", lambda x: aten.norm(x, 2, [1], True), lambda x: aten.norm(x, 3, [1, 2])),
    *cases("frobenius_norm", lambda x: aten.frobenius_norm(x, [2, 3], True)),
]

REDUCTIONS: list[Case] = [
    *cases(
        "mean", lambda x: x.mean((2, 3)), lambda x: x.mean((-1, -2), True), lambda x: x.mean(1), lambda x: x.mean((1, 2, 3))
    ),
    *cases("mean", lambda x: x.mean()),
    *cases("sum", lambda x: x.sum((2, 3)), lambda x: x.sum(-1, True), lambda x: (x > 0).sum(1), lambda x: x.sum()),
    *cases("amax", lambda x: x.amax((1, 3))),
    *cases("amin", lambda x: x.amin(1, True)),
    *cases("prod", lambda x: x.prod(1)),
    *cases("logsumexp", lambda x: (x * 30).logsumexp(1)),
    *cases("max", lambda x: x.max(1).values, lambda x: x.max(2, True), lambda x: torch.max(x, x * 2), lambda x: x.max()),
    *cases("min", lambda x: x.min(1).values, lambda x: x.min(2, True), lambda x: torch.min(x, x * 2)),
    *cases("argmax", lambda x: x.argmax(1), lambda x: x.argmax(-1, True)),
    *cases("argmin", lambda x: x.argmin(1)),
    *cases("all", lambda x: (x > -1).all(1), lambda x: (x > -1).all(2, True)),
    *cases("any", lambda x: (x > 1).any(1), lambda x: (x > 9).any(-1)),
    *cases(
        "var", lambda x: x.var(1), lambda x: x.var((2, 3), False), lambda x: torch.var(x, (1, 2), correction=2, keepdim=True)
    ),
    *cases("std", lambda x: x.std(1), lambda x: x.std((2, 3), True, True)),
    *cases("var_mean", lambda x: torch.var_mean(x, (2, 3)), lambda x: torch.var_mean(x, 1, correction=0, keepdim=True)),
    *cases("std_mean", lambda x: torch.std_mean(x, 1)),
    *cases("cumsum", lambda x: x.cumsum(1), lambda x: (x > 0).cumsum(-1)),
]
