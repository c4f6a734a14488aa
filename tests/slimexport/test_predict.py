"""`--predict`: what the files say of photographs, held against onnxruntime and Pillow used by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from slimexport.predict import ClassShare, as_json, as_text, likeliest, predict
from slimexport.target.errors import BundleError
from slimexport.target.manifest import MANIFEST, dump_manifest, read_manifest
from slimtrain.base.errors import UserError
from tests.support.export_helpers import python, refused, run, small_spec, write_checkpoint

SIZE = 64
NAMES = tuple(f"kind {letter}" for letter in "abcdefghij")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two widths, ten named classes."""
    folder = tmp_path_factory.mktemp("predict")
    checkpoint = write_checkpoint(folder / "us.pt", small_spec("us"))
    outcome = run("--ckpt", checkpoint, "--image-size", str(SIZE), "--output-dir", folder / "b")
    assert outcome.code == 0, outcome
    manifest = read_manifest(folder / "b")
    named = replace(manifest, output=replace(manifest.output, class_names=NAMES))
    (folder / "b" / MANIFEST).write_text(dump_manifest(named))
    return folder / "b"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(3)
    paths = [folder / "wide.png", folder / "tall.png"]
    for path, shape in zip(paths, ((70, 100, 3), (200, 80, 3)), strict=True):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return paths


def by_hand(bundle: Path, file: str, photo: Path) -> list[float]:
    """The softmax, with the published validation transform written out."""
    entry = read_manifest(bundle).input
    with Image.open(photo) as opened:
        image = opened.convert("RGB")
    shorter = round(SIZE / 0.875)
    image = image.resize([shorter * side // min(image.size) for side in image.size], Image.Resampling.BILINEAR)
    left, top = round((image.width - SIZE) / 2), round((image.height - SIZE) / 2)
    pixels = np.asarray(image)[top : top + SIZE, left : left + SIZE].astype(np.float64) / 255
    normalized = (pixels - np.array(entry.mean)) / np.array(entry.std)
    session = onnxruntime.InferenceSession(bundle / file, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"input": normalized.transpose(2, 0, 1)[None].astype(np.float32)})[0].astype(np.float64)
    return [float(value) for value in np.exp(logits) / np.exp(logits).sum()]


def test_every_width_tells_its_likeliest_classes_by_name(bundle: Path, photos: list[Path]) -> None:
    predictions = predict(bundle, photos)
    assert [(p.image, p.artifact.width) for p in predictions] == [(str(photo), w) for photo in photos for w in (0.25, 0.5)]
    for prediction in predictions:
        shares = by_hand(bundle, prediction.artifact.file, Path(prediction.image))
        order = sorted(range(10), key=lambda number: -shares[number])[:5]
        assert [(share.number, share.name) for share in prediction.top] == [(number, NAMES[number]) for number in order]
        assert [share.probability for share in prediction.top] == pytest.approx([shares[n] for n in order], rel=1e-4)
        assert 0 < prediction.latency_ms < 10_000


def test_the_command_prints_a_line_per_width_and_image(bundle: Path, photos: list[Path]) -> None:
    outcome = run("--bundle", bundle, "--predict", photos[0], photos[1])
    assert outcome.code == 0 and outcome.err == ""
    lines = outcome.out.splitlines()
    assert lines[0] == str(photos[0]) and lines[1].split() == ["width", "ms", "classes"] and lines[5] == str(photos[1])
    for line, prediction in zip((lines[2], lines[3]), predict(bundle, photos[:1]), strict=True):
        width, latency, classes = line.split(maxsplit=2)
        assert float(width) == prediction.artifact.width and float(latency) > 0
        assert classes == ", ".join(f"{share.name} {share.probability:.1%}" for share in prediction.top)
    assert run("--bundle", bundle, "--predict", photos[0], "--predict", photos[1]).out.splitlines()[0] == lines[0]


def test_json_holds_the_same(bundle: Path, photos: list[Path]) -> None:
    outcome = run("--bundle", bundle, "--predict", photos[0], "--widths", "0.5", "--json")
    (entry,) = json.loads(outcome.out)
    (prediction,) = predict(bundle, photos[:1], widths=[0.5])
    (expected,) = as_json([prediction])
    assert {**entry, "latency_ms": 0} == {**expected, "latency_ms": 0} and entry["latency_ms"] > 0
    assert entry["top"][0]["name"] == prediction.top[0].name


def test_up_to_five_classes_and_all_of_fewer() -> None:
    assert [share.number for share in likeliest(np.arange(7.0), None)] == [6, 5, 4, 3, 2]
    assert [share.number for share in likeliest(np.array([0.0, 2, 1]), None)] == [1, 2, 0]
    (only,) = likeliest(np.array([1e4]), ("thing",))
    assert only == ClassShare(0, "thing", 1.0)
    with pytest.raises(BundleError, match="not finite"):
        likeliest(np.array([0, np.nan]), None)


def test_classes_without_names_are_numbered(bundle: Path, photos: list[Path], tmp_path: Path) -> None:
    (prediction,) = predict(bundle, photos[:1], widths=[0.5])
    nameless = replace(prediction, top=(ClassShare(3, None, 0.5),))
    assert "class 3 50.0%" in as_text([nameless])


def test_it_needs_no_torch(bundle: Path, photos: list[Path]) -> None:
    code = "from slimexport.cli import main\nmain(['--bundle', sys.argv[1], '--predict', sys.argv[2]])"
    heavy = ("torch", "torchvision", "onnx", "yaml", "tqdm", "safetensors", "scipy", "sklearn")
    done = python(code, bundle, photos[0], without=heavy)
    assert done.returncode == 0, done.stderr
    assert "kind " in done.stdout
    missing = python(code, bundle, photos[0], without=(*heavy, "PIL"))
    assert missing.returncode == 3 and "pip install 'slimmable-deploy[target]'" in missing.stderr


def test_what_is_no_image_is_refused_by_name(bundle: Path, photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    refused(run("--bundle", bundle, "--predict", tmp_path / "none.jpg"), 2, "none.jpg: no such file")
    refused(run("--bundle", bundle, "--predict", tmp_path), 2, "is a folder")
    refused(run("--bundle", bundle, "--predict", photos[0], tmp_path / "text.jpg"), 2, "text.jpg")


def test_a_width_that_is_not_there_is_answered_with_what_is(bundle: Path, photos: list[Path]) -> None:
    refused(run("--bundle", bundle, "--predict", photos[0], "--widths", "0.3"), 2, "It has 0.25 in fp32, 0.5 in fp32")
    refused(run("--bundle", bundle, "--predict", photos[0], "--precision", "fp16"), 2, "--precision")
    with pytest.raises(UserError):
        predict(bundle, photos, precisions=["fp16"])


def test_it_goes_with_a_bundle_alone(bundle: Path, photos: list[Path]) -> None:
    refused(run("--ckpt", "random:us_mobilenet_v1", "--predict", photos[0]), 2, "--predict goes with --bundle")
    refused(run("--predict", photos[0]), 2, "--predict goes with --bundle")
    refused(run("--bundle", bundle, "--verify-only", photos[0]), 2, "unexpected argument")
    refused(run("--bundle", bundle), 2, "--predict IMAGE")


def test_the_manifest_names_as_many_classes_as_there_are(bundle: Path, tmp_path: Path) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["output"]["class_names"] = ["one"]
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="class_names has 1 names, expected one for each of 10"):
        read_manifest(tmp_path)
