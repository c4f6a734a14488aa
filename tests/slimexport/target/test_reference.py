"""Probe images and logits: read as they were written, damaged ones refused, batches that show every image."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimexport.target import reference
from slimexport.target.errors import BundleError
from slimexport.target.reference import MOST_PLACES, Expected, Own, Probes, own_arrays, read_reference
from tests.support.bundle_helpers import artifact, manifest, write_manifest


def test_a_reference_reads_as_it_was_written(tmp_path: Path) -> None:
    write_manifest(tmp_path, manifest(artifact(), image_size=4, classes=5))
    images, logits = np.zeros((2, 3, 4, 4), np.float32), np.ones((2, 5))
    np.savez(tmp_path / "reference.npz", images=images, logits_x0_5=logits)
    arrays = read_reference(tmp_path)
    assert sorted(arrays) == ["images", "logits_x0_5"]
    assert arrays["images"].dtype == np.float32 and arrays["logits_x0_5"].dtype == np.float64


def whole_reference() -> bytes:
    with io.BytesIO() as buffer:
        np.savez(buffer, images=np.arange(2880, dtype=np.float32).reshape(60, 3, 4, 4))
        return buffer.getvalue()


def pickled_reference() -> bytes:
    with io.BytesIO() as buffer:
        np.savez(buffer, images=np.array([{"a": 1}], object))
        return buffer.getvalue()


def flipped_reference() -> bytes:
    content = bytearray(whole_reference())
    content[len(content) // 2] ^= 1
    return bytes(content)


@pytest.mark.parametrize(
    "content",
    [b"", b"text", whole_reference()[:-50], whole_reference()[:100], flipped_reference(), pickled_reference()],
    ids=["empty", "text", "cut at the end", "cut early", "one bit changed", "pickled objects"],
)
def test_a_damaged_reference_is_refused(tmp_path: Path, content: bytes) -> None:
    write_manifest(tmp_path, manifest(artifact(), image_size=4, classes=5))
    (tmp_path / "reference.npz").write_bytes(content)
    with pytest.raises(BundleError, match=r"reference\.npz"):
        read_reference(tmp_path)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"logits_x0_5": np.ones((2, 5))}, "its images are not there"),
        (
            {"images": np.zeros((2, 3, 5, 4), np.float32)},
            r"its images are float32 \[2, 3, 5, 4\], expected float32 \[images, 3, 4, 4",
        ),
        ({"images": np.zeros((2, 3, 4, 4))}, "its images are float64"),
        ({"images": np.zeros((0, 3, 4, 4), np.float32)}, "it has 0 images"),
        ({"images": np.full((2, 3, 4, 4), np.nan, np.float32)}, "not finite"),
        (
            {"images": np.zeros((2, 3, 4, 4), np.float32), "logits_x0_5": np.ones((3000, 5))},
            "no output of 2 images is as large",
        ),
        (
            {"images": np.zeros((2, 3, 4, 4), np.float32), "extra": np.ones((1, 10**6), bool)},
            "no output of 2 images is as large",
        ),
        ({"images": np.zeros((2, 3, 4, 4), np.float32), "logits_x0_5": np.array(["a"])}, "no array of plain numbers"),
    ],
)
def test_arrays_are_what_the_manifest_says(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    write_manifest(tmp_path, manifest(artifact(), image_size=4, classes=5))
    np.savez_compressed(tmp_path / "reference.npz", **arrays)
    with pytest.raises(BundleError, match=said) as caught:
        read_reference(tmp_path)
    assert len(str(caught.value)) < 500


def test_a_member_that_is_too_large_is_never_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte of zeros that says to be 3 GiB of images, in a file of some kilobytes."""
    write_manifest(tmp_path, manifest(artifact(), image_size=4, classes=5))
    monkeypatch.setattr(reference, "MOST_BYTES", 1 << 20)
    np.savez_compressed(tmp_path / "reference.npz", images=np.zeros((6000, 3, 4, 4), np.float32))
    monkeypatch.setattr(reference, "array_in", lambda *args: pytest.fail("was inflated"))
    with pytest.raises(BundleError, match="it has 6,000 images of 1,152,128 bytes"):
        read_reference(tmp_path)


def test_a_missing_reference_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, manifest(artifact()))
    with pytest.raises(BundleError, match="nothing can be verified"):
        read_reference(tmp_path)


def test_probes_fill_whole_batches_and_all_are_shown() -> None:
    probes = Probes.of(np.zeros((3, 3, 2, 2), np.float32), np.zeros((3, 2)))
    assert [index.tolist() for index in probes.batches(2)] == [[0, 1], [2, 0]]
    assert [index.tolist() for index in probes.batches(5)] == [[0, 1, 2, 0, 1]]


def test_large_maps_are_kept_at_some_places_of_all_images_and_classes() -> None:
    values = np.random.default_rng(0).standard_normal((2, 3, 70, 70))
    whole = Expected("maps", values)
    thin = whole.thinned()
    assert thin.places is not None and thin.values.shape == (2, 3, MOST_PLACES, 1) and len(set(thin.places)) == MOST_PLACES
    rows, columns = np.divmod(thin.places, 70)
    np.testing.assert_array_equal(thin.values[..., 0], values[:, :, rows, columns])
    np.testing.assert_array_equal(thin.picked(values), thin.values)
    small = Expected("maps", values[:, :, :8, :8])
    assert small.thinned() is small and small.picked(values) is values
    assert Expected("logits", np.zeros((2, 10_000))).thinned().places is None


def test_rows_of_an_image_go_together() -> None:
    windows = Expected("windows", np.arange(6.0)[:, None])  # two of each image
    assert windows.of(3, np.array([2, 0]))[:, 0].tolist() == [4, 5, 0, 1]


def test_more_images_are_halves_of_the_same_shape(tmp_path: Path) -> None:
    write_manifest(tmp_path, manifest(artifact(), image_size=4, classes=5))
    images, more = np.zeros((2, 3, 4, 4), np.float32), np.ones((7, 3, 4, 4), np.float16)
    own = np.ones((9, 5), np.float32)
    entries: dict[str, Any] = {"images": images, "more_images": more, "file_x0_5.int8": own}
    np.savez(tmp_path / "reference.npz", **entries)
    arrays = read_reference(tmp_path)
    both = reference.more_images(arrays)
    assert both.dtype == np.float32 and np.array_equal(both, more)
    assert reference.more_images({"images": images}).shape == (0, 3, 4, 4)
    for wrong in (more.astype(np.float32), more[:, :, :3], more * np.float16(np.inf)):
        np.savez(tmp_path / "reference.npz", images=images, more_images=wrong)
        with pytest.raises(BundleError, match=r"more images|not finite"):
            read_reference(tmp_path)


def test_own_outputs_are_read_as_they_were_written() -> None:
    draw = np.random.default_rng(2)
    images = np.concatenate([draw.normal(size=(2, 3, 4, 4)), draw.normal(size=(17, 3, 4, 4))]).astype(np.float32)
    parts = tuple(Expected(name, draw.normal(size=(19 * rows, 5))) for name, rows in (("output", 1), ("aux", 3)))
    own = Own(images, 2, parts, (np.arange(19.0), np.ones(19)))
    arrays = dict(own_arrays("x0_5", "int8", own))
    assert sorted(arrays) == [f"{kind}_x0_5.int8.{name}" for kind in ("file", "moved") for name in ("aux", "output")]
    assert [len(part.values) for part in own.probes.expected] == [2, 6]
    np.testing.assert_array_equal(own.probes.expected[1].values, parts[1].values[:6])
    assert [list(batch) for batch in own.batches] == [[0, 1], list(range(2, 10)), list(range(10, 18)), [18]]
