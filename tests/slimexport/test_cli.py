"""The `slimexport` command: its table, its JSON, its options, and what it leaves on the disk."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest

from slimexport import __version__
from slimexport.cli import main
from slimexport.target.manifest import read_manifest
from tests.support.export_helpers import refused, run, small_spec, tree, write_checkpoint
from tests.support.help_texts import silent_options


@pytest.fixture(scope="module")
def s(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("cli") / "small.pt")


@pytest.fixture(scope="module")
def us(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("cli") / "us.pt", small_spec("us"))


SIZE = ("--image-size", "64")


# ------------------------------------------------------------------------------------------------------------ output


def test_the_table_has_a_line_per_network_with_what_the_manifest_says(s: Path, tmp_path: Path) -> None:
    outcome = run("--ckpt", s, *SIZE, "--output-dir", tmp_path / "b")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[0].split() == ["width", "MACs", "params", "size", "check", "error", "tolerance", "agree", "spread"]
    assert lines[-1] == f"2 networks in {tmp_path / 'b'}"
    for line, artifact in zip(lines[1:3], read_manifest(tmp_path / "b").artifacts, strict=True):
        cells = line.split()
        assert float(cells[0]) == artifact.width
        assert cells[2] == f"{artifact.params:,}"
        assert float(cells[3]) == pytest.approx(artifact.size_bytes / 2**20, abs=0.006)
        assert cells[5] == "passed"
        assert float(cells[6]) == pytest.approx(artifact.verification.max_rel_error, rel=0.06)


def test_json_is_the_manifest_and_nothing_else_is_on_standard_output(s: Path, tmp_path: Path) -> None:
    outcome = run("--ckpt", s, *SIZE, "--output-dir", tmp_path / "b", "--json")
    assert outcome.code == 0
    assert outcome.out == (tmp_path / "b" / "manifest.json").read_text()


def test_progress_is_a_plain_line_per_network_in_a_log(s: Path, tmp_path: Path) -> None:
    outcome = run("--ckpt", s, *SIZE, "--output-dir", tmp_path / "b")
    assert outcome.err.splitlines() == ["1/2 s_mobilenet_v1_x0_25: passed", "2/2 s_mobilenet_v1_x0_5: passed"]


def test_progress_is_a_bar_on_a_terminal_and_the_table_stays_the_same(s: Path, tmp_path: Path) -> None:
    plain = run("--ckpt", s, *SIZE, "--output-dir", tmp_path / "b")
    outcome = run("--ckpt", s, *SIZE, "--output-dir", tmp_path / "b", "--overwrite", terminal=True)
    assert "\r" in outcome.err and "network" in outcome.err
    assert "1/2 s_mobilenet_v1_x0_25: passed" not in outcome.err
    assert outcome.out == plain.out


def test_version_and_help_are_short_and_succeed() -> None:
    version = run("--version")
    assert (version.code, version.out) == (0, f"slimexport {__version__}\n")
    for flag in ("--help", "-h"):
        text = run(flag)
        assert text.code == 0
        for option in ("--ckpt", "--bundle", "--widths", "--macs", "--channels", "--dry-run", "--overwrite", "Exit codes"):
            assert option in text.out
        assert max(map(len, text.out.splitlines())) <= 120


def test_help_says_every_default() -> None:
    assert silent_options(main, ("--ckpt", "--bundle", "--triton", "--predict")) == []


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("--width", "--widths"), ("--checkpoint", "--ckpt"), ("--out", "--output-dir"), ("--batchsize", "--batch")],
)
def test_a_wrong_option_is_answered_with_the_right_one(wrong: str, right: str) -> None:
    refused(run(wrong, "1"), 2, f"No such option '{wrong}'", f"Did you mean {right}")


def test_env_names_versions_and_providers() -> None:
    outcome = run("--env")
    assert outcome.code == 0
    for part in (
        f"slimexport {__version__}",
        "Python 3.",
        f"onnx {onnx.__version__}",
        "torch ",
        "CPUExecutionProvider",
        "GPU for engines:",
    ):
        assert part in outcome.out


def test_nothing_asked_for_is_a_usage_error_that_shows_how_to_begin() -> None:
    refused(run(), 2, "--ckpt PATH", "random:us_mobilenet_v1")


# ----------------------------------------------------------------------------------------------------------- dry run


def test_dry_run_prints_the_table_and_writes_nothing(s: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run("--ckpt", s, *SIZE, "--dry-run")
    assert outcome.code == 0
    assert [line.split()[0] for line in outcome.out.splitlines()[1:-1]] == ["0.25", "0.5"]
    assert outcome.out.splitlines()[-1].endswith("nothing was written") and outcome.err == ""
    assert run("--ckpt", s, *SIZE, "--dry-run", "--output-dir", tmp_path / "a" / "b").code == 0
    assert list(tmp_path.iterdir()) == []


def test_dry_run_says_what_the_export_then_writes(s: Path, tmp_path: Path) -> None:
    said = run("--ckpt", s, *SIZE, "--dry-run", "--json").manifest
    done = run("--ckpt", s, *SIZE, "--output-dir", tmp_path / "b", "--json").manifest
    for dry, real in zip(said["artifacts"], done["artifacts"], strict=True):
        for key in ("name", "width", "macs", "params", "channels", "file"):
            assert dry[key] == real[key], key
        assert dry["size_bytes"] == pytest.approx(real["size_bytes"], rel=0.01)
        assert dry["verification"] == {"status": "skipped"}
        assert real["size_bytes"] == (tmp_path / "b" / real["file"]).stat().st_size


# ------------------------------------------------------------------------------------------------------------ widths


@pytest.mark.parametrize(
    ("text", "widths"),
    [
        ("0.5", [0.5]),
        ("0.5,0.25", [0.5, 0.25]),
        ("0.5,0.5,0.25,0.5", [0.5, 0.25]),
        ("all", [0.25, 0.5]),
        ("0.25:0.5:0.25", [0.25, 0.5]),
        ("0.25:0.7:0.25", [0.25, 0.5]),
    ],
)
def test_widths_in_every_spelling(us: Path, text: str, widths: list[float]) -> None:
    outcome = run("--ckpt", us, *SIZE, "--dry-run", "--json", "--widths", text)
    assert outcome.code == 0, outcome
    assert [artifact["width"] for artifact in outcome.manifest["artifacts"]] == widths


def test_macs_take_the_widest_switch_that_fits(s: Path) -> None:
    narrow, wide = (a["macs"] for a in run("--ckpt", s, *SIZE, "--dry-run", "--json").manifest["artifacts"])
    for budget, expected in ((narrow, [0.25]), (wide - 1, [0.25]), (wide, [0.5])):
        outcome = run("--ckpt", s, *SIZE, "--dry-run", "--json", "--macs", str(budget))
        assert [artifact["width"] for artifact in outcome.manifest["artifacts"]] == expected
    refused(run("--ckpt", s, *SIZE, "--dry-run", "--macs", f"1K,{wide}"), 1, "no width meets 1K MACs", "x0_25")


def test_all_widths_and_a_budget_add_up(s: Path) -> None:
    """`all` was asked for; a budget beside it adds its network, it does not take the others away."""
    outcome = run("--ckpt", s, *SIZE, "--dry-run", "--json", "--widths", "all", "--macs", "1G")
    assert [artifact["width"] for artifact in outcome.manifest["artifacts"]] == [0.25, 0.5]


def test_an_autoslim_network_is_asked_by_switch_numbers_or_budget() -> None:
    base = ("--ckpt", "random:autoslim_mobilenet_v1", *SIZE, "--dry-run", "--json")
    artifacts = run(*base, "--widths", "3,1").manifest["artifacts"]
    assert [(a["name"], a["width"]) for a in artifacts] == [("autoslim_mobilenet_v1_s3", 3), ("autoslim_mobilenet_v1_s1", 1)]
    assert all(isinstance(a["width"], int) for a in artifacts)
    largest = max(a["macs"] for a in artifacts)
    by_budget = run(*base, "--macs", str(largest - 1)).manifest["artifacts"]
    assert len(by_budget) == 1 and by_budget[0]["macs"] < largest


# ----------------------------------------------------------------------------------------------------------- options


def test_image_size_is_that_of_input_metadata_manifest_and_probes(s: Path, tmp_path: Path) -> None:
    assert run("--ckpt", s, "--image-size", "48", "--widths", "0.25", "--output-dir", tmp_path / "b").code == 0
    manifest = read_manifest(tmp_path / "b")
    assert manifest.input.image_size == 48
    model = onnx.load(tmp_path / "b" / manifest.artifacts[0].file)
    assert [axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim][1:] == [3, 48, 48]
    assert {entry.key: entry.value for entry in model.metadata_props}["image_size"] == "48"


def test_the_default_folder_is_exports_and_the_networks_name(s: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("--ckpt", s, *SIZE, "--widths", "0.25").code == 0
    assert "exports/s_mobilenet_v1/manifest.json" in tree(tmp_path)


def test_probes_are_as_many_as_asked_for(s: Path, tmp_path: Path) -> None:
    manifest = run("--ckpt", s, *SIZE, "--probes", "5", "--output-dir", tmp_path / "b", "--json").manifest
    assert {artifact["verification"]["probes"] for artifact in manifest["artifacts"]} == {5}


def test_an_untrained_network_is_marked_as_such(tmp_path: Path) -> None:
    output = tmp_path / "b"
    outcome = run("--ckpt", "random:s_shufflenet", *SIZE, "--widths", "0.5", "--output-dir", output)
    assert outcome.code == 0
    assert "untrained" in outcome.out
    source = read_manifest(output).source
    assert source.untrained is True
    assert source.sha256 is None and source.file == "random:s_shufflenet"


def test_a_trained_one_is_not(s: Path) -> None:
    outcome = run("--ckpt", s, *SIZE, "--dry-run")
    assert "untrained" not in outcome.out
    assert "untrained" not in run("--ckpt", s, *SIZE, "--dry-run", "--json").manifest["source"]


def test_a_published_configuration_gives_image_size_and_normalization(us: Path, tmp_path: Path) -> None:
    config = tmp_path / "app.yml"
    config.write_text(
        "model: models.us_mobilenet_v1\nimage_size: 64\ndata_transforms: imagenet1k_inception\n"
        "width_mult_range: [0.25, 0.5]\nnum_classes: 10\n"
    )
    manifest = run("--ckpt", us, "--config", config, "--dry-run", "--json").manifest
    assert manifest["input"]["image_size"] == 64
    assert manifest["input"]["mean"] == manifest["input"]["std"] == [0.5, 0.5, 0.5]
    assert (
        run("--ckpt", us, "--config", config, "--image-size", "96", "--dry-run", "--json").manifest["input"]["image_size"]
        == 96
    )


# ------------------------------------------------------------------------------------------------------------ typos


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (("--format", "tensorrt"), ("'tensorrt'", "trt", "onnx")),
        (("--format", "onxx"), ("'onxx'", "did you mean 'onnx'")),
        (("--format", "onnx,"), ("''", "onnx")),
        (("--precision", "tf32"), ("tf32", "--format trt")),
        (("--precision", "int8,fp32"), ("int8", "--calibration-data")),
        (("--format", "trt", "--batch", "8:1:4"), ("batch 8:1:4", "MIN <= OPT")),
        (("--format", "trt", "--opt-level", "9"), ("optimization level 9",)),
        (("--precision", "fp23"), ("'fp23'", "did you mean 'fp32'")),
        (("--network", "us_mobilnet_v1"), ("'us_mobilnet_v1'", "did you mean 'us_mobilenet_v1'")),
        (("--widht", "0.5"), ("--widht", "--widths")),
        (("--widths", "half"), ("'half'", "not a number")),
        (("--macs", "much"), ("MACs", "not a number")),
        (("--switches", "all"), ("--switches", "0.25")),
        (("--probes", "1"), ("--probes",)),
        (("--image-size", "large"), ("--image-size",)),
        (("--calibration-batch-size", "0"), ("--calibration-batch-size",)),
        (("stray",), ("stray",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_a_typo_is_told_with_what_would_be_right(s: Path, args: tuple[str, ...], parts: tuple[str, ...]) -> None:
    refused(run("--ckpt", s, "--dry-run", *SIZE, *args), 2, *parts)


def test_a_mistyped_random_network_is_told_with_the_nearest() -> None:
    refused(run("--ckpt", "random:us_mobilnet_v1"), 2, "did you mean 'us_mobilenet_v1'")
    refused(run("--ckpt", "random:"), 2, "us_mobilenet_v1")
    refused(run("--ckpt", "random:autoslim_resnet101"), 2, "no channel lists were published")


def test_no_message_ends_in_stray_punctuation(s: Path) -> None:
    for args in (("--format", "onxx"), ("--network", "us_mobilnet_v1"), ("--precision", "fp23")):
        assert not re.search(r"\?\.|\.\.|,\.", run("--ckpt", s, *args).err)
