"""Files of text: results, configurations, latency tables, plan files, traces of searches."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from random import Random
from typing import Any

from tests.soak.hostile import damaged_bytes, damaged_value, hostile, how_often, spelled
from tests.soak.kinds.kind import Case, WrongResultError
from tests.soak.originals import PLAN_SIZE


def write_json(draw: Random, path: Path, value: Any, **layout: Any) -> None:
    """A damaged value as JSON, whose writer may be left with texts that are none."""
    path.write_bytes(spelled(json.dumps(value, **layout)).encode("utf-8", "surrogatepass"))


class TextKind:
    """What they have in common: the whole file's bytes, damaged half of the time as bytes, else as values."""

    name = ""
    file = ""

    def open(self, originals: Path) -> None:
        self.originals = originals
        self.content = (originals / self.file).read_bytes()

    def damage(self, draw: Random, folder: Path) -> Case:
        path = folder / Path(self.file).name
        if draw.random() < 0.4:
            times = how_often(draw)
            path.write_bytes(damaged_bytes(draw, self.content, times))
            return Case(path, f"bytes changed in {times} places")
        times = how_often(draw)
        self.write_damaged(draw, path, times)
        return Case(path, f"values changed in {times} places")

    def write_damaged(self, draw: Random, path: Path, times: int) -> None:
        write_json(draw, path, damaged_value(draw, json.loads(self.content), times), indent=1)


class ResultsKind(TextKind):
    name = "results.jsonl"
    file = "results.jsonl"
    right = "report, comparison and choice come to an end; what is written of it reads back as the same"

    def write_damaged(self, draw: Random, path: Path, times: int) -> None:
        lines = damaged_value(draw, [json.loads(line) for line in self.content.splitlines()], times)
        lines = list(lines.values()) if isinstance(lines, dict) else lines
        text = "\n".join(json.dumps(line) for line in (lines if isinstance(lines, list) else [lines]))
        path.write_bytes((spelled(text) + "\n").encode("utf-8", "surrogatepass"))

    def judge(self, case: Case) -> None:
        from benchmarks.cells.records import Records, read_records, write_csv
        from benchmarks.report.choose import choose, sentences
        from benchmarks.report.compare import compare, differences, table
        from benchmarks.report.document import console, report

        recorded = read_records(case.path)
        texts = [report(recorded), console(recorded), table(compare(recorded, recorded))]
        texts += [*differences(recorded.run, recorded.run), *sentences(choose(recorded.results, 3.0, 50))]
        "\n".join(texts).encode()
        write_csv(case.path.with_name("results.csv"), recorded.results)
        again = case.path.with_name("again.jsonl")
        with Records(again) as records:
            records.run(*(recorded.run.get(key, {}) for key in ("command", "environment", "settings", "ceilings")))
            for result in recorded.results:
                records.add(result)
        if read_records(again).results != recorded.results:
            raise WrongResultError("what was read is not what is written of it")

    def command(self, case: Case, folder: Path) -> list[str]:
        bundle = str(self.originals / "bundle")
        return ["benchmarks", "choose", bundle, "--latency-ms", "3", "--results", str(case.path)]


SNIPPETS = (
    "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{c}: &{c} [{','.join(f'*{p}' for _ in range(9))}]\n" for p, c in zip("abcdefghi", "bcdefghij", strict=True)),
    "a: &a {self: *a}\n",
    "lr: !!python/object/apply:os.system ['true']\n",
    "lr: !include /dev/zero\n",
    "lr: !include config.yml\n",
    "<<: *nothing\n",
    "<<: [{lr: 1}, {lr: 2}, 3]\n",
    "? [a, b]\n: 1\n",
    "? {a: b}\n: 1\n",
    "lr: 0x" + "f" * 20_000 + "\n",
    "lr: " + "9" * 20_000 + "\n",
    "lr: " + ":".join(["59"] * 3000) + "\n",
    "lr: 1e99999\n",
    "lr: " + "[" * 10_000 + "]" * 10_000 + "\n",
    "lr: " + "- " * 5000 + "1\n",
    "epochs: 2026-11-26\n",
    "epochs: 2026-99-99\n",
    "epochs: 9999999999-01-01 99:99:99\n",
    "data: !!set {a, b}\n",
    "data: !!binary not+base64=\n",
    "data: !!omap [a, b]\n",
    "data: !!float x\n",
    "data: !!int x\n",
    "data: !!timestamp x\n",
    "data: !!map [a]\n",
    "data: !!seq {a: b}\n",
    "data: !!null x\n",
    "data: !!bool x\n",
    "---\nlr: 1\n---\nlr: 2\n",
    "%YAML 9.9\n---\nlr: 1\n",
    "lr: .nan\n",
    "lr: -.inf\n",
    "epochs: .inf\n",
    "\ufeff\ufffe\n",
    "\x00\n",
    'lr: "\\ud800"\n',
    "network: " + "a" * 100_000 + "\n",
    "a" * 100_000 + ": 1\n",
    "width_range: [" + "0.5," * 100_000 + "0.5]\n",
    "width_range: [1.0e-308, 1.0e+308]\n",
    "image_size: 1000000000000\n",
    "epochs: 1000000000000000000\n",
    "batch_size: 1000000000000000000\n",
    "switches: [1.0e+308]\n",
    "classes: 1000000000000\n",
)


class YamlKind(TextKind):
    """YAML: values are written by its writer, and lines are put in that no writer writes."""

    def write_damaged(self, draw: Random, path: Path, times: int) -> None:
        import yaml

        value, lines = yaml.safe_load(self.content), []
        for _ in range(times):
            if draw.random() < 0.2:
                lines.append(draw.choice(SNIPPETS))
            elif draw.random() < 0.3 and isinstance(value, dict):
                value[self.any_key(draw)] = hostile(draw)
            else:
                value = damaged_value(draw, value)
        # JSON is YAML, but for a few spellings: values of 5,000 digits come through it
        text = yaml.safe_dump(value, allow_unicode=True) if draw.random() < 0.5 else spelled(json.dumps(value)) + "\n"
        if lines and text.startswith("{"):
            text = yaml.safe_dump(value, allow_unicode=True)
        parts = [text, *lines]
        draw.shuffle(parts)
        path.write_bytes("".join(parts).encode("utf-8", "surrogatepass"))

    def any_key(self, draw: Random) -> str:
        return draw.choice(("channels", "network", "name", "macs", "image_size"))


class ConfigKind(YamlKind):
    name = "yaml"
    file = "config.yml"
    right = "what is written of the configuration reads back as the same, and its network has a specification"

    def any_key(self, draw: Random) -> str:
        from slimtrain.config.config import KEYS

        return draw.choice(sorted(KEYS))

    def judge(self, case: Case) -> None:
        from slimtrain.config.config import dump_config
        from slimtrain.config.reading import read_config
        from slimtrain.tracing.starting import spec_of

        config = read_config(str(case.path))
        again = case.path.with_name("again.yml")
        again.write_text(dump_config(config))
        if (second := read_config(str(again))) != config:
            raise WrongResultError(f"{second} is read of what is written of {config}")
        if not config.model and config.classes not in (None, 0):
            spec_of(config, config.known_classes or 10, None)
        elif not config.model:
            spec_of(config, 10, None)

    def command(self, case: Case, folder: Path) -> list[str]:
        return ["slimtrain", "train", str(case.path), "--dry-run", "--set", f"output_dir={folder / 'run'}"]


class PlanKind(YamlKind):
    name = "plan files"
    file = "plan.yml"
    right = "every group has whole channels of those that the network may have, and the plan can be counted"

    def judge(self, case: Case) -> None:
        from slimtrain.costs.cost import CostCounter
        from slimtrain.models.plan_file import read_plan_file, written_macs
        from tests.support.run_helpers import US1

        plan = read_plan_file(case.path, US1)
        written_macs(case.path)
        widest = US1.widest.channels
        if plan.channels.keys() != widest.keys():
            raise WrongResultError(f"groups {list(plan.channels)}")
        for group, count in plan.channels.items():
            if type(count) is not int or not 1 <= count <= widest[group]:
                raise WrongResultError(f"{group}: {count!r}")
        CostCounter(US1, PLAN_SIZE)(plan)

    def command(self, case: Case, folder: Path) -> list[str]:
        words = ["--ckpt", str(self.originals / "own.pt"), "--channels", str(case.path), "--output-dir", str(folder / "b")]
        return ["slimexport", *words, "--no-verify"]


class TableKind(TextKind):
    name = "latency tables"
    file = "latency_table.json"
    right = "the cost of a plan is a finite number of milliseconds, and what is written of the table reads back as the same"

    def judge(self, case: Case) -> None:
        from slimtrain.costs.latency_table import read_latency_table, write_latency_table
        from tests.support.run_helpers import US1

        table = read_latency_table(case.path, US1, PLAN_SIZE)
        table.describe().encode()
        cost = table.cost_ms(US1.widest)
        if not math.isfinite(cost) or cost < 0:
            raise WrongResultError(f"{cost} ms")
        again = case.path.with_name("again.json")
        write_latency_table(again, table)
        if read_latency_table(again) != table:
            raise WrongResultError("what was read is not what is written of it")

    def command(self, case: Case, folder: Path) -> list[str]:
        words = ["search", str(self.originals / "config.yml"), "--cost", "latency", "--latency-table", str(case.path)]
        targets = ["--targets", "1", "--ckpt", str(self.originals / "own.pt"), "--set", f"output_dir={folder / 'run'}"]
        return ["slimtrain", *words, *targets, "--set", f"image_size={PLAN_SIZE}"]


class TraceKind:
    name = "search traces"
    right = "steps count from 1, all numbers are finite, and what is written anew reads back as the same"
    files = ("search.json", "trace.csv", "candidates.csv")

    def open(self, originals: Path) -> None:
        self.originals = originals
        self.contents = {name: (originals / "trace" / name).read_bytes() for name in self.files}

    def damage(self, draw: Random, folder: Path) -> Case:
        chosen, times = draw.choice(self.files), how_often(draw)
        contents = dict(self.contents)
        if draw.random() < 0.5:
            contents[chosen] = damaged_bytes(draw, contents[chosen], times)
        elif chosen == "search.json":
            value = damaged_value(draw, json.loads(contents[chosen]), times)
            contents[chosen] = spelled(json.dumps(value)).encode("utf-8", "surrogatepass")
        else:
            rows = damaged_value(draw, list(csv.reader(io.StringIO(contents[chosen].decode()))), times)
            text = io.StringIO()
            rows = [row if isinstance(row, list) else [row] for row in (rows if isinstance(rows, list) else [rows])]
            csv.writer(text, lineterminator="\n").writerows(rows)
            contents[chosen] = text.getvalue().encode("utf-8", "surrogatepass")
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        return Case(folder, f"{chosen} changed in {times} places")

    def judge(self, case: Case) -> None:
        from slimtrain.search.trace import Trace, read_trace

        identity = json.loads(self.contents["search.json"])
        trace = Trace(case.path, resume=True)
        trace.begin(identity)
        if [step.step for step in trace.steps] != list(range(1, len(trace.steps) + 1)):
            raise WrongResultError("steps do not count from 1")
        for step in trace.steps:
            numbers = [value for key, value in vars(step).items() if isinstance(value, int | float) and "loss" not in key]
            if not all(map(math.isfinite, numbers)):  # a loss may be infinite, or none
                raise WrongResultError(f"not finite: {step}")
        if repr(read_trace(case.path)) != repr(trace.steps):
            raise WrongResultError("what was read is not what is written anew")

    def command(self, case: Case, folder: Path) -> list[str]:
        words = ["search", str(self.originals / "config.yml"), "--resume", "auto", "--targets", "700K"]
        return ["slimtrain", *words, "--ckpt", str(self.originals / "own.pt"), "--set", f"output_dir={case.path}"]
