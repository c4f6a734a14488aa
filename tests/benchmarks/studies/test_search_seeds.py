"""The search's scripts: seeds summed up against figures done by hand, and the speed script on a network of milliseconds."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.studies import search_seeds

HEADER = (
    "target,plan,cost,macs,params,top1,loss,width,uniform_cost,uniform_macs,uniform_params,uniform_top1,uniform_loss,images"
)


def written(folder: Path, searched: float, uniform: float, target: float = 3e6) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    row = f"{target},macs_3M,2.9e6,2900000,700,{searched},0.1,0.49,2.9e6,2900001,800,{uniform},0.2,360"
    (folder / "comparison.csv").write_text(f"{HEADER}\n{row}\n")


def test_seeds_are_summed_up(tmp_path: Path) -> None:
    for seed, (searched, uniform) in enumerate(((0.96, 0.95), (0.98, 0.98), (0.94, 0.98))):
        written(tmp_path / str(seed), searched, uniform)
    runs = {seed: search_seeds.read_rows(tmp_path / str(seed) / "comparison.csv") for seed in range(3)}
    (row,) = search_seeds.summarize(runs)
    assert row["target"] == 3e6 and row["macs"] == [2_900_000] * 3 and row["uniform_macs"] == [2_900_001] * 3
    assert row["found_percent"] == {"mean": 96.0, "deviation": 2.0}
    assert row["uniform_percent"] == {"mean": 97.0, "deviation": 1.732}
    assert row["difference_points"] == {"mean": -1.0, "deviation": 2.646}
    assert (row["ahead"], row["equal"], row["behind"]) == (1, 1, 1)
    header, line = search_seeds.lines([row])
    assert " ".join(header.split()) == "target MACs found uniform difference ahead/equal/behind parameters"
    assert line.split() == [
        "3,000,000",
        "96.00",
        "±",
        "2.00",
        "97.00",
        "±",
        "1.73",
        "-1.00",
        "±",
        "2.65",
        "1/1/1",
        "700",
        "/",
        "800",
    ]


def test_runs_for_other_targets_are_not_mixed(tmp_path: Path) -> None:
    for seed in range(2):
        written(tmp_path / str(seed), 0.9, 0.9, target=3e6 + seed)
    runs = {seed: search_seeds.read_rows(tmp_path / str(seed) / "comparison.csv") for seed in range(2)}
    with pytest.raises(ValueError, match="other targets"):
        search_seeds.summarize(runs)


def test_every_seed_is_a_run_of_its_own_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[list[str]] = []
    usual = subprocess.run

    def run(words: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if "slimtrain" not in words:  # what looks at the machine
            return usual(words, **options)
        ran.append(words)
        written(Path(words[words.index("--output-dir") + 1]), 0.8 + 0.1 * ("seed=7" in words), 0.8)
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(subprocess, "run", run)
    result = tmp_path / "result.json"
    options = ["--seeds", "4,7", "--set", "epochs=2", "--output-dir", str(tmp_path), "--json", str(result)]
    monkeypatch.setattr("sys.argv", ["search_seeds", *options])
    search_seeds.main()
    kept, words = ran  # the command itself sees that the first is finished, and of these settings
    assert "seed=4" in kept and kept[-2:] == ["--set", "epochs=2"]
    assert words[2:6] == ["slimtrain", "search", "digits", "--set"]
    assert "seed=7" in words and "epochs=2" in words and "--finish" in words and words[words.index("--resume") + 1] == "auto"
    content: dict[str, Any] = json.loads(result.read_text())
    assert set(content["seeds"]) == {"4", "7"} and content["summary"][0]["difference_points"]["mean"] == 5.0
    assert "1/1/0" in capsys.readouterr().out and str(tmp_path) not in content["command"]


def test_a_run_that_fails_ends_it_with_its_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda words, check: subprocess.CompletedProcess(words, 3))
    monkeypatch.setattr("sys.argv", ["search_seeds", "--output-dir", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        search_seeds.main()
    assert ended.value.code == 3
