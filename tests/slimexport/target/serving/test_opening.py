"""Files as a runtime opens them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from slimexport.target.arrays import Array
from slimexport.target.backends import CPU, CUDA
from slimexport.target.runners import OnnxRuntimeRunner
from slimexport.target.serving.opening import OpenFile, OpenFiles, open_file
from tests.support.bundle_helpers import artifact, manifest, with_file
from tests.support.export_helpers import conv
from tests.support.onnx_writing import module_onnx
from tests.support.serving_helpers import Bench, ToyRunner, bench, images, logits

__all__ = ["bench"]


def test_threads_of_one_width_leave_the_cpu_to_another(tmp_path: Path) -> None:
    """Each width has threads of its own; where they spin once their run is over, the next width takes twice as long."""
    network = nn.Sequential(conv(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    entry = with_file(tmp_path, artifact(), module_onnx(network, 4).SerializeToString())
    file = open_file(tmp_path, manifest(entry), entry, CPU, 1)
    assert isinstance(file.runner, OnnxRuntimeRunner) and file.label == "0.5"
    options = file.runner.session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.intra_op_num_threads == 1


def test_a_session_on_a_gpu_takes_the_guess_of_cudnn(tmp_path: Path, bench: Bench) -> None:
    """To time all algorithms takes seconds for every batch size of every width."""
    entry = with_file(tmp_path, artifact(), b"")
    open_file(tmp_path, manifest(entry), entry, CUDA, None)
    assert (bench.runners[-1].options["device"], bench.runners[-1].options["tuning"]) == (CUDA, False)


@pytest.mark.parametrize(("counts", "ran"), [([3], 4), ([1, 2], 4), ([4], 4), ([1], 1), ([2, 2, 1], 5)])
@pytest.mark.parametrize("named", [False, True])
def test_batches_are_filled_up_to_one_that_has_run(tmp_path: Path, counts: list[int], ran: int, named: bool) -> None:
    """Of more images than the largest there is nothing to fill."""
    toy = ToyRunner(tmp_path / "net_x0_5.onnx")

    def give(batch: Array) -> object:
        return {"logits": logits(batch, toy.file), "sums": batch.sum((1, 2, 3))} if named else logits(batch, toy.file)

    toy.give = give
    file = OpenFile("0.5", artifact(), toy, sizes=(1, 2, 4))
    given = [images(count, seed) for seed, count in enumerate(counts)]
    outputs = file(*given)
    assert toy.runs == [ran]
    whole = np.concatenate(given)
    np.testing.assert_array_equal(outputs["logits"] if named else outputs, logits(whole, toy.file))
    if named:
        np.testing.assert_array_equal(outputs["sums"], whole.sum((1, 2, 3)))


def test_what_takes_several_arrays_gets_them_as_they_came() -> None:
    """An engine copies each to where the device takes it from; to join them before would be a copy more."""

    class Engine(ToyRunner):
        def together(self, parts: Sequence[Array]) -> Array:
            self.came = [id(part) for part in parts]
            return logits(np.concatenate(parts), self.file)

    engine = Engine(Path("net.plan"))
    file = OpenFile("0.5", artifact(), engine)
    given = [images(1), images(2, seed=1)]
    np.testing.assert_array_equal(file(*given), logits(np.concatenate(given), "net.plan"))
    assert engine.came == [id(part) for part in given] and engine.runs == []


def test_a_file_has_another_number_once_a_narrower_one_is_out() -> None:
    files = [OpenFile(label, artifact(), ToyRunner(Path(f"{label}.onnx"))) for label in ("0.25", "0.5", "1")]
    opened = OpenFiles(files)
    assert [opened.is_at(file, number) for number, file in enumerate(files)] == [True] * 3
    assert opened.take_out(0, "it hangs") is files[0] and opened.out == {"0.25": "it hangs"}
    assert [opened.is_at(file, number) for number, file in enumerate(files)] == [False] * 3, "what they took is another's"
    assert opened.is_at(files[1], 0) and opened.is_at(files[2], 1)
