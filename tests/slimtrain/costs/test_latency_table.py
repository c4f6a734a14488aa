"""Latency tables: costs against brute force on known times, and every way in which a file can be wrong."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slimtrain.base.errors import UserError
from slimtrain.base.image_size import sides
from slimtrain.costs.latency_grid import Axis, Times
from slimtrain.costs.latency_table import (
    LatencyTableError,
    read_latency_table,
    write_latency_table,
)
from slimtrain.costs.layer_shapes import DEPTHWISE, LayerShape, layer_shapes
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.published import published_spec
from slimtrain.models.spec import NetworkSpec
from tests.support import ROOT
from tests.support.latency_tables import SIZE, table_of


def bilinear(layer: LayerShape, inp: int, out: int) -> float:
    """A function that bilinear interpolation meets exactly, different for every layer."""
    return 1e-3 * sides(layer.size)[0] + 1e-5 * inp + 2e-5 * out + 1e-7 * inp * out


def random_plan(spec: NetworkSpec, draw: random.Random) -> ChannelPlan:
    low = spec.plan(spec.range[0]).channels
    return ChannelPlan("mine", {group: draw.randint(low[group], most) for group, most in spec.widest.channels.items()})


@pytest.mark.parametrize("name", ["us_mobilenet_v1", "us_mobilenet_v2", "s_shufflenet"])
def test_a_cost_is_the_sum_over_layers_at_any_plan(name: str) -> None:
    spec, draw = published_spec(name), random.Random(5)
    table = table_of(spec, lambda *a: bilinear(*a) if a[0].kind != DEPTHWISE else 3e-4 * a[1])
    plans = [random_plan(spec, draw) for _ in range(5)] if name != "s_shufflenet" else list(spec.plans)
    for plan in plans:
        total = 0.0
        for layer in layer_shapes(spec, SIZE):
            inp, out = plan.size(layer.inp), plan.size(layer.out)
            total += 3e-4 * inp if layer.kind == DEPTHWISE else bilinear(layer, inp, out)
        assert math.isclose(table.cost_ms(plan), 0.25 + 1.5 * total, rel_tol=1e-12)
        assert table.cost_ms(plan) == table.cost_ms(plan)


def brute(counts: tuple[int, ...], values: dict[int, float], step: int, count: int) -> float:
    """What is known at `count`, by the definition: itself where it was measured, else on the line between its neighbours in
    blocks of `step`."""
    if count in values:
        return values[count]
    low, high = max(c for c in counts if c < count), min(c for c in counts if c > count)
    blocks = [math.ceil(c / step) for c in (low, count, high)]
    if blocks[0] == blocks[2]:
        return values[high]
    share = (blocks[1] - blocks[0]) / (blocks[2] - blocks[0])
    return values[low] * (1 - share) + values[high] * share


@pytest.mark.parametrize("step", [1, 8, 16, 64])
def test_between_measured_counts_time_is_linear_in_blocks(step: int) -> None:
    draw = random.Random(step)
    counts = (8, 24, 72, 80, 200)
    values = {count: draw.uniform(1, 2) for count in counts}
    times = Times(Axis(counts, step), None, tuple((values[count],) for count in counts))
    for count in range(8, 201):
        assert math.isclose(times.at(count, count), brute(counts, values, step, count), rel_tol=1e-12)


def test_a_staircase_is_met_exactly_from_few_counts() -> None:
    """Times that rise every 16 channels, in both dimensions, measured at a few multiples of 16 and the ends."""

    def stairs(inp: int, out: int) -> float:
        return 0.1 + math.ceil(inp / 16) * 0.3 + math.ceil(inp / 16) * math.ceil(out / 16) * 0.07

    inputs, outputs = (16, 64, 160), (32, 96, 250)
    rows = tuple(tuple(stairs(inp, out) for out in outputs) for inp in inputs)
    exact, smooth = (Times(Axis(inputs, step), Axis(outputs, step), rows) for step in (16, 1))
    off = 0.0
    for inp in range(16, 161, 3):
        for out in range(32, 251, 3):
            assert math.isclose(exact.at(inp, out), stairs(inp, out), rel_tol=1e-12)
            off = max(off, abs(smooth.at(inp, out) / stairs(inp, out) - 1))
    assert off > 0.2  # what the step is for


def test_layers_that_share_an_entry_take_the_same() -> None:
    spec = published_spec("us_mobilenet_v1")
    table = table_of(spec, bilinear)
    names = [layer.name for layer in table.layers]
    first, second = names.index("features.8.body.3"), names.index("features.9.body.3")
    shared = replace(table, of_layer=tuple(first if at == second else at for at in range(len(names))))
    plan = spec.plan(0.7)
    assert shared.layers_ms(plan)[second] == table.layers_ms(plan)[first]
    doubled = tuple(
        replace(times, ms=tuple(tuple(2 * ms for ms in row) for row in times.ms)) if at == first else times
        for at, times in enumerate(table.times)
    )
    more = replace(shared, times=doubled).cost_ms(plan) - shared.cost_ms(plan)
    assert math.isclose(more, 1.5 * 2 * table.layers_ms(plan)[first], rel_tol=1e-9)


def test_what_was_looked_up_for_one_plan_is_not_used_for_another() -> None:
    spec, draw = published_spec("us_mobilenet_v1"), random.Random(1)
    table = table_of(spec, bilinear)
    for _ in range(20):
        plan = random_plan(spec, draw)
        assert table.cost_ms(plan) == replace(table).cost_ms(plan)  # a table that has looked up nothing


@pytest.mark.parametrize(
    ("group", "count", "wanted"),
    [
        ("features.3", 8, ["plan mine: features.3.body.3 has 8 output channels, measured are 32 to 128"]),
        ("features.0", 33, ["features.0.0 has 33 output channels, measured are 8 to 32", "us_mobilenet_v1 --range LOW:HIGH"]),
    ],
)
def test_channels_beyond_the_measured_ones_are_refused(group: str, count: int, wanted: list[str]) -> None:
    spec = published_spec("us_mobilenet_v1")
    plan = ChannelPlan("mine", {**spec.widest.channels, group: count})
    with pytest.raises(LatencyTableError) as caught:
        table_of(spec, bilinear).cost_ms(plan)
    assert all(text in str(caught.value) for text in wanted), str(caught.value)


def test_a_depthwise_layer_s_channels_are_told_once() -> None:
    times = Times(Axis((8, 16)), None, ((1.0,), (2.0,)))
    with pytest.raises(IndexError):
        times.at(17, 17)
    assert times.at(12, 12) == 1.5


@pytest.mark.parametrize("count", [0, 7, 25, 1000])
@pytest.mark.parametrize("step", [1, 16, 64])
def test_nothing_is_known_beyond_the_ends(count: int, step: int) -> None:
    with pytest.raises(IndexError):
        Axis((8, 16, 24), step).place(count)
    with pytest.raises(IndexError):
        Axis((12,), step).place(count)


def test_a_plan_of_another_network_is_refused() -> None:
    table = table_of(published_spec("us_mobilenet_v1"), bilinear)
    with pytest.raises(LatencyTableError, match=r"no channel group 'features\.0'"):
        table.cost_ms(ChannelPlan("other", {"head": 24}))


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    for name in ("us_mobilenet_v2", "s_shufflenet"):
        spec = published_spec(name)
        settings, environment = {"grid": {"points": 3}}, {"cpu": "a CPU", "cores": 2}
        table = table_of(spec, bilinear, step=8, settings=settings, environment=environment)
        table.cost_ms(spec.plans[0])
        write_latency_table(tmp_path / "t.json", table)
        again = read_latency_table(tmp_path / "t.json", spec, SIZE, "a CPU")
        assert again == table
        assert [again.cost_ms(plan) for plan in spec.plans] == [table.cost_ms(plan) for plan in spec.plans]
        write_latency_table(tmp_path / "u.json", again)
        assert (tmp_path / "u.json").read_bytes() == (tmp_path / "t.json").read_bytes()


def test_a_table_with_nan_is_not_written(tmp_path: Path) -> None:
    table = table_of(published_spec("us_mobilenet_v1"), lambda *a: math.nan)
    with pytest.raises(ValueError, match="JSON"):
        write_latency_table(tmp_path / "t.json", table)
    assert not (tmp_path / "t.json").exists()


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "good.json"
    write_latency_table(path, table_of(published_spec("us_mobilenet_v1"), bilinear))
    parsed: dict[str, Any] = json.loads(path.read_text())
    return parsed


def edited(content: dict[str, Any], where: str, value: Any) -> dict[str, Any]:
    """`content` with one value, at keys joined by `/`, replaced; removed where `value` is Ellipsis."""
    changed: dict[str, Any] = json.loads(json.dumps(content))
    *path, last = [int(key) if key.isdigit() else key for key in where.split("/")]
    at: Any = changed
    for key in path:
        at = at[key]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return changed


WRONG = [
    ("schema_version", 2, "schema version 2, expected 1"),
    ("kind", "manifest", "is no latency table"),
    ("constant_ms", -0.1, "constant_ms: -0.1, expected milliseconds of 0 or more"),
    ("constant_ms", math.nan, "NaN is no number"),
    ("factor", math.inf, "Infinity is no number"),
    ("times/3/ms/0/0", -1e-6, "entry 3 of `times`: -1e-06"),
    ("times/3/ms/0/0", math.nan, "NaN is no number"),
    ("times/3/ms/0/0", None, "entry 3 of `times`: None"),
    ("times/3/ms/0/0", True, "entry 3 of `times`: True"),
    ("times/2/ms/0", ..., "entry 2 of `times`: `ms` has not 3 x 3 entries"),
    ("times/2/ms/1/2", ..., "entry 2 of `times`: `ms` has not 3 x 3 entries"),
    ("times/2/grid/input", [8, 8, 32], "do not rise"),
    ("times/2/grid/input", [], "do not rise"),
    ("times/2/grid/output/0", 16.5, "16.5, expected a whole number"),
    ("times/2/step/input", 0, "step: 0, expected a whole number of at least 1"),
    ("times/2/grid/input", None, "has no input channels"),
    ("times/1/grid/output", [1], "entry 1 of `times`"),
    ("layers/2/times", 99, "entry 99 of `times` is not there"),
    ("layers/2/times", 1, "not for such a layer"),
    ("layers/2/times", -1, "-1, expected a whole number"),
    ("layers/2/kind", "attention", "kind 'attention', expected conv, depthwise, linear"),
    ("layers/2/side", "112", "side: '112'"),
    ("layers/2/input/divisor", 0, "divisor: 0"),
    ("layers/2/name", ..., "lacks 'name'"),
    ("layers", {"a": 1}, "damaged"),
    ("layers", ..., "lacks 'layers'"),
    ("device", {}, "lacks 'name'"),
    ("device/name", "", "`device` has no name"),
    ("network/image_size", ..., "image_size"),
    ("network/depth", 3, "depth"),
    ("threads", 0, "threads: 0"),
    ("batch", "1", "batch: '1'"),
]


@pytest.mark.parametrize(("where", "value", "message"), WRONG, ids=[f"{where}={value}" for where, value, _ in WRONG])
def test_a_damaged_file_is_refused(content: dict[str, Any], tmp_path: Path, where: str, value: Any, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(edited(content, where, value)))
    with pytest.raises(LatencyTableError) as caught:
        read_latency_table(path)
    assert str(path) in str(caught.value) and message in str(caught.value)
    assert caught.value.exit_code == 2 and isinstance(caught.value, UserError)


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "no", '"latency table"', "\xff\xfe", "null", "[" * 100_000], ids=lambda text: text[:20]
)
def test_what_is_no_table_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(LatencyTableError, match=r"bad\.json.*python -m benchmarks channels"):
        read_latency_table(path)
    with pytest.raises(LatencyTableError, match="absent"):
        read_latency_table(tmp_path / "absent.json")


OTHERS = {
    "name": (published_spec("us_mobilenet_v2"), SIZE, "this is us_mobilenet_v2 at 64 px"),
    "size": (published_spec("us_mobilenet_v1"), 96, "this is us_mobilenet_v1 at 96 px"),
    "classes": (published_spec("us_mobilenet_v1", 10), SIZE, "--classes 10"),
    "stem": (replace(published_spec("us_mobilenet_v1"), stem_stride=1), SIZE, "--stem-stride 1"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_table_of_another_network_is_refused(content: dict[str, Any], tmp_path: Path, other: str) -> None:
    spec, size, message = OTHERS[other]
    path = tmp_path / "t.json"
    path.write_text(json.dumps(content))
    with pytest.raises(LatencyTableError) as caught:
        read_latency_table(path, spec, size)
    text = str(caught.value)
    assert "latency table for us_mobilenet_v1 at 64 px" in text and message in text
    assert f"python -m benchmarks channels {spec.name} --image-size {size}" in text


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("layers/5", ..., "lacks the layer features.3.body.0"),
        ("layers/5/side", 99, "has other shapes or channel groups for the layer features.3.body.0"),
        ("layers/6/input/groups/0/0", "features.1", "channel groups for the layer features.3.body.3"),
        ("layers/5/activation", "", "the layer features.3.body.0"),
        ("layers/5/name", "features.3.body.9", "lacks the layer features.3.body.0"),
    ],
)
def test_a_missing_or_other_layer_is_named(
    content: dict[str, Any], tmp_path: Path, where: str, value: Any, message: str
) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps(edited(content, where, value)))
    read_latency_table(path)
    with pytest.raises(LatencyTableError, match=message):
        read_latency_table(path, published_spec("us_mobilenet_v1"), SIZE)


def test_a_layer_too_many_is_named(content: dict[str, Any], tmp_path: Path) -> None:
    more = edited(content, "layers", [*content["layers"], {**content["layers"][0], "name": "extra"}])
    (tmp_path / "t.json").write_text(json.dumps(more))
    with pytest.raises(LatencyTableError, match="has extra, which the network has not"):
        read_latency_table(tmp_path / "t.json", published_spec("us_mobilenet_v1"), SIZE)


def test_another_width_range_of_the_same_network_is_the_same_network(content: dict[str, Any], tmp_path: Path) -> None:
    """A search's network goes from 0.15 to 1.5: its layers are those of the published one, only its channels are not."""
    (tmp_path / "t.json").write_text(json.dumps(content))
    wide = replace(published_spec("us_mobilenet_v1"), switches=(0.15, 1.5), width_range=(0.15, 1.5))
    table = read_latency_table(tmp_path / "t.json", wide, SIZE)
    with pytest.raises(LatencyTableError, match="measured are"):
        table.cost_ms(wide.plan(1.5))


def test_a_table_of_another_device_is_refused(content: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps(content))
    read_latency_table(tmp_path / "t.json", device="a CPU")
    with pytest.raises(LatencyTableError, match="latency table of a CPU, this is another"):
        read_latency_table(tmp_path / "t.json", device="another")


def test_tables_are_read_without_torch_and_benchmarks(content: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps(content))
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'onnx', 'onnxruntime', 'slimexport', 'benchmarks')))\n"
        "from slimtrain.costs.latency_table import read_latency_table\n"
        "from slimtrain.models.published import published_spec\n"
        f"spec = published_spec('us_mobilenet_v1'); table = read_latency_table({str(tmp_path / 't.json')!r}, spec, {SIZE})\n"
        "print(table.cost_ms(spec.plan(0.5)) > 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "True\n", done.stderr


OLD = """{"schema_version": 1, "kind": "latency table", "network": {"name": "us_mobilenet_v1", "image_size": 64, "classes": 10,
"stem_stride": 2}, "device": {"name": "a CPU"}, "backend": "onnxruntime-cpu", "precision": "fp32", "batch": 1, "threads": 2,
"constant_ms": 0.5, "factor": 2.0, "settings": {}, "environment": {}, "layers": [
{"name": "features.0.0", "kind": "conv", "kernel": 3, "stride": 2, "side": 64, "activation": "relu6", "input": 3,
 "output": {"groups": [["features.0", 1]], "divisor": 1}, "times": 0},
{"name": "features.1.body.0", "kind": "depthwise", "kernel": 3, "stride": 1, "side": 32, "activation": "relu6",
 "input": {"groups": [["features.0", 1]], "divisor": 1}, "output": {"groups": [["features.0", 1]], "divisor": 1}, "times": 1}],
"times": [{"grid": {"input": [3], "output": [8, 32]}, "step": {"input": 1, "output": 8}, "ms": [[1.0, 4.0]]},
{"grid": {"input": [8, 32], "output": null}, "step": {"input": 1, "output": null}, "ms": [[1.0], [2.0]]}]}"""


def test_files_of_published_networks_are_as_they_were(content: dict[str, Any], tmp_path: Path) -> None:
    """What earlier versions wrote is read, and what is written has their keys and no others."""
    (tmp_path / "old.json").write_text(OLD)
    table = read_latency_table(tmp_path / "old.json")
    assert table.cost_ms(ChannelPlan("p", {"features.0": 24})) == pytest.approx(0.5 + 2 * (1 + 3 * 2 / 3 + 1 + 2 / 3))
    write_latency_table(tmp_path / "new.json", table)
    assert json.loads((tmp_path / "new.json").read_text()) == json.loads(OLD)
    old = json.loads(OLD)
    assert content.keys() == old.keys() and content["network"].keys() == old["network"].keys()
    assert [list(layer) for layer in content["layers"]] == [list(old["layers"][0])] * len(content["layers"])
