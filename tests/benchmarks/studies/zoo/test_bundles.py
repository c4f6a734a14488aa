"""What may be asked for, and which cells are measured in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cells.plan_cells import open_bundle
from benchmarks.studies.zoo import bundles
from benchmarks.studies.zoo.bundles import NotExported, References, cells_of, check_wanted, export
from slimtrain.base.errors import UserError


@pytest.mark.parametrize(
    ("networks", "backend", "precision", "message"),
    [
        (("us_mobilenet_v3",), "onnxruntime-cpu", "fp32", "not published .did you mean 'us_mobilenet_v"),
        (("s_resnet50",), "onnxruntime", "fp32", "runs no ONNX files.*Choose from onnxruntime-cpu"),
        (("s_resnet50",), "tensorrt", "fp32", "backend 'tensorrt': runs no ONNX files"),
        (("s_resnet50",), "slimmable", "fp32", "backend 'slimmable': runs no ONNX files"),
        (("s_resnet50",), "onnxruntime-cpu", "tf32", "precision 'tf32': is no file's"),
        (("s_resnet50",), "torch-eager", "int8", "torch-eager runs no int8 files. Choose from fp32"),
    ],
)
def test_what_cannot_be_is_refused_by_name(networks: tuple[str, ...], backend: str, precision: str, message: str) -> None:
    check_wanted(("us_mobilenet_v1",), "onnxruntime-cpu", "fp32")
    with pytest.raises(UserError, match=message):
        check_wanted(networks, backend, precision)


def test_all_switches_of_a_batch_come_before_the_next_batch(two_widths: Path) -> None:
    cells = cells_of([open_bundle(two_widths)], "onnxruntime-cpu", "fp32", (32, 1))
    assert [(cell.batch, cell.width) for cell in cells] == [(32, 0.25), (32, 0.5), (1, 0.25), (1, 0.5)]
    reference = References([open_bundle(two_widths)])(cells[0])
    assert reference is not None and reference.probes.images.shape[1:] == (3, 32, 32) and reference.tolerance is not None


def test_why_a_network_is_not_exported_is_what_slimexport_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "RANDOM", "random:no_")
    said: list[str] = []
    with pytest.raises(NotExported, match=r"s_resnet50 could not be exported:\nslimexport: .*no_s_resnet50"):
        export(["s_resnet50"], "fp32", tmp_path, said.append)
    assert said == ["exporting s_resnet50, network 1 of 1"]
