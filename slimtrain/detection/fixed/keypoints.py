"""Where the keypoints of detections are, in shapes that no detection decides on.

A keypoint is where its map, enlarged to the detection's size in pixels, is highest: one of as many places as the detection has
pixels. Between two of the map's own places in each direction, within a cell, the enlarged map is a polynomial, which lies
below the largest of its Bernstein coefficients; of a detection so small that a cell has one pixel it is known there. So a cell
whose bound is below what stands elsewhere need not be looked into. The cells of the highest bounds are, at all their places;
whether these were enough is known.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimtrain.base.image_size import ImageSize, sides
from slimtrain.detection.fixed.coding import leading
from slimtrain.models.detector import KeypointSettings

CELLS = 8  # of a map that are looked into
SHARP = -0.75  # of torch's bicubic interpolation (Keys 1981, there called a)
TAPS = 4  # of it, in each direction
EDGE = 2  # places beyond the map's that cells read; they are as the edge
LOWEST = -6e4  # below what maps hold, and a number in half precision too


class Keypoints(nn.Module):
    """`boxes` [B, D, 4], `labels` [B, D] and keypoint logits [B D, K, s, s] -> `keypoints` [B, D, K, 3]: x and y in pixels,
    and 1; `keypoint_scores` [B, D, K]: the enlarged map there; `settled` [B]. Where no detection is (label 0) they are 0.

    What torchvision's heatmaps_to_keypoints gives, to rounding, where `settled`. Where two places are equally high but for
    rounding it may be the other one. `image_size`: how large a detection may be; `cells`: of a map, how many are
    looked into; `leeway`: by how much what stands elsewhere must be lower to be settled.
    """

    def __init__(self, settings: KeypointSettings, image_size: ImageSize, cells: int = CELLS, leeway: float = 0.0) -> None:
        super().__init__()
        self.leeway = leeway
        self.size = settings.size
        self.cells = min(cells, (settings.size + 1) ** 2 - 1)
        self.most = tuple(-(-side // settings.size) for side in sides(image_size))  # places of a cell: rows, columns

    def forward(self, boxes: Tensor, labels: Tensor, keypoint_logits: Tensor) -> dict[str, Tensor]:
        objects, points = boxes.shape[1], keypoint_logits.shape[1]
        left, top, right, bottom = boxes.reshape(-1, 4).unbind(-1)
        lengths = [(bottom - top).clamp(min=1), (right - left).clamp(min=1)]
        maps = F.pad(keypoint_logits, (EDGE,) * 4, mode="replicate")
        begins = [self._begins(length.ceil()) for length in lengths]
        bounds, numbers = leading(self._bounds(maps, begins, lengths), self.cells + 1)
        numbers, rest = numbers[..., : self.cells], bounds[..., self.cells]
        rows = torch.div(numbers, self.size + 1, rounding_mode="trunc")
        axes = (rows, numbers - rows * (self.size + 1))  # of cells, [R, K, T] each
        y, x = (self._places(*of_axis) for of_axis in zip(axes, begins, lengths, self.most, strict=True))
        scores, place = self._highest(self._around(maps, *axes), y, x)
        positions = [
            low[:, None] + (place_ + 0.5) * (length / length.ceil())[:, None]
            for low, place_, length in ((left, place[1], lengths[1]), (top, place[0], lengths[0]))
        ]
        there = (labels > 0).to(maps.dtype)
        coordinates = torch.stack([*positions, torch.ones_like(scores)], -1).reshape(-1, objects, points, 3)
        settled = (rest <= (scores - self.leeway if self.leeway else scores)).all(1).reshape(-1, objects)
        return {
            "keypoints": coordinates * there[:, :, None, None],
            "keypoint_scores": scores.reshape(-1, objects, points) * there.unsqueeze(-1),
            "settled": (settled | (labels == 0)).all(1),
        }

    def _begins(self, count: Tensor) -> Tensor:
        """Of detections so many pixels large [R] the first pixel of every cell, and behind the last: [R, s + 2]. The first
        cell lies before the map's first place, the last behind its last."""
        cells = torch.arange(-1, self.size + 1, device=count.device).to(count.dtype)
        # edges of cells are multiples of 1 / 2 s: where they are pixels no rounding moves them
        edges = torch.ceil((cells + 0.5) * count[:, None] / self.size - (0.5 + 0.25 / self.size))
        return torch.minimum(edges.clamp(min=0), count[:, None])

    def _bounds(self, maps: Tensor, begins: list[Tensor], lengths: list[Tensor]) -> Tensor:
        """What the enlarged map does not exceed in a cell, [R, K, (s + 1) (s + 1)]: `LOWEST` where it has no place."""
        own = []
        for first, length in zip(begins, lengths, strict=True):
            cells = torch.arange(self.size + 1, device=maps.device).to(first.dtype)
            count = length.ceil()[:, None]
            weights = _weights(self._offset(first[:, :-1], cells, count))
            own.append((weights.unsqueeze(1), (count <= self.size)[:, None, :, None]))
        bound = None
        (down, low), (along, narrow) = own
        for rows in self._coefficients(maps, 2, down.unsqueeze(3), low):
            for coefficient in self._coefficients(rows, 3, along.unsqueeze(2), narrow):
                bound = coefficient if bound is None else torch.maximum(bound, coefficient)
        assert bound is not None
        high, wide = (edges[:, 1:] > edges[:, :-1] for edges in begins)
        some = high[:, None, :, None] & wide[:, None, None, :]
        return torch.where(some, bound, LOWEST).reshape(-1, maps.shape[1], (self.size + 1) ** 2)

    def _coefficients(self, x: Tensor, dim: int, weights: Tensor, single: Tensor) -> list[Tensor]:
        """Along a dimension the Bernstein coefficients of every cell's polynomial, which four neighbours decide; where cells
        have a `single` place, all are the value there, of which `weights` are."""
        taps = [x.narrow(dim, tap, self.size + 1) for tap in range(TAPS)]
        before, begin, end, after = taps
        there = sum((tap * weights[..., place] for place, tap in enumerate(taps[1:], 1)), before * weights[..., 0])
        third = -SHARP / 3
        coefficients = [begin, begin + third * (end - before), end - third * (after - begin), end]
        return [torch.where(single, there, coefficient) for coefficient in coefficients]

    def _offset(self, place: Tensor, cell: Tensor, count: Tensor) -> Tensor:
        """How far behind a cell's first corner a pixel of `count` lies, from 0 to 1."""
        return (place + 0.5) * (self.size / count) - 0.5 - (cell - 1)

    def _around(self, maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """What the polynomials of cells [R, K, T] are of: [R, K, T, 4, 4]."""
        side, points = self.size + 2 * EDGE, maps.shape[1]
        taps = torch.arange(TAPS, device=maps.device)
        numbers = (rows[..., None, None] + taps[:, None]) * side + columns[..., None, None] + taps
        flat = maps.reshape(-1, points, side * side)
        return flat.gather(2, numbers.reshape(-1, points, self.cells * TAPS**2)).reshape(-1, points, self.cells, TAPS, TAPS)

    def _places(self, cells: Tensor, begins: Tensor, length: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
        """Along one axis the pixels of cells [R, K, T]: their numbers [R, K, T, m], which are the cell's at all, and the
        weights of what lies around the cell [R, K, T, m, 4]."""
        count = length.ceil()[:, None, None, None]
        edges = begins[:, None].expand(-1, cells.shape[1], -1)
        first = edges.gather(2, cells).unsqueeze(-1)
        numbers = first + torch.arange(most, device=cells.device).to(first.dtype)
        own = numbers < edges.gather(2, cells + 1).unsqueeze(-1)
        offset = self._offset(numbers, cells.to(first.dtype).unsqueeze(-1), count)
        return numbers, own, _weights(offset)

    def _highest(
        self, around: Tensor, y: tuple[Tensor, Tensor, Tensor], x: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The largest value of all places [R, K], and the place's row and column."""
        (rows, high, down), (columns, wide, along) = y, x
        points, (tall, broad) = around.shape[1], self.most
        values = torch.matmul(torch.matmul(down, around), along.transpose(-1, -2))
        values = torch.where(high.unsqueeze(-1) & wide.unsqueeze(-2), values, LOWEST)
        scores, place = leading(values.reshape(-1, points, self.cells * tall * broad), 1)
        line = torch.div(place, broad, rounding_mode="trunc")  # of all cells' rows
        cell = torch.div(line, tall, rounding_mode="trunc")
        column = place - line * broad + cell * broad
        row, column = (
            numbers.reshape(-1, points, self.cells * most).gather(2, chosen).squeeze(-1)
            for numbers, most, chosen in ((rows, tall, line), (columns, broad, column))
        )
        return scores.squeeze(-1), (row, column)


def _weights(t: Tensor) -> Tensor:
    """Of bicubic interpolation between the second and the third of four neighbours, at `t` from 0 to 1: [..., 4]."""
    far = [SHARP * (((d - 5) * d + 8) * d - 4) for d in (t + 1, 2 - t)]
    near = [((SHARP + 2) * d - (SHARP + 3)) * d * d + 1 for d in (t, 1 - t)]
    return torch.stack([far[0], *near, far[1]], -1)
