"""A bundle served: answers are the networks' own, requests are checked, what is said of it is true."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import slimexport
from slimexport.target.arrays import Array
from slimexport.target.errors import BundleError
from slimexport.target.manifest import read_manifest
from slimexport.target.serving.errors import Late, QueueFull, RequestError
from slimexport.target.serving.policy import Choice, Latencies
from slimexport.target.serving.runtime import Runtime
from slimexport.target.tensors import Result
from slimtrain.base.errors import UserError
from tests.support.bundle_helpers import artifact, manifest, with_file, write_manifest
from tests.support.export_helpers import run_onnx
from tests.support.serving_helpers import (
    CLASSES,
    FOREVER_MS,
    SIZE,
    WAIT,
    Bench,
    held,
    images,
    logits,
    real_bundle,
    toy_bundle,
    wait_until,
)

# -------------------------------------------------------------------------------------------------------------- answers


def test_an_answer_is_what_the_bundles_file_gives(tmp_path: Path) -> None:
    folder = real_bundle(tmp_path / "b")
    batch = images(3)
    with slimexport.Runtime(folder) as runtime:
        assert (runtime.backend, [info.label for info in runtime.widths]) == ("onnxruntime-cpu", ["0.25", "0.5", "1"])
        for width, label in ((0.25, "0.25"), (0.5, "0.5"), (1.0, "1")):
            runtime.policy = f"fixed:{label}"
            file = folder / f"net_x{label.replace('.', '_')}.onnx"
            answer = runtime.submit(batch, FOREVER_MS).result(**WAIT)
            assert (answer.width, answer.name, answer.batch, answer.late) == (width, label, 3, False)
            np.testing.assert_allclose(answer.output, run_onnx(file, batch), rtol=1e-5, atol=1e-6)
            single = runtime.submit(batch[1], FOREVER_MS).result(**WAIT).output
            assert single.shape == (CLASSES,)
            np.testing.assert_allclose(single, run_onnx(file, batch[1:2])[0], rtol=1e-5, atol=1e-6)


def test_requests_that_wait_share_a_run_and_get_their_own_rows(bundle: Path, bench: Bench) -> None:
    with Runtime(bundle, policy="fixed:0.5", batches=[1, 8]) as runtime:
        batch = images(8)
        toy = bench.of("0.5")
        with held(runtime, toy):
            futures = [runtime.submit(batch[0], FOREVER_MS), runtime.submit(batch[1:4], FOREVER_MS)]
            futures += [runtime.submit(batch[4:5], FOREVER_MS), runtime.submit(batch[5:], FOREVER_MS)]
            before = len(toy.runs)
        outputs = [future.result(**WAIT).output for future in futures]
        assert toy.runs[before:] == [8]
        assert [output.shape for output in outputs] == [(CLASSES,), (3, CLASSES), (1, CLASSES), (3, CLASSES)]
        np.testing.assert_array_equal(np.concatenate([outputs[0][None], *outputs[1:]]), logits(batch, toy.file))


def test_the_most_urgent_is_served_first(bundle: Path, bench: Bench) -> None:
    order: list[int] = []
    with Runtime(bundle, batches=[1]) as runtime, held(runtime, *bench.runners):
        for number, deadline in enumerate((FOREVER_MS, FOREVER_MS / 2, FOREVER_MS / 4, FOREVER_MS / 3)):
            future = runtime.submit(images(1)[0], deadline)
            future.add_done_callback(lambda _, number=number: order.append(number))  # type: ignore[misc]
    assert order == [2, 3, 1, 0]


def test_a_network_of_several_outputs_answers_by_name(tmp_path: Path, bench: Bench) -> None:
    """One of them has two rows for every image."""
    folder = tmp_path / "b"
    outputs = (
        Result(name="out", shape=("batch", CLASSES), dtype="float32"),
        Result(name="boxes", shape=("2*batch", 4), dtype="float32"),
    )
    described = manifest(with_file(folder, artifact()), image_size=SIZE, classes=CLASSES, outputs=outputs)
    write_manifest(folder, replace(described, output=replace(described.output, name="out")))

    def give(batch: Array) -> dict[str, Array]:
        return {"out": logits(batch, "x"), "boxes": np.arange(len(batch) * 8, dtype=np.float32).reshape(-1, 4)}

    bench.prepare = lambda toy: setattr(toy, "give", give)
    with Runtime(folder) as runtime:
        batch = images(3)
        many = runtime.submit(batch, FOREVER_MS).result(**WAIT).output
        one = runtime.submit(batch[0], FOREVER_MS).result(**WAIT).output
    np.testing.assert_array_equal(many["out"], logits(batch, "x"))
    assert (many["boxes"].shape, one["out"].shape, one["boxes"].shape) == ((6, 4), (CLASSES,), (2, 4))


def test_an_autoslim_bundles_switches_are_called_by_their_numbers(tmp_path: Path, bench: Bench) -> None:
    folder = tmp_path / "b"
    files = [with_file(folder, artifact(f"net_s{number}", number, macs=number * 10)) for number in (1, 2)]
    write_manifest(folder, manifest(*files, image_size=SIZE, classes=CLASSES))
    with Runtime(folder, policy="fixed:2", widths=[1, "2"]) as runtime:
        assert runtime.latencies.widths == ("1", "2")
        answer = runtime.submit(images(1)[0], FOREVER_MS).result(**WAIT)
        assert (answer.width, answer.name) == (2, "2")


def test_a_plan_without_a_width_is_called_by_its_name(tmp_path: Path, bench: Bench) -> None:
    folder = tmp_path / "b"
    described = manifest(with_file(folder, artifact("net_mine", None)), image_size=SIZE, classes=CLASSES)
    write_manifest(folder, described)
    with Runtime(folder) as runtime:
        answer = runtime.submit(images(1)[0], FOREVER_MS).result(**WAIT)
    assert (answer.width, answer.name) == (None, "mine")


def test_an_array_that_is_not_contiguous_is_computed_as_it_reads(bundle: Path, bench: Bench) -> None:
    mirrored = images(2)[..., ::-1]
    with Runtime(bundle) as runtime:
        bench.of("1").before = lambda batch: None if batch.flags.c_contiguous else pytest.fail("not contiguous")
        output = runtime.submit(mirrored, FOREVER_MS).result(**WAIT).output
    np.testing.assert_array_equal(output, logits(np.ascontiguousarray(mirrored), bench.of("1").file))


# ------------------------------------------------------------------------------------------------------------- requests


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((3, SIZE, SIZE + 1), np.float32), r"shape \[3, 4, 5\], expected \[3, 4, 4\] or \[N, 3, 4, 4\]"),
        (np.zeros((0, 3, SIZE, SIZE), np.float32), r"shape \[0, 3, 4, 4\]"),
        (np.zeros((1, 1, 3, SIZE, SIZE), np.float32), "shape"),
        (np.float32(1), "shape"),
        (np.zeros((3, SIZE, SIZE)), "float64, expected float32"),
        (np.zeros((3, SIZE, SIZE), ">f4"), "expected float32"),
        ([[1.0], [1.0, 2.0]], "no array"),
        ("text", "expected float32"),
        (None, "expected float32"),
        (np.zeros((9, 3, SIZE, SIZE), np.float32), "9 images: a run takes 8 at most"),
    ],
)
def test_what_is_no_request_is_refused_with_the_reason(bundle: Path, bench: Bench, image: Any, message: str) -> None:
    with Runtime(bundle, batches=[1, 8]) as runtime:
        with pytest.raises(RequestError, match=message):
            runtime.submit(image, FOREVER_MS)
        assert runtime.stats().submitted == 0
        assert runtime.submit(images(8), FOREVER_MS).result(**WAIT).batch == 8


BAD_DEADLINES = [float("nan"), float("inf"), -float("inf"), -1.0, 0, 1e300, "5", True, [1.0], np.float32("nan"), 3_600_001]


@pytest.mark.parametrize("deadline", BAD_DEADLINES)
def test_a_deadline_that_is_none_is_refused(bundle: Path, bench: Bench, deadline: Any) -> None:
    with Runtime(bundle) as runtime:
        with pytest.raises(RequestError, match=r"deadline_ms .* milliseconds above 0, up to an hour"):
            runtime.submit(images(1)[0], deadline)
        with pytest.raises(RequestError, match="slo_ms"):
            runtime.slo_ms = deadline
        assert runtime.slo_ms == 50
    with pytest.raises(RequestError, match="slo_ms"):
        Runtime(bundle, slo_ms=deadline)


def test_deadlines_may_be_numbers_of_numpy(bundle: Path, bench: Bench) -> None:
    with Runtime(bundle, slo_ms=np.float64(FOREVER_MS)) as runtime:
        for deadline in (np.float32(FOREVER_MS), np.int64(FOREVER_MS), None):
            assert not runtime.submit(images(1)[0], deadline).result(**WAIT).late  # type: ignore[arg-type]


def test_a_full_queue_refuses_at_once(bundle: Path, bench: Bench) -> None:
    with Runtime(bundle, queue=10, batches=[1, 8]) as runtime:
        with held(runtime, *bench.runners):
            futures = [runtime.submit(images(4), FOREVER_MS) for _ in range(2)]
            with pytest.raises(QueueFull, match="8 images wait, 10 may") as error:
                runtime.submit(images(3), FOREVER_MS)
            assert error.value.retry_s > 0 and error.value.exit_code == 3
            futures.append(runtime.submit(images(2), FOREVER_MS))
            with pytest.raises(QueueFull):
                runtime.submit(images(1)[0], FOREVER_MS)
            assert (runtime.stats().waiting, runtime.stats().refused["full"]) == (10, 2)
        assert [len(future.result(**WAIT).output) for future in futures] == [4, 4, 2]


def test_a_request_that_cannot_be_in_time_is_refused_and_is_not_computed(bundle: Path, bench: Bench) -> None:
    with Runtime(bundle) as runtime:
        with held(runtime, *bench.runners):
            hopeless = runtime.submit(images(1)[0], 1e-3)
            assert isinstance(hopeless.exception(timeout=0), Late), "at once, as nothing can be as quick"
            late = runtime.submit(images(1)[0], 300.0)
            rest = runtime.submit(images(1)[0], FOREVER_MS)
            due = time.perf_counter() + 0.3
            wait_until(lambda: time.perf_counter() > due)
        with pytest.raises(Late, match=r"waited .* of its 300 ms, and no width ends in the rest"):
            late.result(**WAIT)
        assert rest.result(**WAIT).batch == 1
        stats = runtime.stats()
        assert (stats.submitted, stats.answered, stats.refused) == (4, 2, {"late": 2, "full": 0, "closed": 0})
        events = [event for event in runtime.recent() if event.outcome == "late"]
        assert [(event.width, event.images, event.batch, event.slack_ms < 0.3) for event in events] == [("", 1, 0, True)] * 2


def test_a_late_request_can_be_served_by_the_narrowest(bundle: Path, bench: Bench) -> None:
    with Runtime(bundle, late="serve", batches=[1, 4]) as runtime:
        with held(runtime, *bench.runners):
            futures = [runtime.submit(images(1)[0], 1e-3) for _ in range(6)]
        answers = [future.result(**WAIT) for future in futures]
        assert [(answer.name, answer.late) for answer in answers] == [("0.25", True)] * 6
        assert [answer.batch for answer in answers] == [4, 4, 4, 4, 2, 2], "as many at once as it takes"
        stats = runtime.stats()
        assert (stats.answered, stats.in_time) == (7, 1)


# --------------------------------------------------------------------------------------------------------- what it says


def test_what_it_says_of_itself(tmp_path: Path, bench: Bench) -> None:
    folder = toy_bundle(tmp_path / "b", (0.25, 0.5), accuracies=(0.5, 0.75))
    with Runtime(folder, batches=[1, 4], policy="fixed:0.5") as runtime:
        assert runtime.ready and runtime.manifest == read_manifest(folder)
        assert [(info.label, info.width, info.name, info.accuracy) for info in runtime.widths] == [
            ("0.25", 0.25, "net_x0_25", 0.5),
            ("0.5", 0.5, "net_x0_5", 0.75),
        ]
        before = runtime.now()
        runtime.submit(images(3), FOREVER_MS).result(**WAIT)
        runtime.submit(images(1)[0], FOREVER_MS).result(**WAIT)
        stats = runtime.stats()
        assert (stats.submitted, stats.answered, stats.in_time, stats.failed, stats.waiting, stats.cancelled) == (
            2,
            2,
            2,
            0,
            0,
            0,
        )
        assert [(width.label, width.accuracy, width.answered, width.out) for width in stats.widths] == [
            ("0.25", 0.5, 0, ""),
            ("0.5", 0.75, 2, ""),
        ]
        assert {label: list(row) for label, row in stats.latencies_ms.items()} == {"0.25": [1, 4], "0.5": [1, 4]}
        first, second = runtime.recent()
        assert (first.number, first.width, first.images, first.batch, first.outcome) == (1, "0.5", 3, 3, "answered")
        assert before <= first.at_s <= second.at_s <= runtime.now()
        assert first.latency_ms == pytest.approx(first.queued_ms + first.computed_ms)
        assert first.slack_ms == pytest.approx(FOREVER_MS - first.latency_ms)
        assert runtime.recent(1) == [second] and runtime.recent(2) == runtime.recent(99) == []
    assert not runtime.ready


def test_the_policy_and_the_deadline_can_be_set_while_it_runs(bundle: Path, bench: Bench) -> None:
    with Runtime(bundle) as runtime:
        assert runtime.policy == "drain"
        for label in ("0.25", "1", "0.5"):
            runtime.policy = f"fixed:{label}"
            assert runtime.policy == f"fixed:{label}"
            assert runtime.submit(images(1)[0], FOREVER_MS).result(**WAIT).name == label
        for wrong in ("fixed:0.3", "widest", "", 5, None):
            with pytest.raises(UserError, match="policy"):
                runtime.policy = wrong  # type: ignore[assignment]
        assert runtime.policy == "fixed:0.5"
        runtime.slo_ms = FOREVER_MS
        assert runtime.submit(images(1)[0]).result(**WAIT).width == 0.5


@pytest.mark.parametrize(
    "policy",
    [
        lambda waiting, slack, latencies: 1 / 0,
        lambda waiting, slack, latencies: None,
        lambda waiting, slack, latencies: (3, 1),
        lambda waiting, slack, latencies: (-1, 1),
        lambda waiting, slack, latencies: (0, 0),
        lambda waiting, slack, latencies: (0, -5),
        lambda waiting, slack, latencies: (0.5, 1),
        lambda waiting, slack, latencies: (float("nan"), 1),
        lambda waiting, slack, latencies: "ab",
        lambda: None,
    ],
)
def test_a_policy_of_the_users_that_fails_costs_no_answer(
    bundle: Path, bench: Bench, policy: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with Runtime(bundle, policy=policy) as runtime:
        for _ in range(3):
            assert runtime.submit(images(1)[0], FOREVER_MS).result(**WAIT).name == "1", "drain chooses"
    assert len([record for record in caplog.records if "the policy failed" in record.message]) == 1


def test_a_policy_of_the_users_chooses(bundle: Path, bench: Bench) -> None:
    asked: list[tuple[int, float]] = []

    def mine(waiting: int, slack_ms: float, latencies: Latencies) -> Choice:
        asked.append((waiting, slack_ms))
        return Choice(np.int64(1), 10**9)  # type: ignore[arg-type]

    with Runtime(bundle, policy=mine, batches=[1, 4]) as runtime:
        assert runtime.policy is mine
        answer = runtime.submit(images(3), FOREVER_MS).result(**WAIT)
        assert (answer.name, answer.batch) == ("0.5", 3)
    ((waiting, slack),) = asked
    assert waiting == 3 and 0 < slack <= FOREVER_MS


# --------------------------------------------------------------------------------------------------- what cannot be opened


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"late": "drop"}, "late 'drop': expected one of refuse, serve"),
        ({"queue": 0}, "queue 0"),
        ({"queue": 2.5}, r"queue 2\.5"),
        ({"threads": 0}, "threads 0"),
        ({"hang_s": float("nan")}, "hang_s"),
        ({"hang_s": 0}, "hang_s"),
        ({"policy": "widest"}, "policy 'widest': not known. Available: drain, slackfit, fixed:WIDTH"),
        ({"policy": "fixed:0.3"}, r"policy 'fixed:0\.3': width '0\.3' is not open. Open are 0\.25, 0\.5, 1"),
        ({"policy": "fixed:"}, "width 'none' is not open"),
        ({"widths": [0.3]}, r"holds no width 0\.3 in fp32. It has 0\.25, 0\.5, 1"),
        ({"widths": []}, "no width was chosen"),
        ({"precision": "fp16"}, "holds no fp16 file"),
        ({"backend": "onnxruntime"}, "backend 'onnxruntime': not known"),
        ({"backend": "tensorrt"}, "holds no fp32 file that tensorrt runs"),
        ({"batches": [0, 1]}, r"batches \[0, 1\]: expected numbers of images, 1 to"),
        ({"batches": []}, "batches"),
        ({"batches": [1.5]}, "batches"),
        ({"batches": [10**9]}, "batches"),
    ],
)
def test_values_that_cannot_be_are_told_and_nothing_stays_open(
    bundle: Path, bench: Bench, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Runtime(bundle, **options)
    assert [toy.closed for toy in bench.runners] == [1] * len(bench.runners)


def test_a_file_that_is_not_what_the_manifest_says_is_not_served(bundle: Path, bench: Bench) -> None:
    path = bundle / "net_x1.onnx"
    path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(BundleError, match=r"net_x1\.onnx: SHA-256"):
        Runtime(bundle)
    assert [(toy.file, toy.closed) for toy in bench.runners] == [("net_x0_25.onnx", 1), ("net_x0_5.onnx", 1)]
    with Runtime(bundle, widths=[0.25, 0.5]) as runtime:
        assert len(runtime.widths) == 2


def test_what_is_no_bundle_is_told(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"holds no manifest\.json"):
        Runtime(tmp_path)


def test_what_fails_where_it_is_measured_ends_the_start(bundle: Path, bench: Bench) -> None:
    def fails(batch: Array) -> None:
        raise BundleError("net.onnx: onnxruntime does not run it (no).")

    bench.prepare = lambda toy: setattr(toy, "before", fails) if "x1" in toy.file else None
    with pytest.raises(BundleError, match="does not run it"):
        Runtime(bundle)
    assert [toy.closed for toy in bench.runners] == [1, 1, 1]
