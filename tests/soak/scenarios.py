"""Commands that write, what they find where they begin, and what has to be true of a folder however one of them ended."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HIDDEN = re.compile(r"(^|/)\.[^/]*")
CLOCKS = re.compile(r'"(build_seconds|seconds|created|date)": [^,}]*')
Tree = Mapping[str, bytes]
LIGHT_MODULES = ("slimexport.commands",)
MODULES = (
    *(
        "torch",
        "onnx",
        "onnxruntime",
        "sklearn.datasets",
        "tqdm",
        "matplotlib.pyplot",
        "slimexport.exporter",
        "slimexport.commands",
    ),
    *("slimtrain.cli", "slimtrain.training.run", "slimtrain.search.run", "benchmarks.commands", "benchmarks.session"),
)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder: relative path -> content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def hidden(folder: Path) -> list[str]:
    """What is left under hidden names."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name.startswith("."))


def below(files: Tree, name: str) -> dict[str, bytes]:
    """The files of one folder."""
    return {path.removeprefix(f"{name}/"): content for path, content in files.items() if path.startswith(f"{name}/")}


@dataclass(frozen=True)
class Scenario:
    """`words` run where `prepare` has made what they find, and run again after a run that was hurt. `essence` is what of all
    files two runs agree on, `state` what is wrong with the files that one that was hurt left, given those before and those of
    a run that nothing hurt."""

    name: str
    words: Sequence[str]
    prepare: Callable[[Path, Path], None]
    essence: Callable[[Path], Any]
    state: Callable[[Path, Any, Any], str]
    once: bool = False  # a second run of the same refuses what is there
    light: bool = False  # it takes no torch

    @property
    def modules(self) -> Sequence[str]:
        """What a process loads before it is forked for this."""
        return LIGHT_MODULES if self.light else MODULES


# ------------------------------------------------------------------------------------------------------------ exporting


def _prepare_export(folder: Path, originals: Path) -> None:
    """A bundle of another width, with a file and a folder of somebody beside it."""
    shutil.copytree(originals / "bundle", folder / "b")
    (folder / "b" / "notes.txt").write_text("mine")
    (folder / "b" / "logs").mkdir()
    (folder / "b" / "logs" / "1.txt").write_text("mine too")
    shutil.copy(originals / "own.pt", folder / "own.pt")


def _bundle(folder: Path) -> Any:
    return below(tree(folder), "b")


def _old_or_new(folder: Path, before: Any, after: Any) -> str:
    now = _bundle(folder)
    # A folder of somebody's is moved before the exchange; killed in between, the next run gives it back, which is seen then.
    moved = {
        name.split("/", 1)[1]: content
        for name, content in tree(folder).items()
        if name.startswith(".b.partial-") and "/logs/" in name
    }
    if now in (before, after) or {**moved, **now} in (before, after):
        return ""
    return f"neither the old nor the new bundle: {sorted(now)}" if now else "no bundle"


EXPORT = Scenario(
    "export",
    ("slimexport", "--ckpt", "own.pt", "--widths", "0.25", "--image-size", "32", "--output-dir", "b", "--overwrite"),
    _prepare_export,
    _bundle,
    _old_or_new,
)


# -------------------------------------------------------------------------------------------------- training, searching


def _prepare_training(folder: Path, originals: Path) -> None:
    shutil.copy(originals / "config.yml", folder / "tiny.yml")


def _trained(folder: Path) -> Any:
    """The finished weights and the summary without times."""
    files = below(tree(folder), "run")
    rows = [row.split(b",")[:-2] for row in files.get("summary.csv", b"").splitlines()]
    return {name: content for name, content in files.items() if name in ("us_mobilenet_v1.pt", "best.pt")}, rows


def _whole_checkpoints(folder: Path, before: Any, after: Any) -> str:
    """Every checkpoint that has its name is a whole archive."""
    import zipfile

    for path in sorted(folder.rglob("*.pt")):
        if HIDDEN.search(str(path.relative_to(folder))):
            continue
        try:
            with zipfile.ZipFile(path) as archive:
                bad = archive.testzip()
        except (zipfile.BadZipFile, OSError) as error:
            return f"{path.name} is not whole: {error}"
        if bad:
            return f"{path.name}: {bad} is damaged"
    return ""


TRAIN = Scenario(
    "train",
    ("slimtrain", "train", "tiny.yml", "--resume", "auto", "--output-dir", "run", "--checkpoint-every", "2"),
    _prepare_training,
    _trained,
    _whole_checkpoints,
)


def _prepare_search(folder: Path, originals: Path) -> None:
    from tests.support.search_helpers import search_file

    search_file(folder / "tiny.yml", epochs=1, output_dir="run", image_size=32, search_targets=["2.8M", "1.8M"])
    shutil.copy(originals / "own.pt", folder / "own.pt")


def _searched(folder: Path) -> Any:
    """The plans, and the trace without times."""
    files = below(tree(folder), "found")
    plans = {name: content for name, content in files.items() if name.startswith("plans/")}
    rows = csv.DictReader(files.get("trace.csv", b"").decode().splitlines())
    return plans, [{key: text for key, text in row.items() if key != "seconds"} for row in rows]


SEARCH = Scenario(
    "search",
    ("slimtrain", "search", "tiny.yml", "--ckpt", "own.pt", "--output-dir", "found", "--resume", "auto"),
    _prepare_search,
    _searched,
    _whole_checkpoints,
)


# ----------------------------------------------------------------------------------------------------- measuring, serving


def _prepare_bench(folder: Path, originals: Path) -> None:
    """A bundle, and an earlier run, which is to be kept."""
    shutil.copytree(originals / "bundle", folder / "b")
    (folder / "measured").mkdir()
    shutil.copy(originals / "results.jsonl", folder / "measured" / "results.jsonl")


def _measured(folder: Path) -> Any:
    """Which files there are: figures differ from run to run."""
    return sorted(name for name in tree(folder) if name.endswith((".jsonl", ".csv", ".md")))[:3]


def _whole_lines(folder: Path, before: Any, after: Any) -> str:
    """The earlier run is there still, and of each file of results all lines but the last are whole."""
    files = {name: content for name, content in tree(folder).items() if name.endswith("results.jsonl")}
    if not any(b'"label":"1x"' in content for content in files.values()):
        return f"the earlier run is gone: {sorted(files)}"
    for name, content in files.items():
        for line in content.split(b"\n")[:-1]:
            try:
                json.loads(line)
            except ValueError:
                return f"{name}: a line is not whole"
    return ""


BENCH = Scenario(
    "benchmarks",
    (
        *("benchmarks", "b", "--backends", "onnxruntime-cpu", "--batches", "1", "--duration", "0.05", "--repeats", "2"),
        *("--warmup", "1", "--cache-mib", "1", "--output-dir", "measured", "--no-plots"),
    ),
    _prepare_bench,
    lambda folder: "report.md" in below(tree(folder), "measured"),
    _whole_lines,
)


def _prepare_triton(folder: Path, originals: Path) -> None:
    """A bundle of two files; what they hold is no question here."""
    from tests.support.bundle_helpers import artifact, manifest, with_file, write_manifest

    files = [with_file(folder / "b", artifact(f"net_x{width}".replace(".", "_"), width)) for width in (0.5, 1.0)]
    write_manifest(folder / "b", manifest(*files))


def _all_or_nothing(folder: Path, before: Any, after: Any) -> str:
    now = _repository(folder)
    return "" if now in (before, after) else f"a part of the repository: {sorted(now)}"


def _repository(folder: Path) -> Any:
    return below(tree(folder), "repository")


TRITON = Scenario(
    "serving",
    ("slimexport", "--bundle", "b", "--triton", "repository"),
    _prepare_triton,
    _repository,
    _all_or_nothing,
    once=True,
    light=True,
)

SCENARIOS = {one.name: one for one in (EXPORT, TRAIN, SEARCH, BENCH, TRITON)}
