"""Running the examples in docstrings, as a reader who types them."""

from __future__ import annotations

import doctest


def run_examples(text: str, name: str) -> int:
    """Run the examples of a docstring; how many there were. AssertionError, with what was printed, where one prints another
    thing than it says."""
    test = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
    printed: list[str] = []
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
    results = runner.run(test, out=printed.append, clear_globs=True)
    assert not results.failed, "".join(printed)
    return results.attempted
