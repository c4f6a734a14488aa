"""Every request has one end; what has none is lost, what has two is told."""

from __future__ import annotations

import json
import threading

import numpy as np

from benchmarks.cells.records import json_line
from benchmarks.load.book import ANSWERED, FAILED, FULL, LATE, LOST, OUTCOMES, Book, joined


def test_a_request_is_lost_until_it_ends() -> None:
    book = Book(np.array([0.0, 0.5, 1.0, 1.5]))
    book.sent(0, 0.25)
    book.answered(0, 12.0, "0.5", 4, 2.0, 9.0)
    book.refused(1, LATE)
    book.refused(2, FULL)
    assert not book.wait(0)
    samples = book.samples()
    assert [OUTCOMES[place] for place in samples.outcome] == [ANSWERED, LATE, FULL, LOST]
    assert samples.late_ms[0] == 0.25 and np.isnan(samples.late_ms[1:]).all()
    assert (samples.latency_ms[0], samples.queued_ms[0], samples.computed_ms[0], samples.batch[0]) == (12.0, 2.0, 9.0, 4)
    assert samples.labels == ("0.5",) and samples.width.tolist() == [0, -1, -1, -1]
    book.refused(3, FAILED)
    assert book.wait(0) and book.samples().doubled == 0


def test_a_second_end_changes_nothing_and_is_counted() -> None:
    book = Book(np.zeros(1))
    book.answered(0, 5.0, "1", 1, 0.0, 5.0)
    book.answered(0, 7.0, "0.5", 2, 0.0, 7.0)
    book.refused(0, FAILED)
    samples = book.samples()
    assert samples.doubled == 2 and samples.latency_ms.tolist() == [5.0] and samples.labels == ("1",)


def test_in_time_is_by_the_deadline_and_answered_only() -> None:
    book = Book(np.zeros(4))
    for number, latency_ms in enumerate((49.9, 50.0, 50.1)):
        book.answered(number, latency_ms, "1", 1, 0.0, 1.0)
    book.refused(3, LATE)
    assert book.samples().in_time(50.0).tolist() == [True, True, False, False]


def test_threads_tell_it_at_once() -> None:
    count, threads = 4000, 8
    book = Book(np.zeros(count))

    def tell(first: int) -> None:
        for number in range(first, count, threads):
            book.answered(number, float(number), str(number % 3), 1, 0.0, 0.0)

    workers = [threading.Thread(target=tell, args=(first,)) for first in range(threads)]
    for worker in workers:
        worker.start()
    assert book.wait(60.0)
    for worker in workers:
        worker.join()
    samples = book.samples()
    assert samples.latency_ms.tolist() == list(range(count)) and samples.doubled == 0
    assert [samples.labels[place] for place in samples.width] == [str(number % 3) for number in range(count)]


def test_rounds_are_joined_by_label() -> None:
    parts = []
    for labels in (["1", "0.5"], ["0.5", "0.25"]):
        book = Book(np.arange(3.0))
        for number, label in enumerate(labels):
            book.answered(number, 1.0, label, 1, 0.0, 1.0)
        parts.append(book.samples())
    whole = joined(parts)
    named = [whole.labels[place] if place >= 0 else None for place in whole.width]
    assert named == ["1", "0.5", None, "0.5", "0.25", None] and len(whole) == 6


def test_a_line_of_results_holds_every_column() -> None:
    book = Book(np.array([0.1234567, 0.2]))
    book.answered(0, 1.23456, "1", 1, 0.5, 0.25)
    content = json.loads(json_line(book.samples().as_dict()))
    assert content["intended_s"] == [0.123457, 0.2] and content["latency_ms"] == [1.235, None]
    assert content["labels"] == ["1"] and [content["outcomes"][place] for place in content["outcome"]] == [ANSWERED, LOST]
