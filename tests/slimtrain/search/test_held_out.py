"""Held-out images: which they are, how they are cut into chunks, and what is opened again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from slimtrain.base.errors import UserError
from slimtrain.data.fake import FakeSamples
from slimtrain.data.samples import ArraySamples, FileSamples, PartSamples, Picture
from slimtrain.search.held_out import HeldOut, chunk_size, draw_images


def samples(count: int) -> ArraySamples:
    """Images that hold their own number."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 3, 2, 2)).copy()
    return ArraySamples(images, np.arange(count), "numbered")


def as_float(image: Picture) -> Tensor:
    assert isinstance(image, Tensor)
    return image.float()


@pytest.mark.parametrize("images", [1, 2, 7, 33, 100, 1025, 5000])
@pytest.mark.parametrize("most", [1, 2, 32, 256, 10000])
def test_chunks_are_large_and_none_is_small(images: int, most: int) -> None:
    def fits(size: int) -> bool:
        return images % size == 0 or images % size >= size / 2

    size = chunk_size(images, most)
    assert fits(size)
    assert not any(fits(larger) for larger in range(size + 1, min(most, images) + 1))
    assert size >= min(most, images) // 2


def test_images_are_drawn_from_the_seed_alone() -> None:
    drawn = draw_images(samples(50), 20, 3)
    labels = [drawn.label(i) for i in range(20)]
    again = draw_images(samples(50), 20, 3)
    assert labels == [again.label(i) for i in range(20)]
    assert len(set(labels)) == 20
    assert labels != sorted(labels)
    assert labels != [draw_images(samples(50), 20, 4).label(i) for i in range(20)]
    everything = draw_images(samples(50), 0, 3)
    assert sorted(everything.label(i) for i in range(len(everything))) == list(range(50))


def test_images_are_drawn_of_all_classes_alike_and_it_is_said_how_many() -> None:
    said: list[str] = []
    unequal = ArraySamples(np.zeros((60, 3, 1, 1), np.uint8), np.array([0] * 40 + [1] * 15 + [2] * 5), "unequal")
    drawn = draw_images(unequal, 12, 0, said.append)
    assert sorted(drawn.label(i) for i in range(12)) == [0] * 4 + [1] * 4 + [2] * 4
    assert said == ["searching on 12 of 60 images, 4 of each of 3 classes"]
    draw_images(unequal, 0, 0, said.append)
    assert len(said) == 1


def test_too_few_images() -> None:
    with pytest.raises(UserError, match=r"no held-out images to search with. Hold some out"):
        draw_images(samples(0), 0, 0)
    with pytest.raises(UserError, match=r"51 images to search with, but only 50 are held out"):
        draw_images(samples(50), 51, 0)
    with pytest.raises(UserError, match=r"no held-out images"):
        HeldOut(samples(0), as_float, 4)
    with pytest.raises(UserError, match=r"chunks of 0 images"):
        HeldOut(samples(5), as_float, 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_image_is_in_its_chunk(workers: int) -> None:
    held = HeldOut(samples(23), as_float, 6, workers=workers)
    assert (held.size, len(held)) == (6, 4)
    read = dict(held.read(range(4)))
    assert [labels.tolist() for _, labels in read.values()] == [
        [*range(6)],
        [*range(6, 12)],
        [*range(12, 18)],
        [*range(18, 23)],
    ]
    for images, labels in read.values():
        assert torch.equal(images, labels.float()[:, None, None, None].expand(-1, 3, 2, 2))


class Counted(ArraySamples):
    """Counts how often each image is opened; some cannot be."""

    def __init__(self, count: int, broken: tuple[int, ...] = ()) -> None:
        numbered = samples(count)
        super().__init__(numbered.images.numpy(), np.arange(count), "numbered")
        self.opened: Counter[int] = Counter()
        self.broken = broken

    def image(self, index: int) -> Picture:
        self.opened[index] += 1
        if index in self.broken:
            raise OSError
        return super().image(index)


def test_what_fits_is_opened_once() -> None:
    chunk = 4 * (3 * 2 * 2 * 4 + 8)  # float32 images and int64 labels
    held = HeldOut(source := Counted(16), as_float, 4, kept_bytes=2 * chunk)
    for numbers in ([1, 2], [0, 1, 2, 3], [3], [0, 1]):
        read = list(held.read(numbers))
        assert [number for number, _ in read] == numbers
        assert [labels.tolist() for _, (_, labels) in read] == [[*range(4 * i, 4 * i + 4)] for i in numbers]
    assert [source.opened[4 * i] for i in range(4)] == [2, 1, 1, 2]  # chunks 1 and 2 came first, and fill the room


def test_unreadable_images_are_left_out_and_named_once(caplog: pytest.LogCaptureFixture) -> None:
    held = HeldOut(Counted(12, broken=(1, 4, 5, 6, 7)), as_float, 4, kept_bytes=0)
    for _ in range(2):
        read = dict(held.read([0, 1, 2]))
        assert {number: labels.tolist() for number, (_, labels) in read.items()} == {0: [0, 2, 3], 2: [8, 9, 10, 11]}
    assert sorted(caplog.messages) == [f"numbered {i}: cannot be read, left out of the search" for i in (1, 4, 5, 6, 7)]


def test_the_digest_tells_images_apart(tmp_path: Path) -> None:
    def identity(folder: Path, names: list[str], batch: int = 2) -> dict[str, object]:
        return HeldOut(FileSamples(folder, ["cat", "dog"], [names, ["z.png"]]), as_float, batch).identity()

    here = identity(tmp_path / "here", ["a.png", "b.png"])
    assert here == identity(tmp_path / "moved", ["a.png", "b.png"])
    assert here != identity(tmp_path, ["a.png", "c.png"])
    assert here["images_sha256"] != identity(tmp_path, ["b.png", "a.png"])["images_sha256"]
    assert here != identity(tmp_path, ["a.png", "b.png"], 3)
    parts = [HeldOut(PartSamples(samples(9), np.array(order)), as_float, 3).identity() for order in ([1, 2, 3], [3, 2, 1])]
    assert parts[0] != parts[1]


def test_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    for name, value in (("a.png", 10), ("b.png", 20)):
        Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(tmp_path / "cat" / name)
    held = HeldOut(
        FileSamples(tmp_path, ["cat"], [["a.png", "b.png"]]), lambda image: torch.tensor(np.array(image)[..., 0]).float(), 2
    )
    ((number, (images, labels)),) = held.read([0])
    assert (number, labels.tolist(), images[:, 0, 0].tolist()) == (0, [0, 0], [10.0, 20.0])


def test_fake_images_work_too() -> None:
    held = HeldOut(FakeSamples(5, 3, 8, "train"), as_float, 8)
    ((_, (images, labels)),) = held.read([0])
    assert images.shape == (5, 3, 8, 8)
    assert labels.tolist() == [0, 1, 2, 0, 1]
