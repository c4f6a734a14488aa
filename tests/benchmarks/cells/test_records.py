"""results.jsonl and results.csv: what is written is read back, whatever ends a run."""

from __future__ import annotations

import csv
import errno
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.cells.cell import NOT_MEASURED, Result
from benchmarks.cells.records import RecordError, Records, claim_folder, read_records, write_csv
from benchmarks.cells.statistics import summary
from slimtrain.base.errors import ResourceError, UserError
from tests.support.bench_helpers import cell, result

ENVIRONMENT = {"cpu": "Fast One", "cores": 2}
RESULTS = [
    result([[1.5, 1.25], [1.125]], cell("net_x1_0", accuracy={"top1": 0.5, "images": 360, "data": "digits"}), gpu=True),
    result(
        [[2.0]], cell("net_x0_5", width=0.5), warnings=("noisy, very", "only 1 iterations"), states=[{"power_w": [71.5, 71.5]}]
    ),
    Result(cell("net_x0_5", batch=8), NOT_MEASURED, 'no "plan",\nnowhere', settings={"threads": 1}),
]


def written(path: Path, results: list[Result] = RESULTS, end: bool = True) -> Path:
    with Records(path) as records:
        records.run("python -m benchmarks bundle", ENVIRONMENT, {"duration_s": 3.0})
        for result in results:
            records.add(result)
        if end:
            records.end({"cpu": "Fast One"}, 12.5)
    return path


def claim(folder: Path, kept: Sequence[Path] = ()) -> Path | None:
    """Claim a folder, and let it go."""
    with claim_folder(folder, kept=kept) as moved:
        return moved


def test_what_a_killed_run_had_begun_is_not_kept_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "measured"
    folder.mkdir()
    written(folder / "results.jsonl")
    (folder / ".report.md.partial-17").write_text("half a rep")
    moved = claim(folder)
    assert moved is not None and [path.name for path in moved.iterdir()] == ["results.jsonl"]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    recorded = read_records(written(tmp_path / "results.jsonl"))
    assert list(recorded.results) == RESULTS
    assert recorded.run == {
        "kind": "run",
        "schema_version": 1,
        "command": "python -m benchmarks bundle",
        "environment": ENVIRONMENT,
        "settings": {"duration_s": 3.0},
        "ceilings": {},
    }
    assert recorded.end == {"kind": "end", "environment_after": {"cpu": "Fast One"}, "seconds": 12.5, "interrupted": False}
    assert recorded.note == ""
    assert read_records(tmp_path).results == recorded.results  # its folder will do


def test_every_line_is_on_the_disk_at_once(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with Records(path) as records:
        records.run("benchmarks", ENVIRONMENT, {})
        for count, result in enumerate(RESULTS, 1):
            records.add(result)
            assert len(path.read_text().splitlines()) == 1 + count
            assert read_records(path).results[-1] == result
        records.end({}, 1.0, interrupted=True)
    end = read_records(path).end
    assert end is not None and end["interrupted"] is True


def test_a_killed_run_is_read_up_to_its_end(tmp_path: Path) -> None:
    path = written(tmp_path / "results.jsonl", end=False)
    recorded = read_records(path)
    assert (len(recorded.results), recorded.end) == (3, None)
    assert "killed before its end" in recorded.note
    assert "cut off" not in recorded.note


def test_a_run_cut_off_anywhere_is_read_up_to_there(tmp_path: Path) -> None:
    content = written(tmp_path / "results.jsonl").read_bytes()
    lines = content.splitlines(keepends=True)
    whole = [sum(map(len, lines[:count])) for count in range(len(lines) + 1)]
    path = tmp_path / "cut.jsonl"
    for end in [*range(0, len(content), 17), *whole, *(place - 1 for place in whole[1:])]:
        path.write_bytes(content[:end])
        if end < len(lines[0]) - 1:
            with pytest.raises(RecordError):
                read_records(path)
            continue
        recorded = read_records(path)
        complete = sum(end >= place - 1 for place in whole[1:])  # a line that lacks only its line end is whole
        assert list(recorded.results) == RESULTS[: complete - 1]
        assert bool(recorded.note) == (complete < len(lines))
        assert ("cut off" in recorded.note) == (end not in whole and end + 1 not in whole)


def test_values_that_json_has_no_word_for(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    environment = {"load": float("nan"), "deep": [{"power_w": float("inf")}], "path": Path("a"), "cores": np.int64(2)}
    with Records(path) as records:
        records.run(
            "benchmarks", {**environment, "array": np.array([1.5, np.nan])}, {}, {"cpu fp32": {"macs_per_s": np.float32(2.5)}}
        )
        records.add(RESULTS[0])
        with pytest.raises(TypeError, match="object"):
            records.end({"what": object()}, 1.0)
    assert "NaN" not in path.read_text() and "Infinity" not in path.read_text()
    recorded = read_records(path)
    expected = {"load": None, "deep": [{"power_w": None}], "path": "a", "cores": 2, "array": [1.5, None]}
    assert recorded.run["environment"] == expected
    assert recorded.run["ceilings"] == {"cpu fp32": {"macs_per_s": 2.5}}
    assert recorded.results == (RESULTS[0],)


def edited(change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        path.write_text("".join(f"{line}\n" for line in change(path.read_text().splitlines())))

    return apply


def without(line: str, key: str) -> str:
    content = json.loads(line)
    del content[key]
    return json.dumps(content)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (Path.unlink, "not there. Give the results.jsonl"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "cannot be read"),
        (lambda path: path.write_text(""), "does not begin with a run's line"),
        (lambda path: path.write_text("# Report\n"), "line 1: is no JSON"),
        (lambda path: path.write_text("[1]\n"), "line 1: is no entry"),
        (edited(lambda lines: lines[1:]), "does not begin with a run's line"),
        (edited(lambda lines: [lines[0].replace('"schema_version":1', '"schema_version":2')]), "schema version 2, expected 1"),
        (edited(lambda lines: [without(lines[0], "schema_version")]), "schema version None"),
        (edited(lambda lines: [*lines[:2], lines[2][:50], *lines[3:]]), "line 3: is no JSON"),
        (edited(lambda lines: [*lines, lines[1]]), "line 6: net_x1_0 is there twice"),
        (edited(lambda lines: [*lines, lines[0]]), "line 6: is no result"),
        (
            edited(lambda lines: [lines[0], without(lines[1], "rounds")]),
            r"line 2: is no result \(rounds is missing, expected a list\)",
        ),
        (edited(lambda lines: [lines[0], lines[1].replace('"macs"', '"flops"')]), "line 2: is no result"),
    ],
)
def test_what_is_no_run_is_told(tmp_path: Path, damage: Callable[[Path], Any], said: str) -> None:
    path = written(tmp_path / "results.jsonl")
    damage(path)
    with pytest.raises(RecordError, match=said) as caught:
        read_records(path)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 2


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = written(tmp_path / "results.jsonl")
    with pytest.raises(UserError, match="File exists"), Records(path):
        pass
    assert len(read_records(path).results) == 3


def test_a_full_disk_is_told_and_leaves_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with Records(path) as records:
        records.run("benchmarks", ENVIRONMENT, {})

        class Full:
            def write(self, text: bytes) -> int:
                raise OSError(errno.ENOSPC, "No space left on device")

            def fileno(self) -> int:
                return real.fileno()

        real = records._file._file
        records._file._file = Full()  # type: ignore[assignment]
        with pytest.raises(ResourceError, match="no space left") as caught:
            records.add(RESULTS[0])
        records._file._file = real
    assert caught.value.exit_code == 3
    assert read_records(path).run["environment"] == ENVIRONMENT


def test_the_table_has_every_figure(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    write_csv(path, RESULTS)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    for row, expected in zip(rows, RESULTS, strict=True):
        figures = summary(expected)
        assert (row["name"], int(row["batch"]), row["status"], row["reason"]) == (
            expected.cell.name,
            expected.cell.batch,
            expected.status,
            expected.reason,
        )
        assert json.loads(row["settings"]) == expected.settings
        assert row["warnings"] == " | ".join(expected.warnings)
        if figures is None:
            assert row["median_ms"] == row["latency_kind"] == row["interval_low_ms"] == ""
            continue
        for name in ("median_ms", "mean_ms", "min_ms", "max_ms", "p90_ms", "p95_ms", "p99_ms", "iqr_ms", "images_per_s"):
            assert float(row[name]) == getattr(figures, name)
        assert (float(row["interval_low_ms"]), float(row["interval_high_ms"])) == figures.interval_ms
        assert row["latency_kind"] == expected.latency_kind
    assert (rows[0]["accuracy_top1"], rows[0]["accuracy_data"], rows[1]["accuracy_top1"]) == ("0.5", "digits", "")
    assert (rows[0]["host_bound"], rows[1]["host_bound"]) != ("", "") and rows[1]["host_bound"] == ""
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv"]


def test_a_table_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.csv"
    path.write_text("before")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ResourceError, match="no space left"):
        write_csv(path, RESULTS)
    assert path.read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_is_made(tmp_path: Path) -> None:
    assert claim(tmp_path / "a/b") is None
    assert claim(tmp_path / "a/b") is None  # holds no run: used as it is
    assert (tmp_path / "a/b").is_dir()


def test_the_last_run_is_kept_and_no_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "out"
    caplog.set_level("INFO")
    for run in range(4):
        moved = claim(folder)
        assert moved == (tmp_path / "out.1" if run else None)
        for name in ("results.jsonl", "results.csv", "report.md", "comparison.txt", "latency_net_cpu.png"):
            (folder / name).write_text(str(run))
        (folder / "choose").mkdir()
        (folder / "choose" / "results.jsonl").write_text("")
    assert caplog.text.count("the run before the last one is removed") == 2
    assert {path.name: (path / "results.jsonl").read_text() for path in tmp_path.iterdir()} == {"out": "3", "out.1": "2"}


@pytest.mark.parametrize("foreign", ["notes.txt", "choose/notes.txt", "sub/results.jsonl", "picture.png"])
def test_a_folder_that_holds_anything_else_is_never_removed(tmp_path: Path, foreign: str) -> None:
    folder, kept = tmp_path / "out", tmp_path / "out.1" / foreign
    for parent in (folder, tmp_path / "out.1", kept.parent):
        parent.mkdir(exist_ok=True)
        (parent / "results.jsonl").write_text("")
    kept.write_text("mine")
    assert claim(folder) == tmp_path / "out.2"
    assert kept.read_text() == "mine"


def test_a_run_that_is_read_is_not_removed(tmp_path: Path) -> None:
    folder, baseline = tmp_path / "out", tmp_path / "out.1" / "results.jsonl"
    for parent in (folder, baseline.parent):
        parent.mkdir()
        (parent / "results.jsonl").write_text("")
    assert claim(folder, kept=[baseline]) == tmp_path / "out.2"
    assert baseline.exists()


def test_what_is_no_run_or_a_link_keeps_its_name(tmp_path: Path) -> None:
    for name in ("out", "elsewhere"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.jsonl").write_text("")
    (tmp_path / "out.1").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "out.2").mkdir()
    assert claim(tmp_path / "out") == tmp_path / "out.3"


def test_the_working_folder_is_not_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results.jsonl").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecordError, match="cannot be renamed"):
        claim(Path())


@pytest.mark.parametrize(("number", "kind", "code"), [(errno.ENOSPC, ResourceError, 3), (errno.EACCES, UserError, 2)])
def test_a_folder_that_cannot_be_made_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Any], code: int
) -> None:
    def refuse(*arguments: Any, **named: Any) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(kind, match=str(tmp_path / "out")) as caught:
        claim(tmp_path / "out")
    assert caught.value.exit_code == code


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="File exists"):
        claim(tmp_path / "out")


def test_cells_of_other_images_come_back_and_those_of_square_color_images_are_written_as_before(tmp_path: Path) -> None:
    cells = [cell("a", image_size=(48, 32), channels=1), cell("b", image_size=(32, 48)), cell("c", channels=4), cell("d")]
    with Records(tmp_path / "results.jsonl") as records:
        records.run("command", {}, {}, {})
        for one in cells:
            records.add(result([[1.0, 2.0]], one))
        records.end({}, 1.0)
    assert [again.cell for again in read_records(tmp_path).results] == cells
    assert [one.image_shape for one in cells] == [(1, 48, 32), (3, 32, 48), (4, 4, 4), (3, 4, 4)]
    written = [json.loads(line)["cell"] for line in (tmp_path / "results.jsonl").read_text().splitlines()[1:5]]
    assert [entry["image_size"] for entry in written] == [[48, 32], [32, 48], 4, 4]
    assert [entry.get("channels") for entry in written] == [1, None, 4, None]
    write_csv(tmp_path / "a.csv", [result([[1.0, 2.0]], one) for one in cells])
    with (tmp_path / "a.csv").open(newline="") as file:
        assert [row["image_size"] for row in csv.DictReader(file)] == ["48x32", "32x48", "4", "4"]


@pytest.mark.parametrize("size", [[48], [48, 0], "48x", None])
def test_a_cell_with_a_size_that_is_none_is_damage(tmp_path: Path, size: object) -> None:
    with Records(tmp_path / "results.jsonl") as records:
        records.run("command", {}, {}, {})
        records.add(result([[1.0, 2.0]]))
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    entry = json.loads(lines[1])
    entry["cell"]["image_size"] = size
    (tmp_path / "results.jsonl").write_text("\n".join([lines[0], json.dumps(entry), ""]))
    with pytest.raises(RecordError, match=r"line 2: is no result \((cell\.image_size|image size)"):
        read_records(tmp_path)
