"""Tables for images that are neither square nor of three channels; those of square color images are written as before."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from slimtrain.base.image_size import ImageSize
from slimtrain.costs.latency_table import LatencyTableError, read_latency_table, write_latency_table
from slimtrain.costs.layer_shapes import layer_shapes
from slimtrain.models.published import published_spec
from tests.support import ROOT
from tests.support.latency_tables import table_of

SPEC = published_spec("us_mobilenet_v1", classes=10)
GRAY = replace(SPEC, in_channels=1)


@pytest.mark.parametrize(("spec", "size"), [(GRAY, (96, 64)), (SPEC, (64, 96)), (replace(SPEC, in_channels=4), 64)])
def test_a_table_survives_its_file(spec: object, size: ImageSize, tmp_path: Path) -> None:
    table = table_of(spec, lambda layer, inp, out: layer.positions * out, size=size)  # type: ignore[arg-type]
    write_latency_table(tmp_path / "a.json", table)
    again = read_latency_table(tmp_path / "a.json", spec, size)  # type: ignore[arg-type]
    assert again == table and again.layers == layer_shapes(spec, size)  # type: ignore[arg-type]


def test_a_file_of_square_color_images_has_no_key_that_earlier_versions_lack(tmp_path: Path) -> None:
    write_latency_table(tmp_path / "a.json", table_of(SPEC, lambda *_: 1.0, size=64))
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["network"] == {"name": "us_mobilenet_v1", "image_size": 64, "classes": 10, "stem_stride": 2}
    assert [layer["side"] for layer in content["layers"][:3]] == [64, 32, 32]
    keys = ["name", "kind", "kernel", "stride", "side", "activation", "input", "output", "times"]
    assert list(content["layers"][0]) == keys


def test_a_table_measured_before_is_read() -> None:
    table = read_latency_table(ROOT / "benchmarks" / "results" / "latency_table_us_mobilenet_v1_cpu.json")
    assert (table.network.image_size, table.network.in_channels) == (224, 3)
    table.check_network(published_spec("us_mobilenet_v1"), 224)


@pytest.mark.parametrize(
    ("spec", "size", "words"),
    [
        (SPEC, (96, 64), ["images of 1 channel, this is us_mobilenet_v1 at 96x64 px", "--image-size 96x64"]),
        (GRAY, (64, 96), ["at 96x64 px", "this is us_mobilenet_v1 at 64x96 px", "--image-size 64x96", "--in-channels 1"]),
    ],
)
def test_a_table_of_other_images_is_refused(spec: object, size: ImageSize, words: list[str], tmp_path: Path) -> None:
    write_latency_table(tmp_path / "a.json", table_of(GRAY, lambda *_: 1.0, size=(96, 64)))
    with pytest.raises(LatencyTableError) as caught:
        read_latency_table(tmp_path / "a.json", spec, size)  # type: ignore[arg-type]
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("side", ["64", [64], [64, 0], [64, 32, 16], [64, "32"], None, True])
def test_a_damaged_size_is_named(side: object, tmp_path: Path) -> None:
    write_latency_table(tmp_path / "a.json", table_of(GRAY, lambda *_: 1.0, size=(96, 64)))
    content = json.loads((tmp_path / "a.json").read_text())
    content["layers"][2]["side"] = side
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(LatencyTableError, match=r"a\.json: layer features\.1\.body\.3: side"):
        read_latency_table(tmp_path / "a.json")
