"""Making a network where it is easily wrong: gradients of what is written, outputs that are not finite, modules that cannot be
copied, and what users do to the network afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from slimexport.onnx_files.typed import to_typed
from slimtrain.base.errors import UserError
from slimtrain.graph.structure import plain_structure, read_structure
from slimtrain.slimmable.calibrate import calibrate
from slimtrain.tracing import equality
from slimtrain.tracing.slimmed import make_slimmable
from tests.support.onnx_helpers import logits
from tests.support.onnx_writing import plan_onnx
from tests.support.user_networks import images

EXAMPLE = torch.zeros(2, 3, 16, 16)


class Given(nn.Module):
    """Two convolutions and the rest of a forward pass."""

    def __init__(self, forward: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.c, self.written = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 5, 1), forward

    def forward(self, x: Tensor) -> Any:
        return self.written(self, x)

    def head(self, h: Tensor) -> Tensor:
        result: Tensor = self.c(h).mean((2, 3))
        return result


def writing(self: Any, x: Tensor) -> Tensor:
    h = self.a(x).relu().clone()
    h[:, :4] = h[:, :4] * 2
    h[:, 4:] += 1
    result: Tensor = self.head(h)
    return result


def test_gradients_of_written_slices_are_the_module_s() -> None:
    module = Given(writing).train()
    network = make_slimmable(module, EXAMPLE, order="none").train()
    x = images(2)
    module(x).square().sum().backward()
    network(x).square().sum().backward()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(network.get_parameter(name).grad, parameter.grad)
    dense = network.dense(0.5)
    dense(x).sum().backward()
    assert all(parameter.grad is not None for parameter in dense.parameters())


def test_a_wrong_second_output_is_seen_and_infinities_that_agree_are_right() -> None:
    module = Given(lambda s, x: (y := s.head(s.a(x).relu()), y.masked_fill(y < y.amax(1, keepdim=True), -torch.inf))).eval()
    network = make_slimmable(module, EXAMPLE)
    whole = network.body.given
    network.body.__dict__["given"] = lambda slots: (whole(slots)[0], whole(slots)[1] * torch.nan)
    with pytest.raises(equality.NotEqualError):
        equality.check_equal(network, module, EXAMPLE)


def test_an_output_without_numbers() -> None:
    network = make_slimmable(Given(lambda s, x: (s.head(s.a(x)), x[:, :0])).eval(), EXAMPLE)
    assert network(EXAMPLE)[1].shape == (2, 0, 16, 16)


def test_modules_that_keep_what_no_copy_takes() -> None:
    pruned = Given(lambda s, x: s.head(s.a(x))).eval()
    prune.l1_unstructured(pruned.a, "weight", 0.5)  # type: ignore[no-untyped-call]
    pruned(EXAMPLE)
    make_slimmable(pruned, EXAMPLE)
    locked = Given(lambda s, x: s.head(s.a(x)).double().float()).eval()
    locked.lock = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"cannot be copied.*check=False"):
        make_slimmable(locked, EXAMPLE)
    make_slimmable(locked, EXAMPLE, check=False)


def test_a_proof_by_copies_leaves_the_module_as_it_is() -> None:
    """In float64 this module differs from its graph, in which casts to float32 are none: copies in float32 decide."""
    module = Given(lambda s, x: s.head(s.a(x).float().relu()).float()).eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    network = make_slimmable(module, EXAMPLE, order="none", check=False)
    plain = Given(lambda s, x: s.head(s.a(x).relu())).eval()
    equality._of_copies(network, plain, [EXAMPLE.double()], torch.float64)
    assert {tensor.dtype for tensor in plain.state_dict().values()} == {torch.float32}
    equality.check_equal(network, module, EXAMPLE)
    for part in (module, network):
        assert all(torch.equal(before[name], tensor) for name, tensor in part.state_dict().items())
        assert {tensor.dtype for tensor in part.state_dict().values()} == {torch.float32}


def test_a_network_made_where_nothing_is_trained_can_be() -> None:
    module = Given(lambda s, x: s.head(s.a(x).relu())).eval()
    with torch.inference_mode():
        network = make_slimmable(module, EXAMPLE)
    network.train()(EXAMPLE).sum().backward()


def test_what_is_no_plan_is_said() -> None:
    network = make_slimmable(Given(lambda s, x: s.head(s.a(x).relu())).eval(), EXAMPLE)
    with pytest.raises(UserError, match=r"0\.5 is no plan.*network\.plan"), network.at(0.5):  # type: ignore[arg-type]
        pass


def test_statistics_without_numbers_are_none() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    network = make_slimmable(module, EXAMPLE)
    plan = network.plan(0.5)
    calibrate(network, [plan], [images(4)])
    assert network.has_statistics(plan)
    assert not network.to("meta").has_statistics(plan)


def test_one_tensor_under_two_names_in_fp16() -> None:
    network = make_slimmable(Given(lambda s, x: {"l": (y := s.head(s.a(x).relu())), "k": y}).eval(), EXAMPLE)
    model = plan_onnx(network, network.plan(1.0), 16)
    assert logits(to_typed(model, "fp16")[0], images(2).numpy()).shape == (2, 5)


@pytest.mark.parametrize("keys", ["ab", ["a" * 100_000, "b"]])
def test_keys_of_outputs_are_a_list_of_words(keys: object) -> None:
    network = make_slimmable(Given(lambda s, x: {"a": (y := s.head(s.a(x))), "b": y + 1}).eval(), EXAMPLE)
    structure = network.spec.graph.structure
    assert structure is not None
    kind, _, parts = plain_structure(structure)
    assert read_structure([kind, ["a", "b"], parts]) == structure
    with pytest.raises(ValueError, match="no keys"):
        read_structure([kind, keys, parts])
