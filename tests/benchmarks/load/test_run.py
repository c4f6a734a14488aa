"""`python -m benchmarks load` from end to end: a real bundle, a real server of the protocol, files, words, exit codes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.load import run as running
from benchmarks.load.command import command
from benchmarks.load.run import Asked, trace_of
from benchmarks.load.services import AS_SERVED
from slimtrain.base.errors import UserError
from tests.support.load_fakes import protocol_server, start_quickly
from tests.support.outcomes import Outcome, outcome_of

LONG = ["--slo-ms", "30000"]  # a deadline that a loaded machine meets


@pytest.fixture(autouse=True)
def here(hasty: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    start_quickly(monkeypatch, tmp_path)


def load(*words: object, code: int = 0) -> Outcome:
    done = outcome_of(command, "benchmarks load", *map(str, words))
    assert done.code == code, f"{done.code}\n{done.out}\n{done.err}"
    return done


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_policies_are_compared_on_a_bundle(two_widths: Path, tmp_path: Path) -> None:
    words = ["--trace", "poisson", "--rate", "60", "--seconds", "0.5", "--repeats", "2", "--policies", "fixed:0.25,drain"]
    done = load(two_widths, *LONG, *words, "--json", "r.json", "--no-plots")
    assert "2 runs" not in done.err and "4 runs of 0:00" in done.err
    rows = [line.split() for line in done.out.splitlines()]
    assert [row[0] for row in rows] == ["policy", "fixed:0.25", "drain"] and rows[1][1] == "100.00"
    written = json.loads((tmp_path / "r.json").read_text())
    assert {"policies", "trace", "environment"} <= set(written)
    for of_policy, width in zip(written["policies"], (0.25, 0.5), strict=True):
        keys = {"policy", "attainment", "goodput", "mean_width", "mean_accuracy", "p50_ms", "p95_ms", "p99_ms", "p999_ms"}
        assert keys <= set(of_policy)
        assert of_policy["attainment"] == 1.0 and of_policy["mean_width"] == width and of_policy["mean_accuracy"] is None
        assert of_policy["requests"] == 2 * written["trace"]["requests"]
    assert written["capacity"] > 0 and written["environment"]["cpu"]
    folder = tmp_path / "measured" / "us_mobilenet_v1" / "load"
    lines = lines_of(folder / "results.jsonl")
    assert [line["kind"] for line in lines] == ["run", *["round"] * 4, *["policy"] * 2, "end"]
    assert [line["policy"] for line in lines[1:5]] == ["fixed:0.25", "drain", "drain", "fixed:0.25"]
    assert lines[1]["samples"]["intended_s"] == lines[2]["samples"]["intended_s"]
    assert lines[0]["settings"]["options"]["target"] == "us_mobilenet_v1" and "python -m benchmarks" in lines[0]["command"]
    assert [path.name for path in folder.iterdir()] == ["results.jsonl"]


def test_of_a_detector_it_says_average_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchvision")
    from tests.support.exported_detectors import with_precisions, write_detector_bundle

    bundle = write_detector_bundle(tmp_path / "detector")
    with_precisions(bundle, {0.5: 0.25, 1.0: 0.5})
    kinds = []

    def draw(*words: Any) -> Path:
        kinds.append(words[-1])
        return tmp_path / "load.png"

    monkeypatch.setattr("benchmarks.load.plots.draw", draw)
    words = ["--trace", "poisson", "--rate", "20", "--seconds", "0.3", "--policies", "fixed:0.5,fixed:1"]
    done = load(bundle, *LONG, *words, "--json", "r.json")
    header, *rows = done.out.splitlines()
    assert " AP " in header and "accuracy" not in header
    assert [row.split()[3] for row in rows] == ["0.250", "0.500"]
    written = json.loads((tmp_path / "r.json").read_text())
    assert (written["accuracies"], written["accuracy_kind"]) == ("manifest", "ap") and kinds == ["ap"]


def test_a_picture_and_a_run_that_was_there_before(two_widths: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    words = [two_widths, *LONG, "--trace", "steady", "--rate", "40", "--seconds", "0.2", "--output-dir", "out"]
    assert "results.jsonl, load.png" in load(*words).err
    assert "out held an earlier run, which is now out.1" in load(*words).err
    assert (tmp_path / "out" / "load.png").exists() and (tmp_path / "out.1" / "load.png").exists()
    load(*words)
    assert not (tmp_path / "out.2").exists(), "only the last run is kept"


def test_a_file_of_times(two_widths: Path, tmp_path: Path) -> None:
    (tmp_path / "times.txt").write_text("".join(f"{number / 50}\n" for number in range(10)))
    load(two_widths, *LONG, "--trace", "times.txt", "--json", "r.json", "--no-plots")
    trace = json.loads((tmp_path / "r.json").read_text())["trace"]
    assert (trace["kind"], trace["file"], trace["requests"]) == ("file", "times.txt", 10)


def test_a_server(tmp_path: Path) -> None:
    pytest.importorskip("tritonclient.http.aio")
    answer = {"width": 0.5, "batch": 1, "queued_ms": 0.1, "computed_ms": 0.2}
    with protocol_server(lambda number, header, content: (200, answer)) as url:
        done = load(url, *LONG, "--trace", "steady", "--rate", "40", "--seconds", "0.3", "--json", "r.json", "--no-plots")
    (of_policy,) = json.loads((tmp_path / "r.json").read_text())["policies"]
    assert (of_policy["policy"], of_policy["attainment"], of_policy["mean_width"]) == (AS_SERVED, 1.0, 0.5)
    assert (tmp_path / "measured" / "us_mobilenet_v1" / "load" / "results.jsonl").exists()
    assert done.out.splitlines()[1].strip().startswith(AS_SERVED)


def test_failed_requests_are_an_exit_code() -> None:
    pytest.importorskip("tritonclient.http.aio")
    failing: tuple[int, Mapping[str, Any]] = (500, {"error": "no"})
    with protocol_server(lambda number, header, content: failing) as url:
        load(url, "--trace", "steady", "--rate", "20", "--seconds", "0.1", "--no-plots", code=1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--slo-ms", "0"], "--slo-ms 0"),
        (["--load", "nan"], "--load nan"),
        (["--load", "1", "--rate", "5"], "Give one of them"),
        (["--trace", "none.txt"], "none.txt: not there. Give one of steady"),
        (["--trace", "steady", "--policies", "widest"], "'widest' is not known"),
        (["--trace", "steady", "--widths", "0.7"], "holds no width 0.7"),
        (["--trace", "steady", "--seconds", "0", "--rate", "1"], "--seconds 0"),
    ],
)
def test_mistakes_are_one_line(two_widths: Path, words: list[str], said: str) -> None:
    done = load(two_widths, *words, code=2)
    assert said in done.err and "Traceback" not in done.err and done.out == ""


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    assert "none" in load("none", "--trace", "steady", code=2).err
    url = "http://127.0.0.1:1/v2/models/m"
    assert "Give --rate" in load(url, code=2).err
    assert "--policies: cannot be chosen" in load(url, "--rate", "1", "--policies", "drain", code=2).err
    assert "and give --rate" in load(url, "--load", "1", code=2).err


def test_how_much_is_sent() -> None:
    assert trace_of(Asked("b", trace="steady", seconds=10.0), 100.0).rate == pytest.approx(120.0)
    assert trace_of(Asked("b", trace="steady", load=0.5, seconds=10.0), 100.0).rate == pytest.approx(50.0)
    assert trace_of(Asked("b", trace="steady", rate=7.0, seconds=10.0), 100.0).rate == pytest.approx(7.0)
    several = Asked("b", trace="steady", load=0.5, seconds=10.0, images=5)
    assert trace_of(several, 100.0).rate == pytest.approx(10.0), "of the capacity in images"
    assert trace_of(Asked("b", trace="steady"), 100.0).seconds == running.SECONDS


def test_a_file_is_stretched_where_a_load_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("0\n1\n2\n3\n")
    assert trace_of(Asked("b", trace=str(path)), 100.0).rate == pytest.approx(1.0)
    assert trace_of(Asked("b", trace=str(path), load=0.5), 100.0).rate == pytest.approx(50.0)
    with pytest.raises(UserError, match="not there"):
        trace_of(Asked("b", trace=str(tmp_path / "none")), 100.0)
