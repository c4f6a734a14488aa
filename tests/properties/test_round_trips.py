"""What is written is read as it was: manifests, configurations, results, checkpoints."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.cells.cell import INTERRUPTED, MEASURED, NOT_MEASURED, Cell, Result, Round
from benchmarks.cells.records import Records, json_line, read_records
from slimexport.target.manifest import SCHEMA_VERSION, Manifest, dump_manifest, read_manifest
from slimexport.target.records import EXTRA, Record, Within, from_json, to_json
from slimtrain.base.errors import UserError
from slimtrain.base.image_size import ImageSize
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.checkpoints.own_layout import own_content
from slimtrain.checkpoints.writing import save
from slimtrain.config.config import Config, dump_config
from slimtrain.config.reading import TYPES, make_config, read_config
from tests.properties.cases import Case, cases, modules, published_cases
from tests.properties.counting import counted

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers(-(2**70), 2**70)
floats = st.floats(allow_nan=False, allow_infinity=False)
sizes = st.one_of(st.integers(1, 4096), st.tuples(st.integers(1, 4096), st.integers(1, 4096)).filter(lambda s: s[0] != s[1]))
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, floats, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=5,
)


# -------------------------------------------------------------------------------------------------------- manifests


def within(kind: type, limits: Within) -> st.SearchStrategy[Any]:
    """Numbers of a range, or texts of so many letters."""
    if kind is str:
        letters = st.characters(exclude_categories=["Cs"])
        return st.text(letters, min_size=int(limits.least), max_size=min(20, int(limits.most)))
    if kind is int:
        return st.integers(int(limits.least), int(limits.most))
    return st.floats(limits.least, limits.most, allow_nan=False)


def values_of(expected: Any) -> st.SearchStrategy[Any]:
    """Any value of a record's type."""
    if expected == ImageSize:
        return sizes
    if typing.get_origin(expected) is Annotated:
        kind, limits = typing.get_args(expected)
        return within(kind, limits)
    if expected is Any:
        return plain
    if typing.get_origin(expected) in (typing.Union, types.UnionType):
        return st.one_of(*(values_of(part) for part in typing.get_args(expected)))
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin is tuple:
        parts = values_of(arguments[0])
        if arguments[-1] is Ellipsis:
            return st.lists(parts, max_size=3).map(tuple)
        return st.tuples(*[parts] * len(arguments))
    if origin is Mapping:
        return st.dictionaries(texts, values_of(arguments[1]), max_size=3)
    if isinstance(expected, type) and issubclass(expected, Record):
        return records(expected)
    return {str: texts, int: numbers, float: floats, bool: st.booleans(), type(None): st.none()}[expected]


def records(kind: type[Record]) -> st.SearchStrategy[Any]:
    """Any record of a kind, with keys that nobody knows."""
    hints = typing.get_type_hints(kind, include_extras=True)
    known = {f.name: values_of(hints[f.name]) for f in dataclasses.fields(kind) if f.name != EXTRA}
    extra = st.dictionaries(texts.filter(lambda key: key not in known), plain, max_size=2)
    return st.builds(kind, **known, extra=extra)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Any manifest whose parts fit each other."""
    manifest = draw(records(Manifest))
    channels, classes = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    positive = st.lists(st.floats(1e-6, 10), min_size=channels, max_size=channels).map(tuple)
    image = dataclasses.replace(manifest.input, channels=channels, mean=draw(positive), std=draw(positive), shape=None)
    names = draw(st.none() | st.lists(texts, min_size=classes, max_size=classes).map(tuple))
    output = dataclasses.replace(manifest.output, classes=classes, class_names=names)
    return dataclasses.replace(manifest, schema_version=SCHEMA_VERSION, input=image, output=output, outputs=())


@given(records(Manifest))
def test_any_record_is_read_as_it_was_written(manifest: Manifest) -> None:
    with counted("records: written and read"):
        content = json.loads(json.dumps(to_json(manifest), allow_nan=False))
        again = from_json(Manifest, content)
        assert again == manifest and to_json(again) == to_json(manifest)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("round_trips")


@given(manifests())
def test_a_manifest_is_read_as_it_was_written(folder: Path, manifest: Manifest) -> None:
    with counted("manifests: written and read"):
        (folder / "manifest.json").write_text(dump_manifest(manifest), encoding="utf-8")
        again = read_manifest(folder)
        assert again == manifest
        assert dump_manifest(again) == dump_manifest(manifest)


# ---------------------------------------------------------------------------------------------------- configurations


def settings_of(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a configuration's type, likely ones among them."""
    if kind == ImageSize:
        return sizes
    if isinstance(kind, types.GenericAlias):
        return st.lists(settings_of(typing.get_args(kind)[0]), max_size=3).map(tuple)
    if isinstance(kind, types.UnionType):
        return st.one_of(*map(settings_of, typing.get_args(kind)))
    words = st.one_of(
        texts, st.sampled_from(("1e5", "0.5", "true", "null", "~", "", "a,b", "[1]", "0x10", "2026-01-01", "1_0"))
    )
    numbers = st.one_of(st.integers(0, 4), st.integers(0, 2**31 - 1))
    shares = st.one_of(st.floats(0, 1), st.sampled_from((1e-5, 0.1, 1.0)))
    return {int: numbers, float: shares, bool: st.booleans(), str: words, types.NoneType: st.none()}[kind]


@st.composite
def configurations(draw: st.DrawFn) -> Config | None:
    """A configuration with a few keys of any values; None where these contradict each other."""
    names = draw(st.lists(st.sampled_from(sorted(TYPES)), max_size=5, unique=True))
    changes = {name: draw(settings_of(TYPES[name])) for name in names if name != "network"}
    network = draw(st.sampled_from(("us_mobilenet_v1", "s_resnet50", "us_mobilenet_v2")))
    try:
        return Config(network, **changes)
    except UserError:
        return None


@given(configurations())
def test_a_configuration_is_read_as_it_was_written(folder: Path, config: Config | None) -> None:
    with counted("configurations: written and read"):
        if config is None:
            raise UserError("refused")
        path = folder / "config.yml"
        path.write_text(dump_config(config), encoding="utf-8")
        again = read_config(str(path))
        assert dataclasses.replace(again, output_dir=config.output_dir) == config  # which it is given where it has none
        assert make_config(dataclasses.asdict(config), "values") == config


# ----------------------------------------------------------------------------------------------------------- results

positive = st.integers(1, 2**40)
cells = st.builds(
    Cell,
    *[texts] * 4,
    st.one_of(st.none(), st.floats(0.01, 4), st.integers(1, 9)),
    *[texts] * 4,
    batch=positive,
    image_size=sizes,
    macs=positive,
    params=positive,
    size_bytes=positive,
    activations=st.none() | positive,
    layers=st.none() | positive,
    accuracy=st.none() | st.fixed_dictionaries({"top1": st.floats(0, 1), "images": positive, "data": texts}),
    channels=st.integers(1, 16),
)
samples = st.dictionaries(st.sampled_from(("wall", "device")), st.lists(st.floats(0, 1e9), min_size=1, max_size=3), min_size=1)
rounds = st.builds(Round, samples, st.dictionaries(texts, plain, max_size=2))
results = st.builds(
    Result,
    cells,
    st.sampled_from((MEASURED, INTERRUPTED, NOT_MEASURED)),
    texts,
    st.lists(rounds, max_size=2).map(tuple),
    st.dictionaries(texts, plain, max_size=2),
    st.lists(texts, max_size=2).map(tuple),
    st.integers(0, 3),
)


@given(
    st.lists(results, max_size=3, unique_by=lambda result: json.dumps(result.cell.name)),
    st.dictionaries(texts, plain, max_size=2),
)
def test_results_are_read_as_they_were_written(folder: Path, given_results: list[Result], settings: Mapping[str, Any]) -> None:
    with counted("results: written and read"):
        path = folder / "results.jsonl"
        path.unlink(missing_ok=True)
        with Records(path) as file:
            file.run("command", {}, settings)
            for result in given_results:
                file.add(result)
            file.end({}, 1.0)
        recorded = read_records(path)
        assert recorded.run["settings"] == settings and recorded.end is not None and not recorded.note
        assert [json_line(result.as_dict()) for result in recorded.results] == [json_line(r.as_dict()) for r in given_results]
        assert list(recorded.results) == given_results


# ------------------------------------------------------------------------------------------------------- checkpoints


def checkpoints_are_saved_and_loaded(case: Case, folder: Path) -> None:
    """Saved, loaded and saved again: the same bytes, and a network that computes the same."""
    path = folder / "network.pt"
    spec, size = case.spec, case.source.image_size
    statistics = (0.5,) * spec.in_channels
    names = tuple(f"class {number}" for number in range(spec.classes))

    def content(network: Any) -> Any:
        return own_content(network, size, statistics, statistics, names, settings={"seed": 3})

    save(content(case.network), path)
    checkpoint = open_checkpoint(path)
    assert checkpoint.spec == spec and checkpoint.image_size == size and checkpoint.class_names == names
    assert checkpoint.mean == checkpoint.std == statistics and checkpoint.network.known_plans == case.network.known_plans
    x = case.images(2, torch.float32)
    for ours, theirs in zip(tensors(case.run(x, checkpoint.network)), tensors(case.run(x, case.network)), strict=True):
        assert torch.equal(ours, theirs)
    again = folder / "again.pt"
    save(content(checkpoint.network), again)
    assert again.read_bytes() == path.read_bytes()


def tensors(result: Any) -> list[torch.Tensor]:
    return [result] if isinstance(result, torch.Tensor) else list(result.values())


@given(cases(published_cases()))
def test_a_published_network_s_checkpoint(folder: Path, case: Case) -> None:
    with counted("published: checkpoints saved, loaded, saved"):
        checkpoints_are_saved_and_loaded(case, folder)


@given(cases(modules))
def test_a_traced_network_s_checkpoint(folder: Path, case: Case) -> None:
    with counted("traced: checkpoints saved, loaded, saved"):
        checkpoints_are_saved_and_loaded(case, folder)
