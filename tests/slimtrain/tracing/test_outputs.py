"""Networks give what their modules give: at every width, dense, and read from a checkpoint."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import slimtrain
from slimtrain.groups.spec import GraphSpec
from slimtrain.tracing.exported import NotExportable
from slimtrain.tracing.slimmed import make_slimmable
from tests.support.user_outputs import Gives, seeded

Pair = namedtuple("Pair", ("boxes", "scores"))


@dataclass
class Registered:
    """A dataclass that torch knows of."""

    mask: Tensor
    loss: Tensor | None = None


@dataclass
class Unknown:
    """A dataclass that torch does not know of."""

    mask: Tensor


torch.export.register_dataclass(Registered)

# what is made of [N, 4, H, W] -> what the network gives of it, where that is something else, and the outputs' names
CASES: dict[str, tuple[Callable[[Tensor], Any], Callable[[Tensor], Any], list[str]]] = {
    "tensor": (lambda y: y, lambda y: y, ["output"]),
    "dictionary": (
        lambda y: {"z": y, "a": [y + 1, (y + 2, None)]},
        lambda y: {"z": y, "a": [y + 1, (y + 2, None)]},
        ["z", "a_0", "a_1_0"],
    ),
    "ordered": (lambda y: OrderedDict(z=y, a=2 * y), lambda y: {"z": y, "a": 2 * y}, ["z", "a"]),
    "tuple": (lambda y: (y, y.mean((2, 3))), lambda y: (y, y.mean((2, 3))), ["output_0", "output_1"]),
    "list": (lambda y: [y, -y], lambda y: [y, -y], ["output_0", "output_1"]),
    "named tuple": (lambda y: Pair(y, -y), lambda y: (y, -y), ["boxes", "scores"]),
    "dataclass": (Registered, lambda y: {"mask": y}, ["mask"]),
    "masks and classes": (lambda y: (y > 0, y.argmax(1)), lambda y: (y > 0, y.argmax(1)), ["output_0", "output_1"]),
    "twice the same": (lambda y: {"a": y, "b": y}, lambda y: {"a": y, "b": y}, ["a", "b"]),
    "logits": (lambda y: {"logits": y.mean((2, 3))}, lambda y: y.mean((2, 3)), ["logits"]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_network_gives_what_its_module_gives(case: str, tmp_path: Path) -> None:
    outputs, expected, names = CASES[case]
    module = seeded(Gives(outputs))
    network = make_slimmable(module, torch.zeros(2, 3, 8, 8), name="mine")
    spec = network.spec
    assert isinstance(spec, GraphSpec) and [name for name, _ in spec.graph.results] == names
    assert spec.classifies == (case == "logits")
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    slimtrain.save(network, tmp_path / "mine.pt")
    again = slimtrain.open_checkpoint(tmp_path / "mine.pt").network
    with torch.no_grad():
        wanted = expected(Gives.forward(_raw(module), x))
        leaves, form = pytree.tree_flatten(wanted)
        for given in (network(x), again(x), network.dense(1.0)(x)):
            if case == "named tuple":
                assert list(given._fields) == names and given.boxes is given[0]
            own, own_form = pytree.tree_flatten(tuple(given) if case == "named tuple" else given)
            assert own_form == form
            for left, right in zip(own, leaves, strict=True):
                assert left is right is None or torch.allclose(left.float(), right.float(), atol=1e-5)
        if case == "named tuple":
            compiled = torch.compile(network, fullgraph=True, backend="eager")
            assert list(compiled(x)._fields) == names
        half = network.dense(0.5)(x)
        assert pytree.tree_structure(tuple(half) if case == "named tuple" else half) == form


def _raw(module: torch.nn.Module) -> Any:
    """The same module, which gives what it computes as it is."""
    raw = Gives(lambda y: y)
    raw.load_state_dict(module.state_dict())
    return raw


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (Unknown, r"gives out a Unknown.*register_dataclass\(Unknown\)"),
        (lambda y: (y, 3), "gives out 3, which is no tensor"),
        (lambda y: {"a": None}, "gives out no tensor"),
    ],
)
def test_what_is_no_output_is_refused(outputs: Callable[[Tensor], Any], message: str) -> None:
    with pytest.raises(NotExportable, match=message):
        make_slimmable(seeded(Gives(outputs)), torch.zeros(2, 3, 8, 8))
