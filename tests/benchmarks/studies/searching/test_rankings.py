"""What a choice loses, by a reference."""

from __future__ import annotations

import pytest

from benchmarks.studies.searching.rankings import add_differences, judged
from slimtrain.search.greedy import CandidateScore


def test_a_choice_is_judged_by_the_reference() -> None:
    ours = [[CandidateScore(1.0, 0.1, 9), CandidateScore(2.0, 0.2, 9), CandidateScore(3.0, 0.3, 9)]] * 2
    theirs = [
        [CandidateScore(10.0, 1.0, 9), CandidateScore(20.0, 2.0, 9), CandidateScore(30.0, 3.0, 9)],
        [CandidateScore(30.0, 3.0, 9), CandidateScore(20.0, 2.0, 9), CandidateScore(10.0, 1.0, 9)],
    ]
    judgement = judged(ours, theirs, [0, 0], resamples=10)
    assert judgement["agreement_error_steps"] == pytest.approx([1, -1]) and judgement["agreement_error"] == pytest.approx(0)
    assert judgement["regret_error_steps"] == [0, 20] and judgement["regret_error"] == 10
    assert judgement["regret_loss_steps"] == [0, 2]
    better = judged(ours, theirs, [0, 2], resamples=10)
    figures = {"a": {"reference": judgement}, "b": {"reference": better}}
    add_differences(figures, ["reference"], "a", 10)
    assert judgement["regret_error_above"] == 0 and better["regret_error_above"] == -10
    assert better["regret_error_above_interval"][0] >= -20 and better["agreement_error_above_interval"] == (0, 0)
