"""Losses against explicit target distributions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from slimtrain.base.errors import UserError
from slimtrain.training.step import distillation_loss, label_loss, torch_smoothing

IMAGES, CLASSES = 5, 7
LABELS = torch.tensor([0, 6, 3, 3, 1])


def drawn(seed: int) -> Tensor:
    return torch.randn(IMAGES, CLASSES, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def probabilities(logits: Tensor) -> list[list[float]]:
    """Softmax, number by number."""
    losses = []
    for row in logits.tolist():
        exponentials = [math.exp(value) for value in row]
        losses.append([value / sum(exponentials) for value in exponentials])
    return losses


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5, 0.85])
def test_smoothing_gives_s_over_n_minus_1_to_every_other_class(smoothing: float) -> None:
    logits = drawn(0)
    expected = 0.0
    for row, label in zip(probabilities(logits), LABELS.tolist(), strict=True):
        for c, probability in enumerate(row):
            target = 1 - smoothing if c == label else smoothing / (CLASSES - 1)
            expected -= target * math.log(probability)
    assert float(label_loss(logits, LABELS, smoothing)) == pytest.approx(expected, rel=1e-13)


def test_with_two_classes_smoothing_swaps_that_much_probability() -> None:
    logits = torch.tensor([[1.0, -0.5]], dtype=torch.float64)
    (p, q) = probabilities(logits)[0]
    expected = -(0.7 * math.log(p) + 0.3 * math.log(q))
    assert float(label_loss(logits, torch.tensor([0]), 0.3)) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_a_true_class_must_get_more_than_the_others(classes: int) -> None:
    limit = 1 - 1 / classes
    assert 0 < torch_smoothing(math.nextafter(limit, 0), classes) <= 1
    for smoothing in (limit, math.nextafter(limit, 2)):
        with pytest.raises(UserError, match=f"with {classes} classes the true one would get no more"):
            torch_smoothing(smoothing, classes)


def test_distillation_is_cross_entropy_with_the_teacher() -> None:
    logits, teacher = drawn(0), drawn(1)
    expected = 0.0
    for p, q in zip(probabilities(teacher), probabilities(logits), strict=True):
        expected -= sum(a * math.log(b) for a, b in zip(p, q, strict=True))
    assert float(distillation_loss(logits, teacher.softmax(1))) == pytest.approx(expected, rel=1e-13)


def test_distillation_is_kullback_leibler_up_to_the_entropy_of_the_teacher() -> None:
    logits, teacher = drawn(0), drawn(1)
    loss = float(distillation_loss(logits, teacher.softmax(1)))
    entropy = divergence = 0.0
    for p, q in zip(probabilities(teacher), probabilities(logits), strict=True):
        entropy -= sum(a * math.log(a) for a in p)
        divergence += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert divergence > 0.1
    assert loss - entropy == pytest.approx(divergence, rel=1e-12)


def test_a_certain_teacher_is_a_label() -> None:
    logits = drawn(0)
    certain = torch.nn.functional.one_hot(LABELS, CLASSES).double()
    torch.testing.assert_close(distillation_loss(logits, certain), label_loss(logits, LABELS, 0.0), rtol=1e-13, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_summed_in_float32(dtype: torch.dtype) -> None:
    logits = torch.full((4096, 2), 0.25, dtype=dtype)  # the sum has no exact half: 4096 ln 2 = 2839.1
    labels = torch.zeros(4096, dtype=torch.int64)
    teacher = torch.full((4096, 2), 0.5)
    for loss in (label_loss(logits, labels, 0.1), distillation_loss(logits, teacher)):
        assert loss.dtype == torch.float32
        assert float(loss) == pytest.approx(4096 * math.log(2), rel=1e-5)


@pytest.mark.parametrize("loss", ["label", "distillation"])
def test_losses_are_sums_over_images(loss: str) -> None:
    logits, teacher = drawn(0), drawn(1).softmax(1)

    def of(rows: slice) -> float:
        if loss == "label":
            return float(label_loss(logits[rows], LABELS[rows], 0.1))
        return float(distillation_loss(logits[rows], teacher[rows]))

    single = sum(of(slice(i, i + 1)) for i in range(IMAGES))
    assert of(slice(None)) == pytest.approx(single, rel=1e-13)
