"""What is said of the published networks, on latencies with known fronts; and the picture as matplotlib holds it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.cells.cell import Result
from benchmarks.cells.records import Recorded
from benchmarks.studies.zoo.document import NothingToDraw, console, draw, report, sentences
from slimtrain.costs.cost import CostCounter
from slimtrain.models.published import published_spec
from tests.support.shown_results import cell, failed, recorded, steady

SPEED = {"s_mobilenet_v1": 1.0, "autoslim_mobilenet_v2": 4.0, "s_shufflenet": 20.0}  # ms per 100M MACs


def results(batch: int = 1) -> list[Result]:
    """Depthwise layers and shuffles cost more here than their MACs say."""
    every = []
    for network, slowness in SPEED.items():
        spec = published_spec(network)
        count = CostCounter(spec, 224)
        for plan in spec.plans:
            macs = count(plan).macs
            label = f"s{plan.width}" if isinstance(plan.width, int) else f"{plan.width}x"
            of = cell(
                label, macs, network=network, bundle=network, name=f"{network}_{plan.name}", width=plan.width, batch=batch
            )
            ms = slowness * macs / 1e8 * batch
            every.append(steady(of, *(ms * factor for factor in (1.0, 0.999, 1.001, 1.0))))
    return every


def test_sentences_say_what_to_ship_and_where_macs_mislead() -> None:
    said = sentences(recorded(results()))
    assert (
        said[0] == "worth shipping at batch 1, 7 of 10 switches: S-MobileNet v1 0.25x to 1.0x; AutoSlim-MobileNet v2 s1 to s3"
    )
    assert said[1] == (
        "MACs mislead most at batch 1 about S-ShuffleNet 1.0x (137.3M, 34.5 %): it takes 27.5 ms, S-MobileNet v1 0.75x "
        "(325.4M, 30.5 %) 3.25 ms"
    )
    assert said[2] == "by MACs it would have been 5: S-ShuffleNet 0.5x, 1.0x; AutoSlim-MobileNet v2 s1 to s3"
    assert said[3] == "never worth it here: S-ShuffleNet"


def test_report_and_console_name_both_batches_and_mark_errors_as_published() -> None:
    run = recorded([*results(), *results(32)])
    text, shown = report(run, "zoo.png"), console(run)
    for of in (text, shown):
        assert "errors are the published ones, not measured here" in of
        assert "worth shipping at batch 1" in of.lower() and "worth shipping at batch 32" in of.lower()
    assert "](zoo.png)" in text and "| S-MobileNet v1 | 0.5x | 35.2 | 149.5M" in text
    row = next(line for line in text.splitlines() if line.startswith("| S-ShuffleNet | 2.0x"))
    assert "**" not in row and row.count("|") == 7
    assert "Intel(R) Xeon(R)" in text and "not measured:" not in shown


def test_what_was_not_measured_is_said_once() -> None:
    first, second, *rest = results()
    run = recorded([failed(first.cell, "no room"), failed(second.cell, "no room"), *rest])
    assert console(run).count("no room") == report(run, "zoo.png").count("no room") == 1
    assert console(run).index("no room") < console(run).index("worth shipping")


def test_errors_of_another_precision_are_said_to_be_those_of_fp32() -> None:
    run = recorded([replace(of, cell=replace(of.cell, precision="int8-cpu")) for of in results()])
    for text in (console(run), report(run, "zoo.png")):
        assert text.count("not measured here, and of the networks in fp32: another precision adds to them") == 1
    assert "in fp32:" not in console(recorded(results()))


def test_nothing_measured_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(NothingToDraw, match=r"nothing could be measured: .*: no room") as raised:
        draw(recorded([failed(of.cell, "no room") for of in results()]), tmp_path / "zoo.png", 256)
    assert raised.value.exit_code == 3 and not (tmp_path / "zoo.png").exists()


def test_the_picture_is_small_and_the_same_every_time(tmp_path: Path) -> None:
    run: Recorded = recorded([*results(), *results(32)])
    draw(run, tmp_path / "one.png", 256)
    draw(replace(run), tmp_path / "two.png", 256)
    content = (tmp_path / "one.png").read_bytes()
    assert content == (tmp_path / "two.png").read_bytes() and 20_000 < len(content) < 500_000
