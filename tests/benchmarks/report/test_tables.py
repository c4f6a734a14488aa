"""Tables are read back and compared with what they were made from."""

from __future__ import annotations

from decimal import Decimal

import pytest

from benchmarks.cells.cell import INTERRUPTED, Result, ceiling_key
from benchmarks.report.analysis import Group, analyse
from benchmarks.report.tables import COLUMNS, common_reason, markdown_table, overview, percent, significant, text_table
from tests.support.shown_results import cell, failed, family, figures, on_gpu, result, steady

CEILING = {"macs_per_s": 7e10, "bytes_per_s": 1e10, "seconds_per_operator": 1e-6}


def group(results: list[Result]) -> Group:
    (only,) = analyse(results, {ceiling_key(results[0].cell): CEILING})
    return only


def read(text: str) -> dict[str, dict[str, float | str]]:
    """The rows of a table in blocks: label -> name and unit -> value."""
    rows: dict[str, dict[str, float | str]] = {}
    for block in text.split("\n\n"):
        names, units, *lines = block.splitlines()
        columns = names.split()
        ends: list[int] = []
        for name in columns:
            ends.append(names.index(name, ends[-1] if ends else 0) + len(name))
        for line in lines:
            values = line.split()
            assert len(values) == len(columns), line
            for name, end, value in zip(columns, ends, values, strict=True):
                until = units.ljust(len(names))[:end]
                key = name if until.endswith(" ") else f"{name} {until.split()[-1]}"
                rows.setdefault(values[0], {})[key] = float(value) if value.replace(".", "").isdigit() else value
    return rows


@pytest.mark.parametrize("value", [0.0123456, 0.9999999, 1.0, 9.9996, 12.3, 999.96, 1234.4, 99999.6, 3.14159])
def test_significant_digits(value: float) -> None:
    text = significant(value)
    assert "e" not in text.lower()
    digits = len(text.replace(".", "").lstrip("0"))
    assert digits == max(4, len(str(round(value))) if value >= 1000 else 4)
    assert abs(Decimal(text) - Decimal(value)) <= Decimal(value) * Decimal("0.0005")


def test_significant_of_nothing() -> None:
    assert (significant(None), significant(12.3456, 3), significant(0.0)) == ("", "12.3", "0.000")


@pytest.mark.parametrize(
    ("share", "text"), [(None, ""), (0.057, "5.7"), (0.0996, "10"), (0.0994, "9.9"), (1.28, "128"), (0.0, "0.0")]
)
def test_percent(share: float | None, text: str) -> None:
    assert percent(share) == text


def test_text_table_reads_back() -> None:
    analysed = group(family(7, batches=(8,), accuracy=True))
    text = text_table(analysed)
    assert max(map(len, text.splitlines())) <= COLUMNS
    rows = read(text)
    assert list(rows) == [row.cell.label for row in analysed.rows]
    for row in analysed.rows:
        seen, known = rows[row.cell.label], row.summary
        assert known and row.macs_per_s and row.ceiling_share and row.efficiency and row.bound_share and row.cell.accuracy
        expected = {
            "median ms": known.median_ms,
            "p90 ms": known.p90_ms,
            "p95 ms": known.p95_ms,
            "p99 ms": known.p99_ms,
            "images /s": 8 / known.median_ms * 1e3,
        }
        assert {name: seen[name] for name in expected} == pytest.approx(expected, rel=5e-4)
        assert seen["speed-up x"] == pytest.approx(row.speedup, abs=0.005)
        assert seen["promised x"] == pytest.approx(row.promised, abs=0.005)
        assert seen["effic. %"] == pytest.approx(100 * row.efficiency, abs=0.5)
        assert seen["spread %"] == pytest.approx(100 * known.spread, abs=0.5)
        assert seen["GMAC /s"] == pytest.approx(row.macs_per_s / 1e9, rel=5e-3)
        assert seen["ceiling %"] == pytest.approx(100 * row.ceiling_share, abs=0.5)
        assert seen["top-1 %"] == pytest.approx(100 * row.cell.accuracy["top1"], abs=0.005)
        assert seen["bound by"] == row.bound and seen["floor %"] == pytest.approx(100 * row.bound_share, abs=0.5)


def test_a_gpu_with_transfers_goes_on_below() -> None:
    engines = family(3, batches=(1,), backend="tensorrt", precision="fp16")
    analysed = group([on_gpu(engine, transfers=True) for engine in engines])
    text = text_table(analysed)
    assert len(text.split("\n\n")) == 2
    assert max(map(len, text.splitlines())) <= COLUMNS
    rows = read(text)
    for row in analysed.rows:
        seen, median = rows[row.cell.label], figures(row).median_ms
        assert seen["median ms"] == pytest.approx(median, rel=5e-4)
        assert seen["wall ms"] == pytest.approx(1.2 * median, rel=5e-4)
        assert (seen["H2D ms"], seen["D2H ms"]) == pytest.approx((0.25 * median, 0.05 * median), rel=1e-3)
        assert seen["speed-up x"] == pytest.approx(row.speedup, abs=0.005)


def test_without_transfers_there_are_no_such_columns() -> None:
    heads = text_table(group([on_gpu(measured) for measured in family(3, batches=(1,))])).splitlines()[0].split()
    assert "wall" in heads and not {"H2D", "D2H"} & set(heads)
    heads = text_table(group(family(3, batches=(1,)))).splitlines()[0].split()
    assert not {"wall", "H2D", "D2H", "top-1"} & set(heads)


def test_a_row_that_failed_gives_its_reason_in_its_place() -> None:
    results = family(3, batches=(1,))
    reason = "the device has too little memory: " + " ".join(["word"] * 60)
    results[1] = failed(results[1].cell, reason)
    lines = text_table(group(results)).splitlines()
    assert max(map(len, lines)) <= COLUMNS
    assert lines[2].split()[0] == "0.25x" and lines[3].split()[0] == "0.625x" and lines[-1].split()[0] == "1.0x"
    middle = " ".join(" ".join(lines[3:-1]).split())
    assert middle.endswith(f"not measured: {reason}")
    assert lines[3].index("M") == lines[2].index("M")  # its MACs are where the others' are


def test_a_reason_is_given_once_where_the_table_goes_on_below() -> None:
    results = [on_gpu(measured, transfers=True) for measured in family(3, batches=(1,), accuracy=True)]
    results[1] = failed(results[1].cell)
    first, second = text_table(group(results)).split("\n\n")
    assert "not measured: no room for it" in first and len(first.splitlines()) == 5
    assert [line.split()[0] for line in second.splitlines()[2:]] == ["0.25x", "1.0x"]


def test_all_failed() -> None:
    analysed = group([failed(cell("0.5x", 10)), failed(cell("1.0x", 20))])
    assert common_reason(analysed) == "not measured: no room for it"
    text = text_table(analysed)
    assert text.count("not measured: no room for it") == 2 and "median" not in text
    assert common_reason(group([failed(cell("0.5x", 10), "this"), failed(cell("1.0x", 20), "that")])) is None
    assert common_reason(group([failed(cell("0.5x", 10)), steady(cell("1.0x", 20), 1.0)])) is None


def test_an_interrupted_row_is_marked() -> None:
    cut = result(cell("1.0x", 20), [[1.0]], status=INTERRUPTED, reason="interrupted in round 2 of 3")
    assert text_table(group([cut])).splitlines()[2].split()[0] == "1.0x*"


def test_missing_ceilings_leave_holes() -> None:
    (analysed,) = analyse(family(2, batches=(1,)), {})
    cells = [line.split("|")[1:-1] for line in markdown_table(analysed).splitlines()]
    heads = [head.strip() for head in cells[0]]
    for line in cells[2:]:
        row = dict(zip(heads, (text.strip() for text in line), strict=True))
        assert (row["ceiling %"], row["bound by"], row["floor %"]) == ("", "", "") and float(row["GMAC/s"]) > 0


def test_markdown_has_what_the_text_has() -> None:
    results = family(5, batches=(1,), accuracy=True)
    results[2] = failed(results[2].cell, "a | b\nc")
    analysed = group(results)
    rows = [
        [text.strip() for text in line.replace("\\|", "¦").split("|")[1:-1]] for line in markdown_table(analysed).splitlines()
    ]
    assert len({len(row) for row in rows}) == 1 and set(rows[1]) == {"---:"}
    plain = read("\n".join(line for line in text_table(analysed).splitlines() if "not measured" not in line))
    for row in rows[2:]:
        if row[0] == analysed.rows[2].cell.label:
            assert row[4] == "not measured: a ¦ b c" and set(row[5:]) == {""}
        else:
            values = [float(text) if text.replace(".", "").isdigit() else text for text in row]
            assert values == list(plain[row[0]].values())


def test_overview_puts_groups_side_by_side() -> None:
    results = family(3, batches=(1, 8))
    results[0] = failed(results[0].cell)
    table = overview(analyse(results, {}))
    assert table[0] == ["width", "onnxruntime-cpu fp32, batch 1", "onnxruntime-cpu fp32, batch 8"]
    assert [line[0] for line in table[1:]] == ["0.25x", "0.625x", "1.0x"]
    assert table[1][1] == "-" and all(float(text) > 0 for line in table[1:] for text in line[1:] if text != "-")
