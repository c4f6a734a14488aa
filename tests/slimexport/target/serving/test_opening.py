"""Files as a runtime opens them."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from slimexport.target.backends import CPU
from slimexport.target.runners import OnnxRuntimeRunner
from slimexport.target.serving.opening import open_file
from tests.support.bundle_helpers import artifact, manifest, with_file
from tests.support.export_helpers import conv
from tests.support.onnx_writing import module_onnx


def test_threads_of_one_width_leave_the_cpu_to_another(tmp_path: Path) -> None:
    """Each width has threads of its own; where they spin once their run is over, the next width takes twice as long."""
    network = nn.Sequential(conv(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    entry = with_file(tmp_path, artifact(), module_onnx(network, 4).SerializeToString())
    file = open_file(tmp_path, manifest(entry), entry, CPU, 1)
    assert isinstance(file.runner, OnnxRuntimeRunner) and file.label == "0.5"
    options = file.runner.session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.intra_op_num_threads == 1
