"""One file in one runtime: compared, timed in turn with onnxruntime, and whatever goes wrong is told in a line."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.studies.consumers import trial as trials
from benchmarks.studies.consumers.files import NetworkFile
from benchmarks.studies.consumers.readers import BASELINE, READERS
from benchmarks.studies.consumers.trial import difference, in_own_process, milliseconds, shown, trial

IMAGES = np.ones((2, 3, 2, 2), np.float32)
EXPECTED = np.array([[1.0, -4.0], [2.0, 0.0]])


def reader(name: str, run: Any) -> Any:
    return replace(READERS[BASELINE], name=name, opener=lambda path, folder, images, threads: run)


def test_a_difference_is_relative_to_the_largest_value() -> None:
    off = EXPECTED + np.array([[0, 0.4], [0, 0]])
    assert difference(off, EXPECTED) == {"max_rel_error": pytest.approx(0.1), "top1_agreement": 1.0}
    assert difference(-EXPECTED, EXPECTED) == {"max_rel_error": 2.0, "top1_agreement": 0.0}
    assert difference(EXPECTED * np.nan, EXPECTED)["max_rel_error"] is None
    assert difference(EXPECTED[:1], EXPECTED) == {"shape": [1, 2]}


def test_times_are_of_all_in_turn() -> None:
    order = []
    times = milliseconds({name: lambda image, name=name: order.append(name) for name in "ab"}, IMAGES, 2)  # type: ignore[misc]
    assert set(times) == {"a", "b"} and all(value >= 0 for value in times.values())
    assert order == ["a", "b", *["a"] * 3, *["b"] * 3] + (["a"] * 3 + ["b"] * 3) * (trials.TURNS - 1)


def test_a_file_is_compared_with_one_image_and_two_and_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    right = lambda images: EXPECTED[: len(images)]  # noqa: E731
    monkeypatch.setitem(READERS, BASELINE, reader(BASELINE, right))

    def alone(images: Any) -> Any:
        if len(images) > 1:
            raise ValueError("one at a time\nat line 3")
        return EXPECTED[:1] * 1.1

    monkeypatch.setitem(READERS, "made-up", reader("made-up", alone))
    result = trial("made-up", tmp_path, IMAGES, EXPECTED, 1, 1)
    assert result["one"] == {"max_rel_error": pytest.approx(0.1), "top1_agreement": 1.0}
    assert result["two"] == {"error": "one at a time"} and set(result["ms"]) == {BASELINE, "made-up"}
    assert trial(BASELINE, tmp_path, IMAGES, EXPECTED, 1, 0)["two"]["max_rel_error"] == 0


def test_what_onnxruntime_does_not_run_has_no_time_beside_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*arguments: Any) -> Any:
        raise ValueError("no kernel")

    monkeypatch.setitem(READERS, BASELINE, replace(READERS[BASELINE], opener=fail))
    monkeypatch.setitem(READERS, "made-up", reader("made-up", lambda images: EXPECTED[: len(images)]))
    result = trial("made-up", tmp_path, IMAGES, EXPECTED, 1, 1)
    assert set(result["ms"]) == {"made-up"} and result["baseline"] == "no kernel"


def network_file(folder: Path, content: bytes) -> NetworkFile:
    (folder / "x.onnx").write_bytes(content)
    np.save(folder / "images.npy", IMAGES)
    np.save(folder / "expected.npy", EXPECTED)
    return NetworkFile("net", 1.0, "fp32", folder / "x.onnx", folder / "images.npy", folder / "expected.npy")


def test_what_a_runtime_refuses_it_says_itself(tmp_path: Path) -> None:
    result = in_own_process(BASELINE, network_file(tmp_path, b"no model"), 1, 1)
    assert set(result) == {"error"} and "x.onnx" in result["error"]


@pytest.mark.parametrize(
    ("code", "words", "expected"),
    [(-11, "", "crashes (signal 11)"), (139, "", "crashes (signal 11)"), (1, "a\nno memory", "no memory"), (1, "", "no word")],
)
def test_a_crash_is_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, words: str, expected: str) -> None:
    done = SimpleNamespace(returncode=code, stdout="", stderr=words)
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: done)
    assert in_own_process(BASELINE, network_file(tmp_path, b""), 1, 1) == {"error": expected}


def test_what_takes_too_long_is_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def slow(*args: Any, **kwargs: Any) -> Any:
        raise subprocess.TimeoutExpired("a", 1)

    monkeypatch.setattr(subprocess, "run", slow)
    assert in_own_process(BASELINE, network_file(tmp_path, b""), 1, 1) == {"error": f"takes longer than {trials.SECONDS} s"}


def test_an_error_is_shown_by_its_first_word_that_says_something() -> None:
    assert shown(RuntimeError("Exception from a.cpp:1\nit is so\nmore")) == "it is so"
    assert shown(KeyError()) == "KeyError" and len(shown(ValueError("x" * 999))) == trials.SHOWN


def test_what_a_runtime_leaves_lies_in_a_folder_that_goes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """MNN's converter writes a file into the folder that it runs in."""
    places: list[Path] = []
    real = subprocess.run

    def run(words: list[str], **options: Any) -> Any:
        places.append(Path(options["cwd"]))
        (places[0] / ".left.bin").write_bytes(b"left")
        return real(words, **options)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", run)
    before = {*tmp_path.iterdir()}
    file = network_file(tmp_path, b"no model")
    relative = replace(file, path=Path(os.path.relpath(file.path)))
    assert "x.onnx" in in_own_process(BASELINE, relative, 1, 1)["error"]
    assert not places[0].exists() and {path.name for path in tmp_path.iterdir()} >= {path.name for path in before}
    assert not (tmp_path / ".left.bin").exists()
