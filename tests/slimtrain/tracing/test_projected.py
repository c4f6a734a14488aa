"""Matrix products on fewer rows: what still tells two networks apart."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.tracing import equality, projected
from slimtrain.tracing.equality import NotEqualError, check_equal
from slimtrain.tracing.projected import ROWS, Projected, pays
from slimtrain.tracing.slimmed import make_slimmable, trace

EXAMPLE = torch.zeros(2, 3, 16, 16)
TOKENS = 64  # of an image of 16 pixels, 2 each


class Transformer(nn.Module):
    """A block of attention on patches of 2 pixels, whose places count."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.places = nn.Conv2d(3, 32, 2, 2), nn.Parameter(torch.randn(1, TOKENS, 32))
        layer = nn.TransformerEncoderLayer
        self.blocks = nn.Sequential(*(layer(32, 4, 64, 0.0, "gelu", batch_first=True, norm_first=True) for _ in range(1)))
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.blocks(tokens).mean(1))


class Halved(Transformer):
    """The same, of which only the first half of the tokens counts in the end."""

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.blocks(tokens)[:, : TOKENS // 2].mean(1))


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[type]:
    """What every comparison without copies was computed within; any linear layer is worth fewer rows."""
    seen: list[type] = []
    original = equality._of_stored

    def noting(n: SlimmableNetwork, m: nn.Module, x: Tensor, computing: AbstractContextManager[Any]) -> Any:
        seen.append(type(computing))
        return original(n, m, x, computing)

    monkeypatch.setattr(equality, "_of_stored", noting)
    monkeypatch.setattr(projected, "WORTH", 1)
    return seen


@pytest.mark.parametrize("bias", [True, False])
def test_a_product_is_that_of_the_projected_rows(bias: bool) -> None:
    """P is found by giving the product a unit matrix; it has `ROWS` directions, and keeps the size of what it projects."""
    torch.manual_seed(1)
    x, layer = torch.randn(40, 6, dtype=torch.float64), nn.Linear(6, 7, bias=bias).double()
    with torch.no_grad(), Projected():
        unit = torch.eye(40, dtype=torch.float64)
        matrix, output = unit @ unit, layer(x)
    assert int(torch.linalg.matrix_rank(matrix)) == ROWS
    torch.testing.assert_close(matrix.square().sum(), torch.tensor(40.0, dtype=torch.float64))
    torch.testing.assert_close(output, nn.functional.linear(matrix @ x, layer.weight, layer.bias).detach())


def test_few_rows_and_other_numbers_are_multiplied_as_they_are() -> None:
    few, single, weight = torch.randn(2 * ROWS - 1, 6).double(), torch.randn(40, 6), torch.randn(6, 7)
    with Projected():
        outputs = few @ weight.double(), single @ weight
    assert torch.equal(outputs[0], few @ weight.double()) and torch.equal(outputs[1], single @ weight)


def test_a_transformer_agrees_on_fewer_rows_at_once(ways: list[type]) -> None:
    make_slimmable(Transformer().eval(), EXAMPLE)
    assert ways == [Projected]


def test_every_number_of_a_transformer_counts(ways: list[type]) -> None:
    """On fewer rows alone, one number of all that are stored is another one: both do not agree then."""
    module = Transformer().eval()
    slimmable = make_slimmable(module, EXAMPLE)
    images = torch.randn(1, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    blind = []
    for name, tensor in slimmable.state_dict().items():
        for place in {0, tensor.numel() - 1}:
            before = float(tensor.view(-1)[place])
            tensor.view(-1)[place] += 1e-3
            with torch.no_grad():
                pairs = equality._of_stored(slimmable, module, images, Projected())
            if equality._largest(pairs) < 1e-9:
                blind.append((name, place))
            tensor.view(-1)[place] = before
    assert not blind


def test_other_tokens_are_noticed(ways: list[type]) -> None:
    module, other = Transformer().eval(), Halved().eval()
    slimmable = make_slimmable(module, EXAMPLE)
    with pytest.raises(NotEqualError, match="differs"):
        check_equal(slimmable, other, EXAMPLE)
    assert Projected in ways and len(ways) == 3  # then with all rows, then by copies


class Columns(nn.Module):
    """It multiplies from the left: the rows are channels, which the network orders otherwise."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight, self.inner, self.head = nn.Parameter(torch.randn(48, 48)), nn.Linear(3 * 256, 48), nn.Linear(48, 5)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.mm(self.weight, self.inner.weight).relu()
        return self.head(x.flatten(1) @ hidden.t())


def test_what_multiplies_from_the_other_side_is_compared_with_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equality, "pays", lambda graph, share: True)
    make_slimmable(Columns(), EXAMPLE)


def test_fewer_rows_pay_where_linear_layers_multiply_much() -> None:
    graph = trace(Transformer().eval(), EXAMPLE).graph
    assert not pays(graph, 1.0)
    large = trace(nn.Sequential(nn.Flatten(2), nn.Linear(1024, 1024)), torch.zeros(2, 128, 32, 32)).graph
    assert pays(large, 1.0) and not pays(large, 0.1)  # 120 rows of 2**20 saved; 4.8 of them
