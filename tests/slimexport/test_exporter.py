"""`slimexport.export`: the manifest's contract, its numbers from other sources, and the same bytes every time."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import slimexport
from slimexport.exporter import export
from slimexport.request import MOST_PROBES, CalibrationImages, Proof, Writing
from slimexport.target.manifest import FileEntry, dump_manifest, read_manifest
from slimtrain.base.errors import UserError
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.data.noise import noise_images
from tests.support import TESTS
from tests.support.bundle_helpers import masked, stored_text
from tests.support.export_helpers import opened, run_onnx, small_spec, tree, write_checkpoint

SIZE = 64


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("export") / "small.pt", small_spec("us"))


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "b"
    export(checkpoint, output_dir=folder, image_size=SIZE)
    return folder


@pytest.fixture
def manifest(bundle: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((bundle / "manifest.json").read_text())
    return content


# ---------------------------------------------------------------------------------------------------------- manifest


def test_the_manifest_has_every_key_of_the_contract(manifest: dict[str, Any]) -> None:
    assert manifest.keys() >= {"schema_version", "source", "input", "output", "created_by", "artifacts"}
    assert manifest["schema_version"] == 1
    assert manifest["source"].keys() >= {"file", "sha256", "network"}
    assert manifest["input"].keys() >= {"name", "channels", "image_size", "mean", "std"}
    assert manifest["output"] == {"name": "output", "classes": 10}
    assert manifest["created_by"].keys() >= {"slimexport", "torch", "onnx", "onnxruntime"}
    for artifact in manifest["artifacts"]:
        assert artifact.keys() >= {
            *("name", "width", "format", "precision", "file", "sha256", "size_bytes", "macs", "params"),
            *("channels", "verification", "accuracy", "engine"),
        }
        assert artifact["verification"].keys() >= {
            *("status", "backend", "max_rel_error", "tolerance", "top1_agreement", "probes", "spread"),
        }
    assert "rejected" not in manifest


def test_source_input_and_versions_are_told(manifest: dict[str, Any], checkpoint: Path) -> None:
    assert manifest["source"]["file"] == "small.pt"
    assert manifest["source"]["sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert manifest["source"]["network"] == "us_mobilenet_v1"
    assert manifest["input"] == {
        "name": "input",
        "channels": 3,
        "image_size": SIZE,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    versions = manifest["created_by"]
    assert versions["slimexport"] == slimexport.__version__
    assert versions["onnx"] == importlib.metadata.version("onnx")
    assert versions["onnxruntime"] is not None


def test_each_artifact_describes_its_file(manifest: dict[str, Any], bundle: Path) -> None:
    assert sorted(path.name for path in bundle.iterdir()) == sorted(
        ["manifest.json", "reference.npz", *(artifact["file"] for artifact in manifest["artifacts"])]
    )
    for artifact, width in zip(manifest["artifacts"], (0.25, 0.5), strict=True):
        label = str(width).replace(".", "_")
        assert artifact["file"] == f"us_mobilenet_v1_x{label}.onnx" == f"{artifact['name']}.onnx"
        content = (bundle / artifact["file"]).read_bytes()
        assert artifact["sha256"] == hashlib.sha256(content).hexdigest()
        assert artifact["size_bytes"] == len(content)
        assert artifact["size_bytes"] <= 4 * artifact["params"] + 120_000
        assert (artifact["width"], artifact["format"], artifact["precision"]) == (width, "onnx", "fp32")
        assert artifact["accuracy"] is None and artifact["engine"] is None
        assert artifact["verification"]["status"] == "passed"
        assert artifact["verification"]["backend"] == "onnxruntime-cpu"


def test_params_and_macs_are_those_of_the_file(manifest: dict[str, Any], bundle: Path) -> None:
    """Counted in the graph itself: weights, and per convolution its weights at every output position."""
    for artifact in manifest["artifacts"]:
        model = onnx.shape_inference.infer_shapes(onnx.load(bundle / artifact["file"]), data_prop=True)
        shapes = {
            value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in model.graph.value_info
        }
        weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        params = macs = 0
        for node in model.graph.node:
            if node.op_type in ("Conv", "Gemm"):
                sizes = [weights[name].size for name in node.input[1:]]
                positions = int(np.prod(shapes[node.output[0]][2:])) if node.op_type == "Conv" else 1
                params += sum(sizes)
                macs += sizes[0] * positions
        assert artifact["params"] == params
        assert artifact["macs"] == macs


def test_channels_are_those_of_the_convolutions(manifest: dict[str, Any], bundle: Path) -> None:
    for artifact in manifest["artifacts"]:
        weights = {t.name: list(t.dims) for t in onnx.load(bundle / artifact["file"]).graph.initializer}
        channels = {"features.0": weights["features.0.0.weight"][0]}
        channels |= {f"features.{i}": weights[f"features.{i}.body.3.weight"][0] for i in range(1, 14)}
        assert artifact["channels"] == channels


def test_metadata_in_the_file_agrees_with_the_manifest(manifest: dict[str, Any], bundle: Path) -> None:
    for artifact in manifest["artifacts"]:
        metadata = {entry.key: entry.value for entry in onnx.load(bundle / artifact["file"]).metadata_props}
        assert metadata.keys() >= {
            *("network", "width", "channels", "macs", "params", "image_size", "mean", "std"),
            *("source_sha256", "precision"),
        }
        assert metadata["network"] == "us_mobilenet_v1"
        assert float(metadata["width"]) == artifact["width"]
        assert int(metadata["macs"]) == artifact["macs"] and int(metadata["params"]) == artifact["params"]
        assert [float(part) for part in metadata["std"].split(",")] == manifest["input"]["std"]
        assert metadata["source_sha256"] == manifest["source"]["sha256"]
        pairs = dict(pair.split("=") for pair in metadata["channels"].split(","))
        assert {group: int(count) for group, count in pairs.items()} == artifact["channels"]


@pytest.mark.parametrize(("name", "size"), [("s_shufflenet", 224), ("autoslim_mobilenet_v2", 224), ("us_mobilenet_v2", 224)])
def test_macs_are_the_published_ones_less_the_average_pools(
    checkpoint_path: Callable[[str], Path], name: str, size: int
) -> None:
    layout = json.loads((TESTS / "reference" / "layouts" / f"{name}.json").read_text())
    described = export(opened(checkpoint_path(name)), image_size=size, writing=Writing(dry_run=True))
    for artifact in described.artifacts:
        published = layout["macs"][str(artifact.width)]
        last = size // 32
        tail = {"s_shufflenet": "features.12", "autoslim_mobilenet_v2": "features.18", "us_mobilenet_v2": "features.18"}[name]
        channels = artifact.channels
        pools = channels[tail] * last * last  # the global pool's input
        if name == "s_shufflenet":  # its stride-2 units pool their input: 55 x 55 and so on
            last = 7
            pools = channels[tail] * last * last + channels["head"] * 55**2
            pools += channels["features.0"] * 28**2 + channels["features.4"] * 14**2
        assert artifact.macs + pools == published


def test_the_text_is_what_earlier_versions_wrote_for_the_same_export(checkpoint: Path, tmp_path: Path) -> None:
    """But for what differs from machine to machine (versions, hashes, errors), for sizes, and for what is new: who a file is
    made for, int8 files for CPUs, and the layers that were proven."""
    np.save(tmp_path / "images.npy", np.random.default_rng(0).normal(size=(20, 3, 32, 32)).astype(np.float32))
    export(
        checkpoint,
        widths=[0.25],
        precisions=["fp32", "fp16", "int8"],
        image_size=32,
        output_dir=tmp_path / "b",
        calibration=CalibrationImages(tmp_path / "images.npy"),
        proof=Proof(probes=2, accuracy_data="digits"),
    )
    written = json.loads((tmp_path / "b" / "manifest.json").read_text())
    sizes = {artifact["precision"]: artifact["size_bytes"] for artifact in written["artifacts"]}
    assert all(sizes[name] <= 0.30 * sizes["fp32"] for name in ("int8-cpu", "int8", "int8-fp16")), sizes
    made_for = {artifact["precision"]: artifact.pop("made_for", None) for artifact in written["artifacts"]}
    assert made_for["fp32"] is None and made_for["int8-cpu"] == ["onnxruntime on CPUs", "OpenVINO"]
    written["artifacts"] = [artifact for artifact in written["artifacts"] if artifact["precision"] != "int8-cpu"]
    earlier = json.loads(stored_text("exported"))
    for artifact, old in zip(written["artifacts"], earlier["artifacts"], strict=True):
        artifact["size_bytes"] = old["size_bytes"]
        check = artifact["verification"]
        layers = [check.pop(key, None) for key in ("layers", "worst_layer", "layer_error", "own_tolerance")]
        for key in ("own_runtime", "own_shares", "inside"):
            check.pop(key, None)
        assert (layers == [None] * 4) == (artifact["precision"] == "fp32")
        apart = [check.pop(key, None) for key in ("difference_cosine", "magnitude", "shift")]
        assert (None in apart) == ("int8" not in artifact["precision"])
        assert check.pop("unexercised") < check.pop("watched") and check["status"] == "partly"  # on two images, as it was
        check["status"] = "passed"
        assert artifact["accuracy"].pop("sha256")
        if "rounding" in old:  # which counted the two bounds of ReLU6 with the weights
            old["rounding"]["weights"] -= 2
    assert masked(json.dumps(written, indent=2)) == masked(json.dumps(earlier, indent=2))


# --------------------------------------------------------------------------------------------------------- reference


def test_the_reference_holds_probes_and_the_slimmable_networks_float64_logits(bundle: Path, checkpoint: Path) -> None:
    network = open_checkpoint(checkpoint).network.double()
    import torch

    with np.load(bundle / "reference.npz") as reference:
        assert sorted(reference.files) == ["images", "logits_x0_25", "logits_x0_5", "more_images", "more_x0_25", "more_x0_5"]
        images = reference["images"]
        count = len(images)
        assert images.dtype == np.float32 and images.shape == (count, 3, SIZE, SIZE) and 2 <= count <= MOST_PROBES
        np.testing.assert_array_equal(images[:2], noise_images(2, SIZE, 1))
        for width in (0.25, 0.5):
            logits = reference[f"logits_x{str(width).replace('.', '_')}"]
            assert logits.dtype == np.float64 and logits.shape == (count, 10)
            with torch.inference_mode(), network.at(network.spec.plan(width)):
                expected = network(torch.from_numpy(images).double()).numpy()
            np.testing.assert_allclose(logits, expected, rtol=1e-10)


def test_recorded_errors_and_spreads_can_be_computed_again_from_the_files(manifest: dict[str, Any], bundle: Path) -> None:
    with np.load(bundle / "reference.npz") as reference:
        for artifact in manifest["artifacts"]:
            logits = reference["logits_" + artifact["name"].removeprefix("us_mobilenet_v1_")]
            scale = np.abs(logits).max()
            outputs = run_onnx(bundle / artifact["file"], reference["images"])
            error = np.abs(outputs - logits).max() / scale
            check = artifact["verification"]
            assert 0 < check["max_rel_error"] <= 1e-5
            assert error <= 2 * check["max_rel_error"] + 1e-6
            assert check["spread"] == pytest.approx((logits.max(0) - logits.min(0)).max() / scale)


# ----------------------------------------------------------------------------------------------------------- library


def test_the_same_export_writes_the_same_bytes_into_every_folder(checkpoint: Path, bundle: Path, tmp_path: Path) -> None:
    export(checkpoint, output_dir=tmp_path / "again", image_size=SIZE)
    export(open_checkpoint(checkpoint), output_dir=tmp_path / "opened", image_size=SIZE)
    first = tree(bundle)
    assert tree(tmp_path / "again") == first
    assert tree(tmp_path / "opened") == first


@pytest.fixture(autouse=True, scope="module")
def _untrained_networks_are_made_once() -> None:
    """They are made every time here."""


def test_untrained_networks_are_the_same_every_time_too(tmp_path: Path) -> None:
    for name in ("a", "b"):
        export("random:s_shufflenet", widths=[0.5], output_dir=tmp_path / name, image_size=SIZE)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_the_manifest_comes_back_and_progress_is_called_for_each_network(checkpoint: Path, tmp_path: Path) -> None:
    totals: list[int] = []
    names: list[str] = []
    returned = export(
        checkpoint,
        output_dir=tmp_path / "b",
        image_size=SIZE,
        writing=Writing(started=totals.append, finished=lambda entry: names.append(entry.name)),
    )
    assert returned == read_manifest(tmp_path / "b")
    assert dump_manifest(returned) == (tmp_path / "b" / "manifest.json").read_text()
    assert totals == [2]
    assert names == ["us_mobilenet_v1_x0_25", "us_mobilenet_v1_x0_5"]


def test_torchs_number_of_threads_is_as_before(checkpoint: Path, tmp_path: Path) -> None:
    import torch

    torch.set_num_threads(2)
    export(checkpoint, widths=[0.25], output_dir=tmp_path / "b", image_size=32)
    assert torch.get_num_threads() == 2


def test_an_opened_checkpoint_is_left_as_it_was(checkpoint: Path, tmp_path: Path) -> None:
    source = open_checkpoint(checkpoint)
    before = {key: tensor.clone() for key, tensor in source.network.state_dict().items()}
    export(source, output_dir=tmp_path / "b", image_size=SIZE)
    after = source.network.state_dict()
    assert all((after[key] == tensor).all() and after[key].dtype == tensor.dtype for key, tensor in before.items())
    assert not source.network.training


@pytest.mark.parametrize("probes", [-1, 0, 1])
def test_one_probe_proves_nothing_and_is_refused(checkpoint: Path, tmp_path: Path, probes: int) -> None:
    with pytest.raises(UserError, match="at least 2"):
        export(checkpoint, output_dir=tmp_path / "b", proof=Proof(probes=probes))
    assert list(tmp_path.iterdir()) == []


def test_an_empty_list_of_widths_is_refused_or_means_all_but_is_no_silent_success(checkpoint: Path, tmp_path: Path) -> None:
    try:
        export(checkpoint, widths=[], output_dir=tmp_path / "b", image_size=SIZE)
    except UserError:
        return
    assert (tmp_path / "b" / "manifest.json").exists()


def test_switch_names_and_numbers_of_an_autoslim_network(tmp_path: Path) -> None:
    manifest = export("random:autoslim_mobilenet_v1", widths=[2], output_dir=tmp_path / "b", image_size=SIZE)
    (artifact,) = manifest.artifacts
    assert (artifact.file, artifact.width) == ("autoslim_mobilenet_v1_s2.onnx", 2)
    with np.load(tmp_path / "b" / "reference.npz") as reference:
        assert sorted(reference.files) == ["images", "logits_s2", "more_images", "more_s2"]


def test_a_folder_that_appears_meanwhile_is_not_replaced(checkpoint: Path, tmp_path: Path) -> None:
    def race(entry: FileEntry) -> None:
        (tmp_path / "b").mkdir(exist_ok=True)
        (tmp_path / "b" / "theirs").write_text("theirs")

    with pytest.raises(UserError):
        export(checkpoint, output_dir=tmp_path / "b", image_size=SIZE, writing=Writing(finished=race))
    assert tree(tmp_path) == {"b/theirs": b"theirs"}
