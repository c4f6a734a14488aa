"""The batch that a run takes, where memory or images are few: found, bounded, or refused with the one that fits."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from slimtrain.base.errors import ResourceError
from slimtrain.config.config import Config, plain
from slimtrain.config.reading import read_config
from slimtrain.costs.training_memory import testing_memory as memory_of_tests
from slimtrain.costs.training_memory import training_memory
from slimtrain.models.spec import NetworkSpec
from slimtrain.training import fitting
from slimtrain.training.distributed import Processes
from slimtrain.training.fitting import fitted, fitted_for_searching, fitted_for_testing, free_bytes, resumed_batch
from slimtrain.training.run import train
from tests.support.run_helpers import ALONE, config, raw
from tests.support.slimtrain_processes import in_processes

GIB = 2**30
PHOTOS = ["data=folder", "workers=0"]


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets how much memory there is, in GiB; None: unknown."""

    def set_free(amount: float | None) -> None:
        monkeypatch.setattr(fitting, "free_bytes", lambda processes: None if amount is None else int(amount * GIB))

    return set_free


def fit(settings: Config, images: int, processes: Processes = ALONE) -> tuple[Config, list[str]]:
    return fitted(settings, settings.spec(10), images, processes)


# --------------------------------------------------------------------------------------------- a batch that is left open


def test_189_photographs_and_16_gib(free: Any) -> None:
    free(16)
    settings, lines = fit(read_config("us_mobilenet_v1", PHOTOS), 189)
    assert settings.batch_size == 40 and settings.lr == pytest.approx(0.5 * 40 / 1024, rel=1e-3)
    assert "batch_size is 40 in place of 1024, for 189 training images" in lines[0]
    assert "lr is 0.01953: it follows batch_size (0.5 is for 1024, this is 40)" in lines[1] and len(lines) == 2
    assert not settings.fit_batch  # it is chosen: config.yml says so


@pytest.mark.parametrize("amount", [1, 3, 16, 40])
def test_the_batch_fills_most_of_the_memory_and_no_more(free: Any, amount: float) -> None:
    free(amount)
    given = read_config("us_mobilenet_v1", PHOTOS)
    settings, lines = fit(given, 10**6)
    memory = training_memory(settings.spec(10), 224)
    assert memory(settings.batch_size) <= 0.8 * amount * GIB < memory(settings.batch_size + 8)
    assert f"fits the {amount:.1f} GiB that are free on this machine" in lines[0]
    assert (
        settings.calibration_batches * settings.batch_size
        >= 5 * 1024
        > (settings.calibration_batches - 1) * settings.batch_size
    )


def test_where_it_fits_nothing_is_changed_and_nothing_said(free: Any) -> None:
    for amount in (200, None):
        free(amount)
        given = read_config("us_mobilenet_v1", PHOTOS)
        assert fit(given, 10**6) == (given, [])


def test_a_rate_that_was_set_stays(free: Any) -> None:
    free(16)
    settings, lines = fit(read_config("us_mobilenet_v1", [*PHOTOS, "lr=0.3"]), 189)
    assert (settings.batch_size, settings.lr) == (40, 0.3) and len(lines) == 1


def test_parts_and_processes_share_a_batch(free: Any) -> None:
    free(4)
    whole, _ = fit(read_config("us_mobilenet_v1", PHOTOS), 10**6)
    parts, _ = fit(read_config("us_mobilenet_v1", [*PHOTOS, "accumulate=4"]), 10**6)
    assert parts.batch_size > 3.5 * whole.batch_size
    two, _ = fit(read_config("us_mobilenet_v1", PHOTOS), 10**6, Processes(0, 2, torch.device("cpu")))
    assert two.batch_size > 1.8 * whole.batch_size  # so much is free for each


def test_few_images_leave_one_batch(free: Any) -> None:
    free(None)
    for images, batch in ((3, 3), (16, 16), (20, 16), (63, 16), (64, 16), (100, 24), (4000, 1000), (10**6, 1024)):
        assert fit(read_config("us_mobilenet_v1", PHOTOS), images)[0].batch_size == batch, images


# ------------------------------------------------------------------------------------------------ a batch that was asked for


def test_a_batch_that_cannot_fit_is_refused_and_the_advice_leads_on(free: Any) -> None:
    free(4)
    given = read_config("us_mobilenet_v1", [*PHOTOS, "batch_size=512"])
    with pytest.raises(ResourceError) as caught:
        fit(given, 10**6)
    message = str(caught.value)
    assert caught.value.exit_code == 3 and "batch_size 512: us_mobilenet_v1 at 224 pixels needs about" in message
    assert "4.0 GiB are free on this machine" in message
    advised = re.search(r"--batch-size (\d+);", message)
    parts = re.search(r"accumulate=(\d+)", message)
    assert advised and parts
    smaller = read_config("us_mobilenet_v1", PHOTOS, batch_size=int(advised[1]))
    assert fit(smaller, 10**6) == (smaller, [])
    divided = dataclasses.replace(given, accumulate=int(parts[1]))
    settings, lines = fit(divided, 10**6)
    assert (settings.batch_size, lines) == (512, [])


def test_a_batch_that_may_fit_is_tried_with_a_warning(free: Any) -> None:
    given = read_config("us_mobilenet_v1", PHOTOS, batch_size=64)
    free(training_memory(given.spec(10), 224)(64) / GIB / 1.1)
    settings, (line,) = fit(given, 10**6)
    assert settings.batch_size == 64 and line.startswith("warning: batch_size 64: ")


def test_no_batch_at_all(free: Any) -> None:
    free(0.1)
    with pytest.raises(ResourceError, match=r"No batch fits: lower image_size"):
        fit(read_config("us_mobilenet_v1", PHOTOS), 189)


def test_more_than_there_are_images_is_bounded(free: Any) -> None:
    free(None)
    settings, lines = fit(read_config("digits", batch_size=10_000), 1437)
    assert settings.batch_size == 1437 and "there are 1437 training images" in lines[0]
    own, lines = fit(Config("us_mobilenet_v1", batch_size=64), 20)
    assert (own.batch_size, own.lr) == (20, 0.1) and len(lines) == 1  # its lr was its writer's


# ------------------------------------------------------------------------------------------------------ tests, and resuming


def test_tests_take_a_batch_that_fits(free: Any) -> None:
    free(2)
    given = read_config("us_mobilenet_v1", PHOTOS)
    tested = fitted_for_testing(given, given.spec(10), ALONE)
    assert 8 <= tested.batch_size < 1024 and tested.calibration_batches * tested.batch_size >= 5 * 1024
    asked = read_config("us_mobilenet_v1", PHOTOS, batch_size=1024)
    tested = fitted_for_testing(asked, asked.spec(10), ALONE)
    assert tested.batch_size == 1024 and 8 <= tested.test_batch_size < 1024


def test_a_resumed_run_keeps_the_batch_that_it_found() -> None:
    given = read_config("us_mobilenet_v1", PHOTOS)
    before = {**plain(given), "batch_size": 40, "lr": 0.02, "calibration_batches": 7}
    again = resumed_batch(given, before)
    assert (again.batch_size, again.lr, again.calibration_batches, again.fit_batch) == (40, 0.02, 7, False)
    asked = read_config("us_mobilenet_v1", PHOTOS, batch_size=64)
    assert resumed_batch(asked, before) == asked
    assert resumed_batch(given, {}) == given


def test_a_run_finds_its_batch_and_goes_on_with_it(tmp_path: Path, free: Any) -> None:
    """With another amount of free memory on the second day."""
    draw = np.random.default_rng(0)
    for i in range(64 + 8):
        folder = tmp_path / "photos" / ("train" if i < 64 else "val") / str(i % 2)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    small = {"batch_size": 64, "fit_batch": True, "scale_lr": True, "data": "folder", "epochs": 1}
    settings = config(tmp_path / "run", **{**small, "data_dir": str(tmp_path / "photos")})
    spec = settings.spec(2)
    free(training_memory(spec, 16)(24) / 0.8 / GIB + 1e-6)
    train(settings, ALONE)
    begun = read_config(str(tmp_path / "run" / "config.yml"))
    assert (begun.batch_size, begun.fit_batch) == (16, False) and begun.lr == pytest.approx(0.1 * 16 / 64)
    free(None)
    train(dataclasses.replace(settings, resume="auto"), ALONE)
    assert raw(tmp_path / "run" / "last.pt")["training"]["config"]["batch_size"] == 16


class Four(Processes):
    """One of four, alone here."""

    def least(self, value: int) -> int:
        return value


def test_free_memory_is_shared_by_processes() -> None:
    alone, four = free_bytes(ALONE), free_bytes(Four(0, 4, torch.device("cpu")))
    assert alone is None or (four is not None and four < alone / 3)


def agreed(joined: Processes, cases: Sequence[Sequence[int | None]]) -> list[int | None]:
    results = []
    for free in cases:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fitting, "free_memory", lambda free=free: free[joined.rank])
            results.append(free_bytes(joined))
    return results


def test_processes_agree_on_what_is_free() -> None:
    """Each reads it at its own moment, and another batch for each would be a run that waits for ever."""
    cases = ((6 * GIB, 4 * GIB), (None, 4 * GIB), (None, None))
    assert in_processes(2, agreed, cases) == [[2 * GIB, 2 * GIB, None]] * 2


# ------------------------------------------------------------------------------------------------------------- searches

SEARCHED = [*PHOTOS, "image_size=96", "search_cache_gib=0"]
SUPERNET = NetworkSpec("mobilenet_v2", "us", (0.15, 1.5), 10, width_range=(0.15, 1.5))


def fit_search(free: float | None, set_free: Any, images: int = 10**6, *changes: str) -> tuple[Config, list[str]]:
    set_free(free)
    return fitted_for_searching(read_config("us_mobilenet_v2", [*SEARCHED, *changes]), SUPERNET, images, ALONE)


def test_a_search_whose_batch_is_left_open_takes_that_of_tests_as_far_as_it_fits(free: Any) -> None:
    assert fit_search(None, free)[0].search_batch == 1024 == fit_search(100, free)[0].search_batch
    assert fit_search(None, free, 10**6, "test_batch_size=100")[0].search_batch == 100
    assert (
        fit_search(None, free, 50) == (fit_search(None, free, 50)[0], []) and fit_search(None, free, 50)[0].search_batch == 50
    )
    settings, (line,) = fit_search(2, free)
    memory = memory_of_tests(SUPERNET, 96)
    assert memory(settings.search_batch) <= 0.8 * 2 * GIB < memory(settings.search_batch + 8)
    assert line == (
        f"search_batch is {settings.search_batch} in place of 1024, which fits the 2.0 GiB that are free on this machine. Set "
        "search_batch to choose another."
    )
    assert (settings.batch_size, settings.test_batch_size) == (1024, 0)  # a training's and a test's are not the search's


def test_a_batch_that_was_asked_for_and_does_not_fit_is_refused_and_the_advice_leads_on(free: Any) -> None:
    with pytest.raises(
        ResourceError, match=r"search_batch 900: a search in us_mobilenet_v2 at 96 pixels needs about"
    ) as caught:
        fit_search(2, free, 10**6, "search_batch=900")
    advised = re.search(r"--search-batch (\d+)", str(caught.value))
    assert advised and caught.value.exit_code == 3
    settings, lines = fit_search(2, free, 10**6, f"search_batch={advised[1]}")
    assert (settings.search_batch, lines) == (int(advised[1]), [])
    assert fit_search(2, free, 8, "search_batch=900")[0].search_batch == 8  # there are no more images
    settings, (line,) = fit_search(memory_of_tests(SUPERNET, 96)(64) / GIB / 1.1, free, 10**6, "search_batch=64")
    assert settings.search_batch == 64 and line.startswith("warning: search_batch 64: ")


def test_images_that_are_kept_take_memory_too(free: Any) -> None:
    kept = 1000 * 3 * 96**2 * 4
    least = memory_of_tests(SUPERNET, 96)(8) / GIB / 0.8
    few, _ = fit_search(least + kept / GIB / 0.8, free, 1000, "search_cache_gib=1")
    none, _ = fit_search(least, free, 1000)
    assert abs(few.search_batch - none.search_batch) <= 8 and none.search_batch == 8
    with pytest.raises(ResourceError, match=r"for a batch of 1, .* No batch fits: lower image_size or search_cache_gib"):
        fit_search(least, free, 10**6, "search_cache_gib=2")
