"""A step with a frozen teacher: its loss written out, its gradients those of a plain loop, the teacher as it was."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.training.distributed import Processes
from slimtrain.training.optimizer import sgd
from slimtrain.training.sampling import WidthSampler
from slimtrain.training.step import FrozenTeacher, Gradients, Stepper, plan_loss
from tests.support.slimtrain_processes import alone, in_processes
from tests.support.slimtrain_states import State, images, network_of, random_state

CLASSES = 10
LABELS = torch.tensor([3, 1, 9, 0, 5, 5, 7, 2])
SPECS = {
    "us": NetworkSpec("mobilenet_v1", "us", (0.25, 0.5), CLASSES, width_range=(0.25, 0.5), stem_stride=1),
    "us_v2": NetworkSpec("mobilenet_v2", "us", (0.2, 0.4), CLASSES, width_range=(0.2, 0.4), stem_stride=1),
    "s": NetworkSpec("mobilenet_v2", "s", (0.2, 0.35), CLASSES, stem_stride=1),
    "autoslim": NetworkSpec(
        "mobilenet_v1",
        "autoslim",
        (1, 2),
        CLASSES,
        ((8, 16, 24, 16, 8, 24, 16) * 2, (16, 24, 24, 8, 16, 32, 24) * 2),
        stem_stride=1,
    ),
}


def student_and_teacher(spec: NetworkSpec) -> tuple[SlimmableNetwork, FrozenTeacher]:
    """Of different weights, as they are after some steps."""
    student, taught = network_of(spec, random_state(spec)), network_of(spec, random_state(spec, seed=7))
    return student, FrozenTeacher(taught, WidthSampler(spec).fixed[0])


def stepper(
    network: SlimmableNetwork, sampler: WidthSampler, teacher: FrozenTeacher | None, joined: Processes, **options: object
) -> Stepper:
    gradients = Gradients(network, sampler.count, joined, synchronized=True)
    chosen = {"smoothing": 0.1, "distill": False, "amp": "none", "frozen": teacher, **options}
    return Stepper(network, sgd(network, 0.1, 0.9, True, 1e-4), gradients, **chosen)  # type: ignore[arg-type]


def gradients_of(network: SlimmableNetwork) -> State:
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def plain_loop(
    network: SlimmableNetwork, teacher: FrozenTeacher, sampler: WidthSampler, x: Tensor, share: float
) -> tuple[State, list[float]]:
    """What one would write down: torch's own losses, autograd sums."""
    network.train()
    for parameter in network.parameters():
        parameter.grad = None
    frozen = teacher.network
    assert not frozen.training
    with torch.no_grad(), frozen.at(teacher.plan):
        soft = frozen(x).softmax(1)
    losses = []
    for plan in sampler(0):
        with network.at(plan):
            logits = network(x)
        hard = F.cross_entropy(logits, LABELS, label_smoothing=0.1 * CLASSES / (CLASSES - 1))
        loss = (1 - share) * hard + share * F.cross_entropy(logits, soft)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(float(loss.detach()))
    zero = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    return {**zero, **gradients_of(network)}, losses


@pytest.mark.parametrize("name", list(SPECS))
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_gradients_are_those_of_a_plain_loop(name: str, share: float) -> None:
    """All plans learn from it, the widest too, and the labels have the rest of each loss."""
    spec = SPECS[name]
    sampler, x = WidthSampler(spec, sandwich=3), images(8, 16)
    network, teacher = student_and_teacher(spec)
    expected, losses = plain_loop(network, teacher, sampler, x, share)
    network, teacher = student_and_teacher(spec)
    result = stepper(network, sampler, teacher, alone(), share=share).compute(sampler(0), x, LABELS, 8)
    assert result.tolist() == pytest.approx(losses, rel=1e-10)
    scale = max(float(value.abs().max()) for value in expected.values())
    for key, value in gradients_of(network).items():
        assert float((value - expected[key]).abs().max()) <= 1e-10 * scale, key


def test_the_loss_of_a_plan_by_hand() -> None:
    logits, teacher = torch.tensor([[2.0, 0.0, -1.0]]).double(), torch.tensor([[0.5, 0.3, 0.2]]).double()
    probabilities = logits.exp() / logits.exp().sum()
    hard, soft = -probabilities[0, 1].log(), -(teacher * probabilities.log()).sum()
    loss = plan_loss(logits, torch.tensor([1]), 0.0, teacher, 0.25)
    assert float(loss) == pytest.approx(0.75 * float(hard) + 0.25 * float(soft), rel=1e-12)
    assert float(plan_loss(logits, torch.tensor([1]), 0.0, None, 0.25)) == pytest.approx(float(hard), rel=1e-12)


@pytest.mark.parametrize("name", ["us", "s"])
def test_the_teacher_stays_what_it_was_and_the_network_learns(name: str) -> None:
    spec = SPECS[name]
    sampler, x = WidthSampler(spec, sandwich=3), images(8, 16)
    network, teacher = student_and_teacher(spec)
    before = {key: value.clone() for key, value in teacher.network.state_dict().items()}
    said, weights = teacher(x), network.state_dict()["features.0.0.weight"].clone()
    steps = stepper(network, sampler, teacher, alone())
    for step in range(3):
        steps.compute(sampler(step), x, LABELS, 8)
        steps.apply(0.05)
    assert all(torch.equal(value, before[key]) for key, value in teacher.network.state_dict().items())
    assert torch.equal(teacher(x), said) and not said.requires_grad
    assert not any(p.requires_grad or p.grad is not None for p in teacher.network.parameters())
    assert not torch.equal(network.state_dict()["features.0.0.weight"], weights) and network.training


def test_what_the_teacher_says_of_an_image_does_not_depend_on_the_others() -> None:
    _, teacher = student_and_teacher(SPECS["us"])
    x = images(8, 16)
    torch.testing.assert_close(teacher(x)[2:3], teacher(x[2:3]), rtol=1e-10, atol=1e-12)
    assert teacher(x).sum(1).tolist() == pytest.approx([1] * 8)


def test_parts_add_up_to_the_gradients_of_their_norms_batches() -> None:
    """The teacher sees each part; in evaluation mode it says the same of it as of the whole batch."""
    sampler, x = WidthSampler(SPECS["us"], sandwich=3), images(8, 16)
    network, teacher = student_and_teacher(SPECS["us"])
    whole = teacher(x)
    asked: list[Tensor] = []
    spoken = teacher.network.register_forward_hook(lambda module, inputs, logits: asked.append(logits.softmax(1)))
    stepper(network, sampler, teacher, alone(), parts=2).compute(sampler(0), x, LABELS, 8)
    spoken.remove()
    assert len(asked) == 2
    torch.testing.assert_close(torch.cat(asked), whole, rtol=1e-10, atol=1e-12)


def test_mixed_precision_has_the_same_teacher() -> None:
    spec, x = SPECS["us"], images(8, 16).float()
    sampler = WidthSampler(spec, sandwich=2)
    losses = []
    for amp in ("none", "bf16"):
        student, taught = (network_of(spec, random_state(spec, seed)).float() for seed in (0, 7))
        teacher = FrozenTeacher(taught, spec.widest, amp)
        losses.append(stepper(student, sampler, teacher, alone(), amp=amp).compute(sampler(0), x, LABELS, 8).clone())
        assert teacher(x).dtype == torch.float32
    assert losses[0].dtype == torch.float32
    torch.testing.assert_close(losses[1], losses[0], rtol=3e-2, atol=0)
    assert not torch.equal(losses[1], losses[0])


def one_step(joined: Processes) -> tuple[Tensor, State]:
    sampler, x = WidthSampler(SPECS["us"], sandwich=3), images(8, 16)
    network, teacher = student_and_teacher(SPECS["us"])
    network.synchronize(joined.world > 1)
    own = slice(joined.rank * 8 // joined.world, (joined.rank + 1) * 8 // joined.world)
    losses = stepper(network, sampler, teacher, joined).compute(sampler(0), x[own], LABELS[own], 8).clone()
    return losses, gradients_of(network)


def test_two_processes_compute_the_step_of_one() -> None:
    losses, gradients = one_step(alone())
    scale = max(float(value.abs().max()) for value in gradients.values())
    for other_losses, other in in_processes(2, one_step):
        torch.testing.assert_close(other_losses, losses, rtol=1e-10, atol=0)
        assert max(float((value - gradients[key]).abs().max()) for key, value in other.items()) <= 1e-9 * scale
