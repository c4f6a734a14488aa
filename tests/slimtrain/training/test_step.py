"""A step's gradients against those of dense networks: for every plan an ordinary network of its own, built of `torch.nn`
layers that hold the leading corners of the weights, whose gradients are added up where the corners came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slimtrain.models.channels import ChannelPlan
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.training.optimizer import sgd
from slimtrain.training.sampling import WidthSampler
from slimtrain.training.step import Gradients, Stepper, accumulate_gradients
from tests.support.module_layers import DenseLayers
from tests.support.slimtrain_processes import alone
from tests.support.slimtrain_states import State, gap, images, network_of, random_state
from tests.support.specs import spec_of

CLASSES = 10
EXACT = 1e-10  # of the largest gradient of the tensor, float64
LABELS = torch.tensor([3, 1, 9, 0, 5, 5, 7, 2])


def us(architecture: str, low: float, high: float) -> NetworkSpec:
    return NetworkSpec(architecture, "us", (low, high), CLASSES, width_range=(low, high), stem_stride=1)


def s(architecture: str, *switches: float) -> NetworkSpec:
    return NetworkSpec(architecture, "s", switches, CLASSES, stem_stride=1)


LISTS = ((8, 16, 24, 16, 8, 24, 16) * 2, (16, 24, 24, 8, 16, 32, 24) * 2)  # not nested: the second is narrower in places
SAMPLERS = {
    "s_v1": WidthSampler(s("mobilenet_v1", 0.25, 0.5)),
    "s_v2": WidthSampler(s("mobilenet_v2", 0.2, 0.35)),
    "s_resnet": WidthSampler(s("resnet50", 0.0625, 0.125)),
    "s_shufflenet": WidthSampler(s("shufflenet", 0.25, 0.5)),
    "autoslim": WidthSampler(NetworkSpec("mobilenet_v1", "autoslim", (1, 2), CLASSES, LISTS, stem_stride=1)),
    "us_v1": WidthSampler(us("mobilenet_v1", 0.25, 0.5)),
    "us_v1_grid": WidthSampler(us("mobilenet_v1", 0.25, 0.5), width_step=0.1),
    "us_v2_nonuniform": WidthSampler(us("mobilenet_v2", 0.2, 0.4), sandwich=3, nonuniform=True),
    "us_resnet_nonuniform": WidthSampler(us("resnet50", 0.125, 0.25), sandwich=3, nonuniform=True),
}


def stepper(network: SlimmableNetwork, plans: int, **options: Any) -> Stepper:
    gradients = Gradients(network, plans, alone(), synchronized=False)
    chosen = {"smoothing": 0.0, "distill": False, "amp": "none", **options}
    return Stepper(network, sgd(network, 0.1, 0.9, True, 1e-4), gradients, **chosen)


def gradients_of(network: SlimmableNetwork) -> State:
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def dense(spec: NetworkSpec, plan: ChannelPlan, state: State) -> tuple[nn.Module, dict[str, str]]:
    """The dense network of a plan, in training mode, and where in the slimmable network its parameters come from."""
    with torch.device("meta"):
        network = spec.build(DenseLayers(plan))
    taken, source = {}, {}
    for name, empty in network.state_dict().items():
        path, _, leaf = name.rpartition(".")
        if leaf in ("running_mean", "running_var", "num_batches_tracked"):  # unused in training
            taken[name] = torch.zeros_like(
                state["classifier.0.bias"] if leaf != "num_batches_tracked" else empty, device="cpu"
            )
            taken[name] = taken[name].new_zeros(empty.shape)
            continue
        source[name] = name
        if spec.family != "us" and f"{path}.bn.0.{leaf}" in state:
            source[name] = f"{path}.bn.{spec.plans.index(plan)}.{leaf}"
        taken[name] = state[source[name]][tuple(slice(size) for size in empty.shape)].clone()
    network.load_state_dict(taken, assign=True)
    return network.train(), source


def expected_step(
    spec: NetworkSpec,
    plans: Sequence[ChannelPlan],
    state: State,
    x: Tensor,
    labels: Tensor,
    *,
    smoothing: float = 0.0,
    distill: bool = False,
    detached: bool = True,
    half: torch.dtype | None = None,
) -> tuple[State, list[float], dict[ChannelPlan, nn.Module]]:
    """The sum of the dense networks' gradients, their losses, and themselves. Losses are written out; the teacher is a
    constant, or with `detached` false part of every loss."""
    dense_networks: list[tuple[nn.Module, dict[str, str]]] = [dense(spec, plan, state) for plan in plans]
    losses: list[Tensor] = []
    teacher = torch.empty(0)
    for i, (network, _) in enumerate(dense_networks):
        with torch.autocast("cpu", half, enabled=half is not None):
            logits = network(x)
        logits = logits.to(x.dtype)
        log = logits - logits.logsumexp(1, keepdim=True)
        target = torch.full_like(logits, smoothing / (CLASSES - 1))
        target[torch.arange(len(labels)), labels] = 1 - smoothing
        if i and distill:
            target = teacher
        losses.append(-(target * log).sum(1).mean())
        if not i:
            teacher = log.exp().detach() if detached else log.exp()
    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
    total = {key: torch.zeros_like(value) for key, value in state.items() if value.is_floating_point()}
    for network, source in dense_networks:
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None
            total[source[name]][tuple(slice(size) for size in parameter.shape)] += parameter.grad
    networks = {plan: network for plan, (network, _) in zip(plans, dense_networks, strict=True)}
    return total, [float(loss.detach()) for loss in losses], networks


def assert_same(actual: State, expected: State, tolerance: float = EXACT) -> None:
    assert actual.keys() == {key for key in expected if not key.endswith(("running_mean", "running_var"))}
    scale = max(float(value.abs().max()) for value in expected.values())
    for key, value in actual.items():
        wanted = expected[key]
        # A weight before a norm may have a gradient of rounding alone: the network's own scale bounds that.
        assert float((value - wanted).abs().max()) <= tolerance * max(float(wanted.abs().max()), 1e-3 * scale), key


CASES = [(name, "distilled") for name in SAMPLERS]
CASES += [(name, rule) for name in ("s_v1", "us_v1", "autoslim") for rule in ("labels", "smoothed")]


@pytest.mark.parametrize(("name", "rule"), CASES)
def test_gradients_are_the_sum_of_those_of_dense_networks(name: str, rule: str) -> None:
    sampler = SAMPLERS[name]
    options: dict[str, Any] = {"smoothing": 0.1 if rule != "labels" else 0.0, "distill": rule == "distilled"}
    state, x, plans = random_state(spec_of(sampler)), images(8, 16), sampler(0)
    expected, losses, _ = expected_step(spec_of(sampler), plans, state, x, LABELS, **options)
    network = network_of(spec_of(sampler), {key: value.clone() for key, value in state.items()})
    result = stepper(network, sampler.count, **options).compute(plans, x, LABELS, 8)
    assert result.tolist() == pytest.approx(losses, rel=1e-10)
    assert_same(gradients_of(network), expected)
    for _, module in network.named_parameters():
        assert module.grad is not None and module.grad.dtype == torch.float64


def test_the_plans_of_the_test_are_drawn_ones_of_different_sizes() -> None:
    for name, sampler in SAMPLERS.items():
        plans = sampler(0)
        if name.startswith("us"):
            assert any(plan not in sampler.spec.plans for plan in plans[2:]), name
        assert len({tuple(plan.channels.values()) for plan in plans}) >= min(len(plans), 3), name


def test_the_teacher_is_a_constant() -> None:
    """Had the teacher learned from its pupils too, its gradients would be others."""
    sampler = SAMPLERS["us_v1"]
    state, x, plans = random_state(spec_of(sampler)), images(8, 16), sampler(0)
    network = network_of(spec_of(sampler), {key: value.clone() for key, value in state.items()})
    stepper(network, sampler.count, distill=True).compute(plans, x, LABELS, 8)
    gradients = gradients_of(network)
    entangled, _, _ = expected_step(spec_of(sampler), plans, state, x, LABELS, distill=True, detached=False)
    for key in ("features.0.0.weight", "features.13.body.3.weight", "classifier.0.weight", "features.3.body.4.bias"):
        assert gap(gradients[key], entangled[key]) > 1e-3


def test_distillation_keeps_labels_from_the_narrower_plans() -> None:
    sampler = SAMPLERS["s_v1"]
    widest, narrow = sampler(0)
    results = []
    for labels in (LABELS, (LABELS + 1) % CLASSES):
        network = network_of(spec_of(sampler), random_state(spec_of(sampler)))
        losses = stepper(network, 2, distill=True).compute([widest, narrow], images(8, 16), labels, 8)
        results.append((losses.tolist(), gradients_of(network)))
    (first, a), (second, b) = results
    assert first[1] == second[1] and abs(first[0] - second[0]) > 1e-3
    # Scale and shift belong to a switch: the narrow one's come from its own loss alone.
    narrow_index = sampler.spec.plans.index(narrow)
    for key, value in a.items():
        if f".bn.{narrow_index}." in key:
            assert torch.equal(value, b[key]), key
        elif f".bn.{1 - narrow_index}." in key:
            assert not torch.equal(value, b[key]), key


# --------------------------------------------------------------------------------------------------- parts of a batch


def test_parts_are_added_up_over_the_total_of_the_step() -> None:
    """Each part is normalized by its own statistics, so the reference, too, takes the parts one by one."""
    sampler = SAMPLERS["us_v1"]
    state, x, plans = random_state(spec_of(sampler)), images(8, 32), sampler(0)
    network = network_of(spec_of(sampler), {key: value.clone() for key, value in state.items()})
    losses = stepper(network, sampler.count, distill=True, parts=3).compute(plans, x, LABELS, 16)  # 16: two processes
    total: State = {}
    wanted = [0.0] * len(plans)
    for rows in (slice(0, 3), slice(3, 6), slice(6, 8)):
        share = len(LABELS[rows]) / 16
        part, mean, _ = expected_step(spec_of(sampler), plans, state, x[rows], LABELS[rows], distill=True)
        total = {key: total.get(key, torch.zeros(())) + share * value for key, value in part.items()}
        wanted = [a + share * b for a, b in zip(wanted, mean, strict=True)]
    assert_same(gradients_of(network), total)
    assert losses.tolist() == pytest.approx(wanted, rel=1e-10)


def test_where_norms_do_not_look_at_the_batch_parts_make_no_difference() -> None:
    """With the stored statistics instead of the batch's a step in parts is the step."""
    sampler = SAMPLERS["s_v1"]
    results = []
    for parts in (1, 4):
        network = network_of(spec_of(sampler), random_state(spec_of(sampler)))
        for parameter in network.parameters():
            parameter.grad = None
        for part, labels in zip(images(8, 32).chunk(parts), LABELS.chunk(parts), strict=True):
            accumulate_gradients(network, sampler(0), part, labels, 8, smoothing=0.1, distill=True)
        results.append(gradients_of(network))
    assert_same(results[1], results[0])


def test_a_second_step_starts_from_nothing() -> None:
    sampler = SAMPLERS["us_v1"]
    network = network_of(spec_of(sampler), random_state(spec_of(sampler)))
    steps = stepper(network, sampler.count)
    steps.compute(sampler(1), images(8, 16, seed=9), LABELS, 8)
    steps.compute(sampler(0), images(8, 16), LABELS, 8)
    second, losses = gradients_of(network), steps.gradients.losses.clone()
    alone = network_of(spec_of(sampler), random_state(spec_of(sampler)))
    assert torch.equal(stepper(alone, sampler.count).compute(sampler(0), images(8, 16), LABELS, 8), losses)
    assert_same(second, gradients_of(alone), 0.0)


def test_a_step_trains_also_after_a_test() -> None:
    sampler = SAMPLERS["s_v1"]
    network = network_of(spec_of(sampler), random_state(spec_of(sampler)))
    assert not network.training
    before = network.state_dict()["features.0.1.bn.0.running_mean"].clone()
    stepper(network, 2).compute(sampler(0), images(8, 16), LABELS, 8)
    assert network.training
    assert not torch.equal(network.state_dict()["features.0.1.bn.0.running_mean"], before)


def test_apply_takes_the_rate_it_is_given() -> None:
    sampler = SAMPLERS["s_v1"]
    network = network_of(spec_of(sampler), random_state(spec_of(sampler)))
    steps = stepper(network, 2)
    steps.compute(sampler(0), images(8, 16), LABELS, 8)
    key = "features.3.body.1.bn.0.weight"  # does not decay: its first step is lr (1 + momentum) times the gradient
    before, gradient = network.state_dict()[key].clone(), gradients_of(network)[key]
    steps.apply(0.025)
    assert float(gradient.abs().max()) > 0
    torch.testing.assert_close(network.state_dict()[key], before - 0.025 * 1.9 * gradient, rtol=1e-12, atol=0)


# ------------------------------------------------------------------------------------------------------------ statistics


@pytest.mark.parametrize("name", ["s_v1", "us_v1", "us_v2_nonuniform"])
def test_statistics_follow_their_own_plan_and_drawn_plans_leave_none(name: str) -> None:
    sampler = SAMPLERS[name]
    spec, x = spec_of(sampler), images(8, 16)
    state = random_state(spec)
    plans = [plan for plan in sampler(0) if plan in spec.plans or plan not in sampler.fixed]
    network = network_of(spec, {key: value.clone() for key, value in state.items()})
    stepper(network, len(plans)).compute(plans, x, LABELS, 8)
    _, _, denses = expected_step(spec, plans, state, x, LABELS)
    after = network.state_dict()
    for path in network.norms:
        if f"{path}.bn.0.running_mean" not in after:
            continue  # MobileNet v2's tail: every plan moves it
        for index, plan in enumerate(spec.plans):
            batch = denses[plan].state_dict()  # began at 0, so it holds a tenth of the batch's statistics
            for key in ("running_mean", "running_var"):
                moved = 0.9 * state[f"{path}.bn.{index}.{key}"] + batch[f"{path}.{key}"]
                torch.testing.assert_close(after[f"{path}.bn.{index}.{key}"], moved, rtol=1e-9, atol=1e-11)
            assert int(after[f"{path}.bn.{index}.num_batches_tracked"]) == 1
    kinds = {key.rpartition(".")[2] for key in after if ".bn." in key}
    assert kinds >= {"running_mean", "running_var"}


def test_drawn_plans_alone_move_nothing() -> None:
    sampler = SAMPLERS["us_v1"]
    network = network_of(spec_of(sampler), random_state(spec_of(sampler)))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    plans = [plan for step in range(4) for plan in sampler(step)[2:] if plan not in sampler.spec.plans]
    assert len(plans) >= 4
    stepper(network, len(plans)).compute(plans, images(8, 16), LABELS, 8)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


# -------------------------------------------------------------------------------------------------------- half precision


def float32_network(spec: NetworkSpec) -> SlimmableNetwork:
    return network_of(spec, {k: v.float() if v.is_floating_point() else v for k, v in random_state(spec).items()})


def half_stepper(network: SlimmableNetwork, plans: int, amp: str, **options: Any) -> Stepper:
    """The default scale, 65,536, is for training to come down from: here it begins where nothing overflows."""
    steps = stepper(network, plans, amp=amp, **options)
    if amp == "fp16":
        steps.scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    return steps


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_half_precision_is_that_of_dense_networks(amp: str) -> None:
    """Rounding grows over 27 layers of random weights, so that gradients of any two precisions are far apart but for the
    last layer's; networks of the same precision agree."""
    sampler = WidthSampler(us("mobilenet_v1", 0.25, 0.5), sandwich=3)
    network = float32_network(spec_of(sampler))
    state = {key: value.clone() for key, value in network.state_dict().items()}
    x, plans = images(8, 16).float(), sampler(0)
    steps = half_stepper(network, sampler.count, amp, distill=True, smoothing=0.1)
    losses = steps.compute(plans, x, LABELS, 8)
    scale = steps.scaler.get_scale() if amp == "fp16" else 1.0
    gradients = {key: value / scale for key, value in gradients_of(network).items()}
    assert {value.dtype for value in gradients.values()} == {losses.dtype} == {torch.float32}
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}[amp]
    same, same_losses, _ = expected_step(spec_of(sampler), plans, state, x, LABELS, smoothing=0.1, distill=True, half=half)
    full, full_losses, _ = expected_step(spec_of(sampler), plans, state, x, LABELS, smoothing=0.1, distill=True)
    assert losses.tolist() == pytest.approx(same_losses, rel=1e-5)
    assert losses.tolist() == pytest.approx(full_losses, rel=0.03)
    assert_same(gradients, same, {"bf16": 1e-3, "fp16": 0.02}[amp])  # fp16's small gradients depend on the scale
    bias = "classifier.0.bias"
    assert 1e-6 < gap(gradients[bias], full[bias]) < {"bf16": 0.3, "fp16": 0.05}[amp]


def test_convolutions_run_in_the_chosen_precision() -> None:
    sampler = SAMPLERS["s_v1"]
    for amp, dtype in (("none", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        network = float32_network(spec_of(sampler))
        seen: set[torch.dtype] = set()
        norm = network.get_submodule("features.3.body.4")  # it reads what the convolution before it makes
        norm.register_forward_pre_hook(lambda m, inputs, seen=seen: seen.add(inputs[0].dtype))
        stepper(network, 2, amp=amp).compute(sampler(0), images(4, 32).float(), LABELS[:4], 4)
        assert seen == {dtype}


def test_fp16_steps_are_those_of_unscaled_gradients() -> None:
    sampler = SAMPLERS["s_v1"]
    network = float32_network(spec_of(sampler))
    steps = half_stepper(network, 2, "fp16")
    steps.compute(sampler(0), images(8, 16).float(), LABELS, 8)
    key = "features.3.body.1.bn.0.weight"
    before, scaled = network.state_dict()[key].clone(), gradients_of(network)[key]
    scale = steps.scaler.get_scale()
    assert scale > 1
    steps.apply(0.1)
    torch.testing.assert_close(network.state_dict()[key], before - 0.1 * 1.9 * scaled / scale, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_fp16_skips_a_step_whose_gradients_overflow_and_lowers_the_scale(bad: float) -> None:
    sampler = SAMPLERS["s_v1"]
    network = float32_network(spec_of(sampler))
    steps = half_stepper(network, 2, "fp16")
    x = images(8, 16).float()
    steps.compute(sampler(0), x, LABELS, 8)
    scale = steps.scaler.get_scale()
    network.get_parameter("features.5.body.3.weight").grad[0, 0] = bad  # type: ignore[index]
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    steps.apply(0.1)
    assert all(torch.equal(p, before[name]) for name, p in network.named_parameters())
    assert steps.scaler.get_scale() == scale / 2
    assert not steps.optimizer.state  # no momentum either
    losses = steps.compute(sampler(0), x, LABELS, 8)  # and the next one learns
    assert bool(torch.isfinite(losses).all())
    steps.apply(0.1)
    assert not torch.equal(network.get_parameter("features.5.body.3.weight"), before["features.5.body.3.weight"])


def test_the_scale_reaches_the_gradients_and_not_the_losses() -> None:
    sampler = SAMPLERS["s_v1"]
    results = []
    for scale in (1.0, 1024.0):
        network, losses = (
            network_of(spec_of(sampler), random_state(spec_of(sampler))).train(),
            torch.zeros(2, dtype=torch.float64),
        )
        accumulate_gradients(network, sampler(0), images(8, 16), LABELS, 8, scale=scale, losses=losses)
        results.append((losses, gradients_of(network)))
    assert torch.equal(results[0][0], results[1][0])
    assert_same({key: value / 1024 for key, value in results[1][1].items()}, results[0][1], 1e-12)
