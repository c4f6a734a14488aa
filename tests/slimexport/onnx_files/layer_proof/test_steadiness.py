"""What a file gives and how far roundings move it, against sessions of its own."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import helper, save

from slimexport.onnx_files.layer_proof.steadiness import steadiness
from slimexport.onnx_files.runner import onnx_runner
from slimexport.target.arrays import Array
from slimexport.target.backends import CPU
from slimexport.target.precision import row_of
from slimexport.target.proof.own_outputs import held_to_own
from slimexport.target.proof.own_runtime import own_runtime
from slimexport.target.reference import Probes
from slimexport.target.verification import FAILED, PASSED, Verification
from tests.support.onnx_writing import nodes_onnx

DRAW = np.random.default_rng(2)
IMAGES = DRAW.normal(size=(4, 3, 2, 2)).astype(np.float32)
MORE = DRAW.normal(size=(11, 3, 2, 2)).astype(np.float16).astype(np.float32)


def _file(path: Path, step: float) -> Path:
    """A network that rounds what it sees to multiples of `step`."""
    tensors = {"weights": DRAW.normal(size=(12, 5)).astype(np.float32), "step": np.asarray(step, np.float32)}
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("Div", ["flat", "step"], ["steps"]),
        helper.make_node("Round", ["steps"], ["rounded"]),
        helper.make_node("Mul", ["rounded", "step"], ["back"]),
        helper.make_node("MatMul", ["back", "weights"], ["output"]),
    ]
    save(nodes_onnx(nodes, tensors, 2, {"output": ["N", 5]}), path)
    return path


def test_it_is_what_a_session_gives_and_moves_where_values_lie_between_steps(tmp_path: Path) -> None:
    path = _file(tmp_path / "file.onnx", 1e-3)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    images = np.concatenate([IMAGES, MORE])
    given = session.run(None, {"input": images})[0]
    tried = steadiness(path, "int8", Probes.of(IMAGES, given[:4].astype(np.float64)), MORE)
    np.testing.assert_allclose(tried.own.expected[0].values, given, rtol=1e-6)
    np.testing.assert_array_equal(tried.own.probes.expected[0].values, tried.own.expected[0].values[:4])
    assert tried.own.first == 4 and np.array_equal(tried.own.images, images)
    assert 1e-5 < tried.moved < 1e-2
    assert tried.own.moved is not None and tried.own.moved[0].shape == (15,)
    assert tried.own.moved[0].min() > 0 and 1e-5 < tried.own.moved[0].max() <= tried.moved
    assert tried.runtime == own_runtime(CPU)


@pytest.mark.parametrize(("precision", "most"), [("int8", 1e-3), ("fp16", 5e-3)])
def test_a_network_without_roundings_moves_as_its_images_do(precision: str, most: float, tmp_path: Path) -> None:
    path = _file(tmp_path / "file.onnx", 1e-7)
    tried = steadiness(path, precision, Probes.of(IMAGES, np.zeros((4, 5))), MORE[:0])
    assert 0 < tried.moved < most and tried.own.first == len(tried.own.images) == 4


def test_what_one_rounding_does_next_to_others_is_what_further_ones_do_too(tmp_path: Path) -> None:
    path = _file(tmp_path / "file.onnx", 3e-2)
    more = np.random.default_rng(9).normal(size=(60, 3, 2, 2)).astype(np.float16).astype(np.float32)
    tried = steadiness(path, "int8", Probes.of(IMAGES, np.zeros((4, 5))), more)
    shares = tried.shares
    assert 0.1 < shares.usual <= shares.of_one < 1e6 and shares.in_common < 1e6
    recorded = Verification(status=PASSED, own_tolerance=0.3, own_shares=shares)
    runner, nudged = onnx_runner(path, "int8"), np.random.default_rng(10)

    class Elsewhere:
        backend = "test"

        def __call__(self, images: np.ndarray) -> np.ndarray:
            off = 1 + 1e-4 * nudged.standard_normal(images.shape)
            return np.asarray(runner((images * off).astype(np.float32)))

    held = held_to_own(Elsewhere(), tried.own, row_of("int8"), Verification(status=PASSED), recorded)
    assert held.status == PASSED, held.reason


def test_where_nothing_is_rounded_otherwise_there_are_no_shares(tmp_path: Path) -> None:
    tried = steadiness(_file(tmp_path / "file.onnx", 50.0), "int8", Probes.of(IMAGES, np.zeros((4, 5))), MORE)
    assert tried.moved == 0 and tried.shares.usual == tried.shares.of_one == tried.shares.in_common == 0


def test_what_roundings_do_to_probe_images_is_told_of_their_own_scale(tmp_path: Path) -> None:
    path = _file(tmp_path / "file.onnx", 1e-2)
    probes = Probes.of(IMAGES, np.zeros((4, 5)))
    alone = steadiness(path, "int8", probes, MORE[:0])
    beside = steadiness(path, "int8", probes, 100 * MORE)  # next to which steps are small
    assert beside.moved > alone.moved / 5
    assert beside.tolerance >= 3 * beside.moved


def _recurrent(path: Path) -> Path:
    """An LSTM, which sees an image as one step."""
    shapes = {"w": (1, 20, 12), "r": (1, 20, 5)}
    tensors = {name: DRAW.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("Unsqueeze", ["flat", "axis"], ["steps"]),
        helper.make_node("LSTM", ["steps", "w", "r"], ["", "state"], hidden_size=5),
        helper.make_node("Squeeze", ["state", "axis"], ["output"]),
    ]
    save(nodes_onnx(nodes, {**tensors, "axis": np.array([0], np.int64)}, 2, {"output": ["N", 5]}), path)
    return path


def test_recurrent_layers_may_add_in_fewer_bits_elsewhere(tmp_path: Path) -> None:
    """As cuDNN's in fp16: 0.0044 of the scale on an H200, six times what is tried out here. A device's file passes so far, and
    no farther than its precision's tolerance."""
    path = _recurrent(tmp_path / "file.onnx")
    given = np.asarray(onnx_runner(path, "fp16")(IMAGES), np.float64)
    tried, exact = (steadiness(path, precision, Probes.of(IMAGES, given), MORE) for precision in ("fp16", "int8"))
    assert tried.tolerance == pytest.approx(1e-2) and tried.own.moved is not None and exact.own.moved is not None
    assert (tried.own.moved[0] >= 2e-3).all() and exact.own.moved[0].max() < 2e-3
    recorded = Verification(status=PASSED, own_tolerance=tried.tolerance, own_shares=tried.shares)
    scale = np.abs(tried.own.expected[0].values).max()
    draw = np.random.default_rng(8)

    def elsewhere(off: float) -> str:
        class Device:
            backend = "onnxruntime-cuda"

            def __call__(self, images: Array) -> Array:
                outputs = np.asarray(onnx_runner(path, "fp16")(images))
                return outputs + (off * scale * np.clip(draw.normal(size=outputs.shape) / 3, -1, 1)).astype(np.float32)

        return held_to_own(Device(), tried.own, row_of("fp16"), recorded, recorded).status

    assert elsewhere(4.4e-3) == PASSED
    assert elsewhere(1.5e-2) == FAILED
