"""A bundle is opened for every policy: the same widths for those that choose, one width for one that does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.load.services import LocalService, checked_policies, fixed_width, width_of
from slimtrain.base.errors import UserError
from tests.support.load_fakes import start_quickly

LONG_MS = 30_000.0  # a deadline that a loaded machine meets


@pytest.fixture(scope="module")
def service(two_widths: Path, tmp_path_factory: pytest.TempPathFactory) -> LocalService:
    with pytest.MonkeyPatch.context() as patch:
        start_quickly(patch, tmp_path_factory.mktemp("cache"))
        return LocalService(two_widths, None, LONG_MS, seed=0)


@pytest.fixture(autouse=True)
def few_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A start measures little."""
    start_quickly(monkeypatch, tmp_path)


def test_the_first_opening_says_what_there_is(service: LocalService) -> None:
    opened = service.opened
    assert (opened.network, opened.backend, opened.labels) == ("us_mobilenet_v1", "onnxruntime-cpu", ("0.25", "0.5"))
    assert set(opened.widest_ms) == set(opened.latencies_ms["0.5"]) and min(opened.widest_ms.values()) > 0
    facts, source = service.facts
    assert source is None and [fact.label for fact in facts] == ["0.25", "0.5"], "of 32 px nothing was published"


@pytest.mark.parametrize(("policy", "labels"), [("drain", {"0.5"}), ("fixed:0.50", {"0.5"}), ("fixed:0.25", {"0.25"})])
def test_every_request_is_answered_by_the_width_of_its_policy(service: LocalService, policy: str, labels: set[str]) -> None:
    samples = service.play(policy, np.arange(6) / 50)
    assert samples.in_time(LONG_MS).all() and samples.doubled == 0
    assert set(samples.labels) == labels


def test_requests_of_several_images(two_widths: Path) -> None:
    service = LocalService(two_widths, [0.25], LONG_MS, seed=0, images=4)
    samples = service.play("drain", np.zeros(2))
    assert service.images[0].shape == (4, 3, 32, 32) and samples.in_time(LONG_MS).all() and (samples.batch >= 4).all()
    with pytest.raises(UserError, match="--images 64: a run takes"):
        LocalService(two_widths, [0.25], LONG_MS, seed=0, images=64)


def test_a_width_that_the_bundle_lacks_is_refused(service: LocalService) -> None:
    with pytest.raises(UserError, match=r"holds no width 0\.7"):
        service.play("fixed:0.7", np.zeros(1))


def test_policies_are_named_once_and_known() -> None:
    assert checked_policies(" drain, fixed:1.0,slackfit ") == ["drain", "fixed:1.0", "slackfit"]
    for text, said in (
        ("", "expected some of"),
        ("drian", r"'drian' is not known \(did you mean 'drain'\?\)"),
        ("fixed:", "'fixed:' is not known"),
        ("drain,drain", "drain is there twice"),
    ):
        with pytest.raises(UserError, match=said):
            checked_policies(text)


def test_widths_as_they_are_typed() -> None:
    assert [width_of(text) for text in ("1.0", "0.5", "mine")] == [1.0, 0.5, "mine"]
    assert [fixed_width(policy) for policy in ("fixed:1.0", "fixed:mine", "drain")] == [1.0, "mine", None]
