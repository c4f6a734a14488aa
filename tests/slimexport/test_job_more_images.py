"""Files of fp32 on images that are no probe images: as near as float32 is itself there, and no nearer is asked."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from slimexport.job import Job
from slimexport.target.reference import Expected
from slimexport.target.tensors import Result
from slimexport.target.verification import Verification
from slimtrain.models.channels import ChannelPlan

PLAN = ChannelPlan("x1_0", {}, 1.0)
CLASSES = 3


class MeanOfChannels(nn.Module):
    """The channels' means as logits. Those above one are computed beside `aside`, so that float32 rounds them to a multiple of
    what numbers so large are apart, and float64 does not."""

    def __init__(self, aside: float) -> None:
        super().__init__()
        self.aside = aside

    def at(self, plan: ChannelPlan) -> Any:
        return nullcontext()

    def forward(self, images: Tensor) -> Tensor:
        means = images.mean((2, 3))
        return torch.where(means > 1, (means + self.aside) - self.aside, means)


class WithoutWeights(Job):
    """Of a network that has none."""

    def _wrong_weight(self, model: onnx.ModelProto, plan: ChannelPlan) -> str:
        return ""


def written(path: Path, wrong: float) -> Path:
    """A file that gives the means, and what is above one times `wrong` more."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["means"]),
        helper.make_node("Sub", ["means", "one"], ["above"]),
        helper.make_node("Relu", ["above"], ["open"]),
        helper.make_node("Mul", ["open", "wrong"], ["error"]),
        helper.make_node("Add", ["means", "error"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", CLASSES, 4, 4])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in (("one", 1), ("wrong", wrong))],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def images_of(means: list[list[float]]) -> np.ndarray[Any, Any]:
    return np.broadcast_to(np.array(means, np.float32)[:, :, None, None], (len(means), CLASSES, 4, 4)).copy()


def verified(path: Path, aside: float, more: list[list[float]]) -> tuple[Verification, Job]:
    """The verification of a file, which is right on the probe images whatever it does of means above one."""
    probes = images_of([[1, 0, -1], [0.5, -1, 0]])
    job = WithoutWeights(
        cast(Any, SimpleNamespace(network=MeanOfChannels(aside))),
        cast(Any, None),
        cast(Any, None),
        probes,
        (),
        results=(Result(name="output", shape=("batch", CLASSES), dtype="float32"),),
        more=images_of(more).astype(np.float16),
        exercised={PLAN: (1, 1)},
    )
    expected = (Expected("output", probes.mean((2, 3)).astype(np.float64)),)
    return job.verify(path, "fp32", PLAN, expected), job


MORE = [[2, 0.5, -1], [-1, 1 + 2**-9 + 2**-10, 0]]  # a scale of 2
ASIDE = 4096.0  # where numbers are 2^-11 apart
COARSE = 2.0**14  # 2^-9: the second mean is half of that off, 4.9e-4 of the scale, and 20 times that is 9.8e-3


@pytest.mark.parametrize(
    ("aside", "wrong", "passes"),
    [
        (0.0, 0.0, True),
        (0.0, 4e-4, False),  # 2e-4 of the scale, where float32 is exact and 1e-4 is permitted
        (ASIDE, 4e-4, False),  # as exact: both means are multiples of 2^-10
        (COARSE, 0.0, True),
        (COARSE, 1.6e-2, True),  # 8e-3
        (COARSE, 2.4e-2, False),  # 1.2e-2
        (2.0**20, 1.6e-2, True),  # float32 is off by a thousandth and more
        (2.0**20, 2.4e-2, False),  # and more than 1e-2 is never permitted
    ],
)
def test_a_file_may_be_off_what_float32_itself_is_off_and_no_more(
    aside: float, wrong: float, passes: bool, tmp_path: Path
) -> None:
    check, _ = verified(written(tmp_path / "a.onnx", wrong), aside, MORE)
    assert check.passed == passes, check


def test_images_that_float32_is_too_coarse_for_are_not_kept(tmp_path: Path) -> None:
    for wrong, kept in ((0.0, True), (1.6e-2, False)):
        check, job = verified(written(tmp_path / "a.onnx", wrong), COARSE, MORE)
        assert check.passed and (PLAN in job.of_more) == kept
    (of_more,) = verified(written(tmp_path / "a.onnx", 0.0), COARSE, MORE)[1].of_more[PLAN]
    assert np.abs(of_more.values - MORE).max() < 1e-9, "what float64 gives, as float32 is too far off"


def test_what_is_permitted_is_less_than_what_sets_the_images_apart(tmp_path: Path) -> None:
    """Images that differ by 1e-2 of the scale: a file that gives of both the same is off by that, and float32 as well."""
    alike: list[list[float]] = [[2, 0, -1], [2 + 2**-6, 0, -1]]
    check, _ = verified(written(tmp_path / "a.onnx", 1.6e-2), 2.0**20, alike)
    assert check.status == "failed", check
