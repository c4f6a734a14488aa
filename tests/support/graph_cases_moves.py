"""Views, moves, lookups."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from slimtrain.detection.fixed.suppression import non_maximum_suppression
from tests.support.graph_cases import Calls, Case, Function, aten, cases


class Looks(nn.Module):
    """Takes positions by numbers that it holds."""

    def __init__(self, take: str) -> None:
        super().__init__()
        self.take = take
        self.register_buffer("rows", torch.tensor([[0, 3, -1], [2, 2, 1]]))
        self.register_buffer("columns", torch.tensor([1, 0, -2]))
        self.table = nn.Parameter(torch.randn(9, 4))

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.rows, self.columns
        assert isinstance(rows, Tensor) and isinstance(columns, Tensor)
        if self.take == "one":
            return x[:, rows]
        if self.take == "neighbours":
            return x[:, :, rows, columns]
        if self.take == "scattered":
            return x[:, rows, :, columns]
        if self.take == "by image":
            return self.table[x.argmax(1)]
        if self.take == "select":
            return x.index_select(1, columns.abs())
        if self.take == "embedding":
            return F.embedding(x.argmax(1), self.table)
        assert self.take == "table"
        return x + self.table[rows.abs()].mean()


def written(x: Tensor) -> Tensor:
    """Memory that is written to in part."""
    y = x.clone()
    y[:, 1:3] = x[:, 2:4] * 2
    y[:, :, -1] = 0
    return y


def padded(kind: str, dims: int) -> Function:
    function = getattr(aten, kind)
    return lambda x: function(x, [1, 2] * dims)


VIEWS: list[Case] = [
    *cases("view", lambda x: x.view(x.shape[0], 3, 2, 35), lambda x: x.view(-1, 7)),
    *cases(
        "reshape", lambda x: x.reshape(-1, 6, 35), lambda x: x.transpose(1, 2).reshape(-1, 30), lambda x: x.reshape(x.shape)
    ),
    *cases("_unsafe_view", lambda x: aten._unsafe_view(x, [x.shape[0], 6, 35])),
    *cases("unflatten", lambda x: x.unflatten(1, (3, 2))),
    *cases("squeeze", lambda x: x[:, :1].squeeze(1), lambda x: x[:, :, :1].squeeze(-2)),
    *cases("unsqueeze", lambda x: x.unsqueeze(-1), lambda x: x.unsqueeze(0)),
    *cases("view_as", lambda x: x.mean(1).view_as(x[:, 0])),
    *cases("reshape_as", lambda x: x.flatten(1).reshape_as(x)),
    *cases("_reshape_alias", lambda x: aten._reshape_alias(x, [x.shape[0], 210], [210, 1])),
    *cases("atleast_1d", lambda x: aten.atleast_1d(x) + 1),
    *cases("atleast_2d", lambda x: aten.atleast_2d(x) + 1),
    *cases("atleast_3d", lambda x: aten.atleast_3d(x) + 1, shape=(4,)),
    *cases("ravel", lambda x: x.ravel()),
    *cases("flatten", lambda x: x.flatten(1), lambda x: x.flatten(2), lambda x: x.flatten(0, 1), lambda x: x.flatten()),
    *cases("expand", Calls(lambda x, w: torch.cat([w.expand(x.shape[0], -1, 5, 7), x], 1), (1, 2, 1, 1))),
    *cases("expand", lambda x: x.mean(1, True).expand(-1, 4, 5, 7), lambda x: x[:, None].expand(-1, 3, -1, -1, -1)),
    *cases("expand", Calls(lambda x, w: w.expand(2, x.shape[0], 3), (3,)), lambda x: x.mean(1, True).expand(*x.shape) * x),
    *cases("expand_as", lambda x: x.mean(1, True).expand_as(x) * x, lambda x: x.mean(1, True).expand_as(x)),
    *cases("broadcast_to", lambda x: torch.broadcast_to(x.mean(2, True), x.shape) - x.mean(2, True)),
    *cases(
        "repeat",
        lambda x: x.repeat(1, 2, 1, 3),
        Calls(lambda x, w: torch.cat([w.repeat(x.shape[0], 1, 5, 7), x], 1), (2, 1, 1)),
    ),
    *cases("repeat", lambda x: x.repeat(2, 1, 1, 1), lambda x: x.repeat(1, 1, 1, 1)),
    *cases("tile", lambda x: x.tile(2, 1, 3)),
    *cases("repeat_interleave", lambda x: x.repeat_interleave(3, 1), lambda x: x.repeat_interleave(2, 0)),
    *cases("zeros", lambda x: torch.cat([torch.zeros(x.shape[0], 1, 5, 7), x], 1)),
    *cases("ones", lambda x: torch.cat([torch.ones(x.shape[0], 1, 5, 7), x], 1)),
    *cases("full", lambda x: torch.cat([torch.full((x.shape[0], 1, 5, 7), 0.3), x], 1)),
    *cases("empty", lambda x: torch.cat([torch.empty(x.shape[0], 1, 5, 7).zero_(), x], 1)),
    *cases("new_zeros", lambda x: torch.cat([x.new_zeros(x.shape[0], 1, 5, 7), x], 1)),
    *cases("new_ones", lambda x: torch.cat([x.new_ones(x.shape), x], 1)),
    *cases("new_full", lambda x: torch.cat([x.new_full(x.shape, 2), x], 1)),
    *cases("new_empty", lambda x: torch.cat([x.new_empty(x.shape).zero_(), x], 1)),
    *cases("zeros_like", lambda x: torch.cat([torch.zeros_like(x), x], 1)),
    *cases("ones_like", lambda x: torch.cat([torch.ones_like(x), x], 1)),
    *cases("full_like", lambda x: torch.cat([torch.full_like(x, 0.3), x], 1)),
    *cases("empty_like", lambda x: torch.cat([torch.empty_like(x).fill_(2), x], 1)),
    *cases("zero", lambda x: (x * 2).zero_() + x),
    *cases("fill", lambda x: (x * 2).fill_(3) + x, lambda x: torch.fill(x, x.max())),
    *cases("copy", lambda x: torch.empty_like(x).copy_(x.mean(1, True) > 0)),
]

MOVES: list[Case] = [
    *cases("permute", lambda x: x.permute(0, 2, -1, 1), lambda x: x.permute(2, 0, 1, 3), lambda x: x.permute(0, 1, 2, 3)),
    *cases("transpose", lambda x: x.transpose(1, -1)),
    *cases("swapaxes", lambda x: x.swapaxes(1, -1)),
    *cases("swapdims", lambda x: torch.swapdims(x, 1, -1)),
    *cases("t", lambda x: x.t(), shape=(6,)),
    *cases("numpy_T", lambda x: x.T, shape=(6,)),
    *cases("mT", lambda x: x.mT),
    *cases("adjoint", lambda x: x.adjoint()),
    *cases("mH", lambda x: x.mH),
    *cases("matrix_H", lambda x: x.H, shape=(6,)),
    *cases("movedim", lambda x: x.movedim(1, -1), lambda x: x.movedim((1, 3), (3, 2))),
    *cases("moveaxis", lambda x: x.moveaxis(1, -1)),
    *cases("slice", lambda x: x[:, 1:-2], lambda x: x[..., ::3], lambda x: x[:, -4:], lambda x: aten.slice(x, 1, 0, 99) + 1),
    *cases("narrow", lambda x: x.narrow(1, 2, 3), lambda x: x.narrow(1, -2, 2)),
    *cases("select", lambda x: x[:, 2], lambda x: x[..., -1]),
    *cases("unbind", lambda x: x.unbind(1)[2], lambda x: x.unbind(-1)),
    *cases("split", lambda x: x.split(4, 1), lambda x: x.split(6, 1)),
    *cases("split_with_sizes", lambda x: x.split([1, 3, 2], 1)),
    *cases("chunk", lambda x: x.chunk(3, 1), lambda x: x.chunk(4, -1), lambda x: torch.cat([x, x * 2]).chunk(2)),
    *cases("tensor_split", lambda x: x.tensor_split(4, 1)),
    *cases("unsafe_split", lambda x: torch.unsafe_split(x, 4, 1)),
    *cases("unsafe_chunk", lambda x: torch.unsafe_chunk(x, 3, 1)),
    *cases("unsafe_split_with_sizes", lambda x: torch.unsafe_split_with_sizes(x, [1, 5], 1)),
    *cases("cat", lambda x: torch.cat([x, x * 2, x.mean(1, True)], 1), lambda x: torch.cat([x]) + 1),
    *cases("concat", lambda x: torch.concat([x, (x > 0)], -1)),
    *cases("concatenate", lambda x: torch.concatenate([x, x], 2)),
    *cases("stack", lambda x: torch.stack([x, x * 2], 1), lambda x: torch.stack([x, x * 2], -1), lambda x: torch.stack([x])),
    *cases("slice_scatter", lambda x: torch.slice_scatter(x, x[:, 2:4] * 2, 1, 1, 3), written),
    *cases("slice_scatter", lambda x: torch.slice_scatter(x, x * 2, 1), lambda x: torch.slice_scatter(x, x[:, :2], 1, 0, 2)),
    *cases("select_scatter", lambda x: torch.select_scatter(x, x[:, 0] * 2, 1, -1)),
    *cases("roll", lambda x: x.roll((1, -3), (2, 3)), lambda x: x.roll(5, 2) + 1, lambda x: x.roll(8, 1)),
    *cases("flip", lambda x: x.flip(1, -1)),
    *cases("tril", lambda x: x.tril(), lambda x: x.tril(-1)),
    *cases("triu", lambda x: x.triu(1)),
    *cases("pad", lambda x: F.pad(x, (1, 2, 0, 3)), lambda x: F.pad(x, (1, -2), value=0.5), lambda x: F.pad(x, (0, 0)) + 1),
    *cases("pad", *(lambda x, mode=mode: F.pad(x, (1, 2, 3, 0), mode) for mode in ("reflect", "replicate", "circular"))),
    *cases("constant_pad_nd", lambda x: torch.constant_pad_nd(x, [1, 2], 0.5)),
    *(
        c
        for kind in ("reflection", "replication")
        for dims, shape in ((1, (3, 7)), (2, (3, 5, 7)), (3, (2, 4, 5, 6)))
        for c in cases(
            f"{kind}_pad{dims}d",
            padded(f"{kind}_pad{dims}d", dims),
            shape=shape,
        )
    ),
]


def regions(aligned: bool) -> Function:
    """RoIAlign of two regions of every image, one of them narrower than a cell."""

    def run(x: Tensor) -> Tensor:
        images = torch.arange(x.shape[0]).to(x.dtype)[:, None, None].expand(-1, 2, 1)
        boxes = torch.tensor([[1.0, 2.0, 9.0, 7.0], [3.0, 3.0, 3.5, 9.0]]).to(x.dtype).expand(x.shape[0], 2, 4)
        return roi_align(x, torch.cat([images, boxes], -1).reshape(-1, 5), (3, 2), 0.5, 2, aligned=aligned)

    return run


def suppressed(labelled: bool) -> Function:
    """Which of fifty boxes stay."""

    def run(x: Tensor) -> Tensor:
        numbers = x.reshape(-1, 210)[:, :200].reshape(-1, 50, 4)
        corner = numbers[..., :2] * 3
        boxes = torch.cat([corner, corner + 2 + numbers[..., 2:].abs()], -1)
        valid = (numbers[..., 0] > -1).to(x.dtype)
        labels = (numbers[..., 1] > 0).long() + 1 if labelled else None
        return non_maximum_suppression(boxes, valid, labels, 0.3, 2)

    return run


def leaders(x: Tensor) -> Tensor:
    """The first of a stable order, and where they stand."""
    values, places = x.sort(dim=-1, descending=True, stable=True)
    return torch.cat([values[..., :3], places[..., :2].to(x.dtype)], -1)


def placed(x: Tensor, theta: Tensor, align: bool) -> Tensor:
    """Where a matrix that every image scales puts the places of another map."""
    thetas = theta * x.mean((1, 2, 3))[:, None, None]
    return F.affine_grid(thetas, [x.shape[0], 3, 4, 1 if align else 5], align_corners=align)


LOOKUPS: list[Case] = [
    *cases("sort", leaders, lambda x: x.round().sort(dim=1, stable=True)[1], lambda x: x.sort(stable=True, dim=2)[0]),
    *cases("arange", lambda x: x * torch.arange(x.shape[0]).to(x.dtype)[:, None, None, None]),
    *cases("roi_align", regions(aligned=False), regions(aligned=True)),
    *cases("non_maximum_suppression", suppressed(labelled=False), suppressed(labelled=True)),
    *cases("index", *(Looks(take) for take in ("one", "neighbours", "scattered", "by image"))),
    *cases("_unsafe_index", lambda x: aten._unsafe_index(x, [None, torch.tensor([1, 0])])),
    *cases("index_select", Looks("select")),
    *cases("gather", lambda x: x.gather(1, x.argmax(1, True))),
    *cases("take_along_dim", lambda x: torch.take_along_dim(x, x.argmax(1, True), 1)),
    *cases("embedding", Looks("embedding")),
    *cases("unfold", lambda x: x.unfold(2, 3, 2), lambda x: x.unfold(1, 2, 1)),
    *cases("diagonal", lambda x: x.diagonal(1, 2, 3), lambda x: x.diagonal(0, 1, -1), lambda x: x.diagonal(-2, 3, 1)),
    *cases(
        "affine_grid_generator",
        Calls(lambda x, t: placed(x, t, False), (2, 3)),
        Calls(lambda x, t: placed(x, t, True), (2, 3)),
    ),
    *cases("grid_sampler", lambda x: F.grid_sample(x, x[:, :2].permute(0, 2, 3, 1), align_corners=False)),
    *cases(
        "grid_sampler",
        lambda x: F.grid_sample(x, x[:, :2].permute(0, 2, 3, 1), "nearest", "border", True),
        lambda x: F.grid_sample(x, x[:, :2].permute(0, 2, 3, 1), "bicubic", "reflection", False),
    ),
    *cases("grid_sampler_2d", lambda x: aten.grid_sampler_2d(x, x[:, :2].permute(0, 2, 3, 1), 0, 1, False)),
]
