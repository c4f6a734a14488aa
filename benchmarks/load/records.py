"""A run's `results.jsonl`: how and where it was measured, the raw samples of each round of each policy, its figures, its end.

A line `{"kind": "run", ...}`, as of other runs; lines `{"kind": "round", "policy", "round", "samples"}` as they come, with a
column for every figure of a request; lines `{"kind": "policy", ...}` of figures; and `{"kind": "end", ...}`. Whatever ends a
run, the lines before are whole.
"""

from __future__ import annotations

from benchmarks.cells.records import Records
from benchmarks.load.book import Samples
from benchmarks.load.figures import PolicyFigures


class LoadRecords(Records):
    """As `Records`; between `run` and `end` rounds and policies are added, in place of cells."""

    def __enter__(self) -> LoadRecords:
        super().__enter__()
        return self

    def round(self, policy: str, number: int, samples: Samples) -> None:
        """What became of every request of a policy's round."""
        self._write({"kind": "round", "policy": policy, "round": number, "samples": samples.as_dict()})

    def policy(self, figures: PolicyFigures) -> None:
        """The figures of all its rounds."""
        self._write({"kind": "policy", **figures.as_dict()})
