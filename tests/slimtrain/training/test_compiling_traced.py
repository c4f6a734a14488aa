"""Users' networks, compiled."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from slimtrain.slimmable.calibrate import calibrate
from slimtrain.tracing.slimmed import make_slimmable
from slimtrain.training.compiling import CompiledForward
from tests.support.user_networks import images, network, outputs

TYPICAL = ("residual", "shuffle", "transformer", "windows")


@pytest.fixture(autouse=True)
def compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("name", TYPICAL)
def test_a_plan_is_one_graph_and_computes_the_same(name: str) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def count(graph: torch.fx.GraphModule, examples: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    slimmable = make_slimmable(network(name), images(2)).double().train()
    plans = [slimmable.plan(width) for width in (1.0, 0.5)]
    eager, x = copy.deepcopy(slimmable), images(4, dtype=torch.float64)
    forward = CompiledForward(slimmable, plans, count)
    forward.run = torch.compile(slimmable, dynamic=False, backend=count, fullgraph=True)
    for plan in [*plans, *plans]:
        results = []
        for net, run in ((slimmable, forward), (eager, eager)):
            torch.manual_seed(0)  # of dropouts
            with net.at(plan):
                results.append(outputs(run(x)))
            sum(output.square().mean() for output in results[-1]).backward()  # type: ignore[union-attr]
        assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-12) for a, b in zip(*results, strict=True))
    assert len(graphs) == 2
    expected = dict(eager.named_parameters())
    for key, parameter in slimmable.named_parameters():
        assert torch.allclose(parameter.grad, expected[key].grad, rtol=1e-8, atol=1e-10), key  # type: ignore[arg-type]
    buffers = dict(eager.named_buffers())
    assert all(torch.allclose(buffer, buffers[key], rtol=1e-9) for key, buffer in slimmable.named_buffers())


def test_evaluation_compiles_too() -> None:
    """Activations in place included."""
    slimmable = make_slimmable(network("residual"), images(2)).eval()
    plan = slimmable.plan(0.5)
    calibrate(slimmable, [plan], [images(8)])
    forward = CompiledForward(slimmable, [plan], "aot_eager")
    with torch.no_grad(), slimmable.at(plan):
        assert torch.allclose(forward(images(3)), slimmable(images(3)), rtol=1e-5, atol=1e-6)
