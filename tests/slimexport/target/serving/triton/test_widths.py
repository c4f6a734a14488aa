"""A width that a model holds, in onnxruntime: what it gives, with how many threads, and what is not taken from it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from slimexport.target.serving.triton.widths import Width, open_width
from tests.support.served_widths import SHAPE, logits, onnx_file

IMAGES = np.random.default_rng(0).standard_normal((3, *SHAPE), dtype=np.float32)


def entry(folder: Path, content: bytes) -> dict[str, Any]:
    """What `widths.json` says of a file, which is written."""
    (folder / "net.onnx").write_bytes(content)
    return {"label": "0.5", "file": "net.onnx", "sha256": hashlib.sha256(content).hexdigest()}


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_a_file_runs_with_so_many_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    real, seen = onnxruntime.InferenceSession, list[int]()

    def session(content: bytes, options: Any, **more: Any) -> Any:
        seen.append(options.intra_op_num_threads)
        return real(content, options, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    width = open_width(tmp_path, entry(tmp_path, onnx_file(0.5)), threads)
    assert width.label == "0.5" and seen == [threads]
    (output,) = width(IMAGES).values()
    np.testing.assert_allclose(output, logits(0.5, IMAGES), rtol=0, atol=1e-4)


def test_a_file_that_is_none_is_the_librarys_error(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"INVALID_PROTOBUF|Protobuf"):
        open_width(tmp_path, entry(tmp_path, b"no network"), 1)


def test_outputs_of_other_rows_than_images_are_an_error() -> None:
    width = Width("0.5", lambda images: {"output": images[:1]})
    with pytest.raises(ValueError, match="output has 1 rows for 3 images"):
        width(IMAGES)


def test_what_it_holds_is_given_back() -> None:
    freed: list[bool] = []
    Width("0.5", lambda images: {}, lambda: freed.append(True)).close()
    Width("0.5", lambda images: {}).close()
    assert freed == [True]
