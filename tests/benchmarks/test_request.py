"""What options ask for, and all that is refused before anything is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cli import main
from benchmarks.request import MeasuringOptions, check_backends, make_request, output_folder
from slimtrain.base.errors import UserError
from tests.support.trt_helpers import write_bundle

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = write_bundle(tmp_path / "us_mobilenet_v1", widths=(0.25, 0.5))
    content = json.loads((folder / "manifest.json").read_text())
    content["source"]["network"] = "us_mobilenet_v1"
    content["input"] |= {"mean": [0.5] * 3, "std": [0.25] * 3}
    (folder / "manifest.json").write_text(json.dumps(content))
    return folder


def given(**changes: Any) -> MeasuringOptions:
    """As where no option is given."""
    texts = dict.fromkeys(("widths", "precision", "threads", "ckpt", "accuracy_data", "workers", "output_dir", "cache_mib"))
    flags = {"no_cuda_graph": False, "transfers": False}
    numbers = {"duration": 3.0, "repeats": 3, "warmup": 200.0, "seed": 0}
    return MeasuringOptions(**{**texts, **flags, **numbers, "device": "cpu", **changes})


def test_options_end_where_they_belong(bundle: Path, tmp_path: Path) -> None:
    options = given(
        widths="0.25",
        precision="fp32, fp16",
        duration=1.0,
        repeats=2,
        warmup=50.0,
        threads=2,
        ckpt=Path("random:us_mobilenet_v1"),
        no_cuda_graph=True,
        transfers=True,
        accuracy_data="digits",
        workers=0,
        seed=5,
        cache_mib=1.5,
    )
    request = make_request([bundle], "onnxruntime-cpu,slimmable", [1, 8, 1], options)
    assert (request.wanted.backends, request.wanted.batches) == (("onnxruntime-cpu", "slimmable"), (1, 8))
    assert (request.wanted.widths, request.wanted.precisions) == ((0.25,), ("fp32", "fp16"))
    assert (request.method.duration_s, request.method.repeats, request.method.warmup_s) == (1.0, 2, 0.05)
    runner = request.options
    assert (runner.cuda_graph, runner.transfers, runner.device) == (False, True, "cpu")
    assert runner.checkpoint == Path("random:us_mobilenet_v1")
    assert (request.threads, request.cache_bytes, request.seed) == (2, 3 << 19, 5)
    assert (request.accuracy_data, request.workers) == ("digits", 0)
    assert output_folder(request, options) == Path("measured/us_mobilenet_v1")
    assert output_folder(request, given(output_dir=tmp_path)) == tmp_path


def test_what_is_not_given_is_left_to_the_machine_and_the_bundle(bundle: Path) -> None:
    request = make_request([bundle], "auto", [1], given(device="auto"))
    assert (request.threads, request.cache_bytes, request.accuracy_data) == (None, None, "")
    assert (request.wanted.widths, request.wanted.precisions, request.options.checkpoint) == ((), (), None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere"),
        (["BUNDLE", "--backends", "onnxruntime-gpu"], "onnxruntime-cpu"),
        (["BUNDLE", "--batches", "1,x"], "expected numbers"),
        (["BUNDLE", "--batches", "0"], "from 1"),
        (["BUNDLE", "--widths", "0.3"], "has no width 0.3"),
        (["BUNDLE", "--precision", "fp8"], "has no fp8 files"),
        (["BUNDLE", "--seed", "-1"], "--seed"),
        (["BUNDLE", "--duration", "0"], "duration"),
        (["BUNDLE", "--duration", "nan"], "duration"),
        (["BUNDLE", "--repeats", "0"], "repeats"),
        (["BUNDLE", "--threads", "10000"], "10000 threads"),
        (["BUNDLE", "--ckpt", "nowhere.pt"], "nowhere.pt"),
        (["BUNDLE", "--baseline", "nowhere.jsonl"], "nowhere.jsonl"),
        (["BUNDLE", "--accuracy-data", "nowhere"], "nowhere"),
        (["BUNDLE", "BUNDLE"], "two bundles"),
        (["choose", "BUNDLE", "--latency-ms", "-1"], "latency-ms"),
        (["choose", "BUNDLE", "--latency-ms", "1", "--results", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    words: list[str], message: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([str(bundle) if word == "BUNDLE" else word for word in words])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert message in said and "Traceback" not in said
    assert len(said.strip().splitlines()) <= 4
    assert not (tmp_path / "measured").exists()


def test_engines_that_nothing_here_measures_are_told_with_what_proves_them() -> None:
    with pytest.raises(
        UserError, match=r"'tensorrt-rtx': .* not measured here.*--verify-only --backend tensorrt-rtx"
    ) as caught:
        check_backends("onnxruntime-cpu, tensorrt-rtx")
    assert "did you mean" not in str(caught.value)
