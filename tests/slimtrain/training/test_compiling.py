"""How often a network that changes its width is compiled, and that it computes the same."""

from __future__ import annotations

import importlib.util
import logging
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from slimtrain.base.errors import ResourceError
from slimtrain.models.architecture import Architecture, ChannelList, Layers, M
from slimtrain.models.channels import ChannelPlan, Dim, Wiring
from slimtrain.models.registry import ARCHITECTURES
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.training.compiling import MOST_PLANS, SYNCHRONIZES, CompiledForward, check_compiler, check_compiling
from slimtrain.training.distributed import Processes
from slimtrain.training.optimizer import sgd
from slimtrain.training.sampling import WidthSampler
from slimtrain.training.step import Gradients, Stepper
from tests.support.run_helpers import config, failure
from tests.support.slimtrain_processes import alone, in_processes
from tests.support.slimtrain_states import State, gap, images, network_of, random_state
from tests.support.specs import spec_of

RANGE = (0.25, 1.0)


class Tiny(Architecture):
    """Two units: quick to compile, and 76 widths of it differ."""

    name = "tiny"

    def channel_list(self, family: str, width: float, widest: float = 1.0) -> tuple[int, ...]:
        return round(100 * width), round(40 * width)

    def wire(self, lists: Sequence[ChannelList]) -> Wiring:
        return Wiring(("a", "b"), ())

    def build(self, layers: Layers[M], wiring: Wiring, classes: int, stem_stride: int = 2) -> M:
        a, b = Dim.of("a"), Dim.of("b")
        body = [layers.depthwise(a, 3), layers.norm(a), layers.relu6(), layers.conv(a, b, 1), layers.norm(b)]
        return layers.network([layers.unit(3, a, 3, 2, layers.relu6()), layers.sequential(body)], b, classes)


class Counting:
    """A backend of torch.compile that counts graphs and runs them as they are."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, examples: list[Tensor]) -> Any:
        self.graphs += 1
        return graph.forward


@pytest.fixture(autouse=True)
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A compiler that has seen nothing, with the limits it comes with, which come back."""
    import torch._dynamo

    monkeypatch.setitem(ARCHITECTURES, "tiny", Tiny())
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=8, accumulated_recompile_limit=256):
        yield
    torch._dynamo.reset()


def us(architecture: str = "tiny") -> NetworkSpec:
    return NetworkSpec(architecture, "us", RANGE, 10, width_range=RANGE)


def s(*switches: float) -> NetworkSpec:
    return NetworkSpec("tiny", "s", switches, 10)


def network_for(spec: NetworkSpec) -> SlimmableNetwork:
    return network_of(spec, random_state(spec)).train()


def run(
    network: SlimmableNetwork, forward: CompiledForward, steps: Sequence[Sequence[ChannelPlan]], sizes: Sequence[int] = (4,)
) -> None:
    for plans in steps:
        for size in sizes:
            for plan in plans:
                with network.at(plan):
                    forward(images(size, 8)).sum().backward()  # type: ignore[no-untyped-call]


def grid_plans(sampler: WidthSampler) -> list[ChannelPlan]:
    return [*sampler.fixed, *(sampler.spec.plan(width) for width in sampler.grid)]


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (WidthSampler(s(0.25, 0.5, 0.75, 1.0)), 4),
        (WidthSampler(us()), 2),
        (WidthSampler(us(), width_step=0.05), 16),
    ],
    ids=["s", "us", "grid"],
)
def test_every_plan_that_comes_back_is_compiled_once(
    sampler: WidthSampler, expected: int, caplog: pytest.LogCaptureFixture
) -> None:
    network, count = network_for(spec_of(sampler)), Counting()
    forward = CompiledForward(network, grid_plans(sampler), count)
    assert (len(forward.plans), len(forward.compiled), count.graphs) == (expected, 0, 0)
    with caplog.at_level(logging.WARNING):
        run(network, forward, [sampler(step) for step in range(60)])
        assert count.graphs == len(forward.compiled) == expected
        run(network, forward, [sampler(step) for step in range(60, 100)])
    assert count.graphs == expected
    assert forward.compiled == forward.plans
    assert "recompile" not in caplog.text


def test_giving_up_would_be_seen(caplog: pytest.LogCaptureFixture) -> None:
    """What the test before looks for: with torch's own limit the compiler gives up on 16 widths, and says so."""
    import torch._dynamo

    sampler, count = WidthSampler(us(), width_step=0.05), Counting()
    network = network_for(spec_of(sampler))
    forward = CompiledForward(network, grid_plans(sampler), count)
    with torch._dynamo.config.patch(recompile_limit=8), caplog.at_level(logging.WARNING):
        run(network, forward, [grid_plans(sampler)])
    assert count.graphs == 8
    assert "recompile_limit" in caplog.text


def test_batches_in_parts_of_four_sizes_stay_within_the_limit(caplog: pytest.LogCaptureFixture) -> None:
    """7 images in two parts, and a last batch of 3 in two parts."""
    sampler, count = WidthSampler(s(0.25, 0.5, 1.0)), Counting()
    network = network_for(spec_of(sampler))
    forward = CompiledForward(network, grid_plans(sampler), count)
    with caplog.at_level(logging.WARNING):
        run(network, forward, [sampler(step) for step in range(2)], sizes=(4, 3, 2, 1))
    assert count.graphs == 12
    assert "recompile" not in caplog.text


def test_drawn_widths_run_eagerly() -> None:
    sampler, count = WidthSampler(us()), Counting()
    network = network_for(spec_of(sampler))
    forward = CompiledForward(network, sampler.fixed, count)
    drawn = [plan for step in range(10) for plan in sampler(step)[2:] if plan not in sampler.fixed]
    run(network, forward, [drawn])
    assert len(drawn) > 10 and count.graphs == 0 and forward.compiled == set()
    plan, x = drawn[0], images(4, 8)
    with network.at(plan):
        assert torch.equal(forward(x), network(x))


def test_at_most_64_plans_are_compiled_the_first_ones() -> None:
    sampler = WidthSampler(us(), width_step=0.01)
    plans = grid_plans(sampler)
    assert len(dict.fromkeys(plans)) == 76
    forward = CompiledForward(network_for(spec_of(sampler)), plans, Counting())
    assert len(forward.plans) == MOST_PLANS == 64
    assert forward.plans == set(list(dict.fromkeys(plans))[:64]) and forward.plans >= set(sampler.fixed)


def test_limits_that_a_user_raised_are_kept() -> None:
    import torch._dynamo

    with torch._dynamo.config.patch(recompile_limit=5000):
        CompiledForward(network_for(us()), us().plans, Counting())
        assert torch._dynamo.config.recompile_limit == 5000


@pytest.mark.parametrize("sampler", [WidthSampler(s(0.25, 1.0)), WidthSampler(us())], ids=["s", "us"])
def test_compiled_steps_are_those_of_the_eager_network(sampler: WidthSampler) -> None:
    outcomes: list[tuple[State, State, list[float]]] = []
    for compiled in (False, True):
        network = network_for(spec_of(sampler))
        gradients = Gradients(network, sampler.count, alone(), synchronized=False)
        forward = CompiledForward(network, sampler.fixed, "aot_eager") if compiled else None
        steps = Stepper(
            network, sgd(network, 0.1, 0.9, True, 1e-4), gradients, smoothing=0.1, distill=True, amp="none", forward=forward
        )
        losses: list[float] = []
        for step in range(3):
            losses += steps.compute(sampler(step), images(4, 8, seed=step), torch.tensor([1, 5, 2, 2]), 4).tolist()
            steps.apply(0.01)
        grads = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
        assert all(p.grad is not None for p in network.parameters())
        outcomes.append((dict(network.state_dict()), grads, losses))
        assert forward is None or len(forward.compiled) == 2
    (state, grads, losses), (compiled_state, compiled_grads, compiled_losses) = outcomes
    assert compiled_losses == pytest.approx(losses, rel=1e-12)
    scale = max(float(value.abs().max()) for value in grads.values())
    for key, value in grads.items():
        assert float((compiled_grads[key] - value).abs().max()) < 1e-10 * scale, key
    for key, value in state.items():  # running statistics, and how often they were updated, included
        torch.testing.assert_close(compiled_state[key], value, rtol=1e-9, atol=1e-11, msg=key)


def synchronized_gradients(joined: Processes) -> tuple[int, State, State]:
    """Graphs, and the gradients without and with them, of norms that take statistics over processes."""
    ARCHITECTURES["tiny"] = Tiny()
    sampler, count, steps = WidthSampler(us(), sandwich=2), Counting(), []
    for compiled in (False, True):
        network = network_for(spec_of(sampler))
        network.synchronize(True)
        forward = CompiledForward(network, sampler.fixed, count) if compiled else network
        for step in range(2):
            for plan in sampler(step):
                with network.at(plan):
                    forward(images(3 + joined.rank, 8, seed=joined.rank)).square().sum().backward()
        steps.append({name: p.grad for name, p in network.named_parameters() if p.grad is not None})
    return count.graphs, steps[0], steps[1]


def test_an_old_torch_is_not_trusted_with_norms_over_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    check_compiling(False)
    monkeypatch.setattr(torch, "__version__", "2.11.0+cpu")
    check_compiling(False)
    with pytest.raises(ResourceError, match=r"torch 2\.11.*wrong gradients"):
        check_compiling(True)
    monkeypatch.setattr(torch, "__version__", "2.14.1")
    check_compiling(True)


@pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < SYNCHRONIZES, reason="this torch compiles collectives wrongly"
)
def test_norms_over_processes_are_part_of_the_graph() -> None:
    for graphs, eager, compiled in in_processes(2, synchronized_gradients):
        assert graphs == 2
        assert eager.keys() == compiled.keys() and len(eager) == 11
        scale = max(float(value.abs().max()) for value in eager.values())
        assert all(float((compiled[key] - value).abs().max()) < 1e-10 * scale for key, value in eager.items())


def test_a_published_architecture_is_one_graph_per_plan() -> None:
    """Nothing in a network's forward pass makes the compiler stop and start again."""
    spec = NetworkSpec("mobilenet_v1", "us", (0.25, 0.5), 10, width_range=(0.25, 0.5), stem_stride=1)
    network, count = network_for(spec), Counting()
    forward = CompiledForward(network, spec.plans[:1], count)
    x = images(4, 16)
    with network.at(spec.plans[0]):
        output = forward(x)
        assert gap(output.detach(), network(x).detach()) < 1e-12
    assert count.graphs == 1


# ------------------------------------------------------------------------------------------------ what kernels are built with


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds all commands there are."""
    for key in ("CXX", "CC"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    return tmp_path


def make(folder: Path, name: str) -> None:
    (folder / name).write_text("#!/bin/sh\n")
    (folder / name).chmod(0o755)


CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_without_a_compiler(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the advice leads on."""
    with pytest.raises(
        ResourceError, match=r"needs a C\+\+ compiler, and g\+\+ cannot be run here.*apt-get install g"
    ) as caught:
        check_compiler(CPU)
    assert caught.value.exit_code == 3
    make(commands, "mine")
    monkeypatch.setenv("CXX", "mine -m64")
    check_compiler(CPU)
    monkeypatch.delenv("CXX")
    make(commands, "g++")
    check_compiler(CPU)
    monkeypatch.setenv("CXX", "ccache g++")  # torch asks for that one then
    with pytest.raises(ResourceError, match="ccache"):
        check_compiler(CPU)


def test_without_headers(commands: Path) -> None:
    make(commands, "g++")
    (commands / "Python.h").unlink()
    with pytest.raises(ResourceError, match="python3-dev"):
        check_compiler(CPU)


def test_on_a_gpu(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ResourceError, match="pip install triton"):
        check_compiler(CUDA)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ResourceError, match="needs a C compiler"):
        check_compiler(CUDA)
    make(commands, "clang")
    check_compiler(CUDA)


def test_a_run_tells_it_before_it_begins(commands: Path, tmp_path: Path) -> None:
    failure(config(tmp_path / "run", compile=True), ResourceError, "--compile: needs a C++ compiler")
    assert not (tmp_path / "run").exists()
