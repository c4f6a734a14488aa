"""One message for all problems: counted by kind, the first of each quoted, whatever they hold."""

from __future__ import annotations

from slimtrain.data.detection.problems import Problems


def test_problems_are_counted_and_the_first_are_quoted() -> None:
    problems = Problems()
    assert not problems
    for number in range(1200):
        problems.add("boxes of no size", f"annotation {number}", [0, 0, 0, 5])
    problems.add("file names that lead out of the folder", "image 3", "x" * 10_000 + "\x1b[2J")
    assert problems
    text = problems.message("a.json")
    assert text.startswith(
        "a.json: 1,201 entries are broken and left out: boxes of no size: 1,200 (annotation 0: [0, 0, 0, 5], annotation 1: "
        "[0, 0, 0, 5], annotation 2: [0, 0, 0, 5] and 1,197 more); file names"
    )
    assert len(text) < 500 and "\x1b" not in text and "\n" not in text
