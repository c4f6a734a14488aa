"""What a server says of itself, and how long bodies may be."""

from __future__ import annotations

import json

import numpy as np

from slimexport.target.serving.http.metadata import Limits, model_metadata, server_metadata
from slimexport.target.tensors import Result
from slimtrain.base.version import __version__
from tests.support.bundle_helpers import artifact, manifest


def test_a_server_names_its_version_and_the_extension() -> None:
    assert server_metadata() == {"name": "slimexport", "version": __version__, "extensions": ["binary_tensor_data"]}


def test_a_model_s_tensors_are_the_manifest_s_with_minus_1_for_images() -> None:
    outputs = (
        Result(name="output", shape=("batch", 21, 8, 8), dtype="float32"),
        Result(name="best", shape=("batch",), dtype="int64"),
    )
    described = manifest(artifact(), network="net", image_size=32, outputs=outputs)
    assert model_metadata(described, "onnxruntime-cpu") == {
        "name": "net",
        "versions": ["1"],
        "platform": "slimexport_onnxruntime-cpu",
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 3, 32, 32]}],
        "outputs": [
            {"name": "output", "datatype": "FP32", "shape": [-1, 21, 8, 8]},
            {"name": "best", "datatype": "INT64", "shape": [-1]},
        ],
    }


def test_the_largest_batch_fits_however_it_is_written_and_twice_as_much_does_not() -> None:
    limits = Limits.of(manifest(artifact(), image_size=64), 32)
    batch = np.random.default_rng(0).standard_normal((32, 3, 64, 64)).astype(np.float32)
    assert batch.nbytes < limits.most(100) < 2 * batch.nbytes
    longest = json.dumps((-1e-38 * np.abs(batch)).tolist())  # numbers of the most digits
    assert len(longest) < limits.most(None) < 2 * len(longest)


def test_a_limit_says_how_many_images_it_is() -> None:
    limits = Limits.of(manifest(artifact(), image_size=64), 32)
    assert "32 images" in limits.why(100) and f"{limits.most(100):,}" in limits.why(100)


def test_the_room_is_of_a_full_queue_and_a_few_that_come() -> None:
    limits = Limits.of(manifest(artifact(), image_size=64), 32)
    assert limits.room(1000) == 1000 * 3 * 64 * 64 * 4 + 2 * limits.most(None)
