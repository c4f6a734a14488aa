"""README and docs: every command in them is run as it stands, on small data, by the substitutions that stand here; every
option that they name exists; every link leads somewhere."""

from __future__ import annotations

import configparser
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from PIL import Image

from benchmarks.cells.inputs import assumed_cache
from benchmarks.cli import choose, measure
from benchmarks.layers.command import command as channels
from benchmarks.load.command import command as load
from slimexport.cli import main as slimexport
from slimexport.target.runners import PROVIDERS
from slimexport.target.serving.runtime import Runtime
from slimtrain.base.packages import is_installed
from slimtrain.cli import main as slimtrain
from tests.support import ROOT
from tests.support.data_sets import write_cifar, write_classes, write_folders
from tests.support.http_serving import running
from tests.support.outcomes import Outcome, outcome_of
from tests.support.run_helpers import app_settings
from tests.support.search_helpers import search_file

DOCUMENTS = (
    *("README.md", "docs/own_network.md", "docs/guide.md", "docs/serving.md", "docs/reference.md", "docs/findings.md"),
    "docs/design.md",
)
RUN = ("README.md", "docs/guide.md", "docs/own_network.md", "docs/serving.md")
# `.ci/run` runs these: the whole installation, and the whole suite.
OF_CI = r"^python3 -m venv|^pip install"
SMALL = "--image-size 32 --workers 0 --device cpu"
ONE_STEP = "--batch-size 4 --set calibration_batches=1"
TRAINED = f"{SMALL} {ONE_STEP} --epochs 1 --set warmup_epochs=0 --set test_widths=[]"
NARROW = f"{TRAINED} --set width_range=[0.25,0.5]"
TESTED = f"--data-dir classes/ --set data=folder --set classes=1000 {SMALL} {ONE_STEP} --set test_batch_size=100"
CHANNELS = "--image-size 32 --points 2 --unit 512 --line 2 --duration 0.002 --no-plots"
MEASURED = "--duration 0.05 --warmup 0 --repeats 2 --cache-mib 1"
AUTO = "runs/autoslim_mobilenet_v2_found"
# What is run in a command's place, one after the other: small images and networks, few iterations; nothing is left out.
SUBSTITUTIONS = (
    (r"^torchrun --nproc-per-node=8 -m slimtrain ", "slimtrain "),  # tests/slimtrain/training/test_distributed.py starts it
    (r"^(slimexport --ckpt (?!runs/).*)", r"\1 --image-size 32"),
    (r"--data-dir /data/imagenet", "--data-dir imagenet/ --set data=folder"),
    (rf"{AUTO}/autoslim_mobilenet_v2.pt", f"{AUTO}/autoslim_mobilenet_v1.pt"),
    (r"^slimtrain search (digits|autoslim_mobilenet_v2).*", "slimtrain search tiny.yml"),
    (
        r"^slimtrain train autoslim_mobilenet_v2 .*--plans (\S+)",
        rf"slimtrain train tiny.yml --plans \1 --output-dir {AUTO}",
    ),
    (r"^(slimtrain train (?:us_mobilenet_v1|us_mobilenet_v1_cifar10) .*)", rf"\1 {NARROW}"),
    (r"^(slimtrain train finetune .*)", rf"\1 {TRAINED}"),
    (r"^(slimtrain train digits --model .*)", rf"\1 --set data=fake {TRAINED}"),
    (r"^(slimtrain train us_any .*)", rf"\1 {TRAINED.replace('[]', '[0.5]')}"),
    (r"^(slimtrain calibrate us_any .*)", r"\1 --device cpu --workers 0 --batch-size 4 --set calibration_batches=1"),
    (r"^(slimtrain search us_any .*)", r"\1 --device cpu --workers 0 --set search_groups=2"),
    (r"^(slimtrain (?:test|calibrate)) CONFIG (.*)", rf"\1 us_mobilenet_v1 \2 {TESTED}"),
    (r"^(slimtrain app:\S+)", rf"\1 {SMALL}"),
    (r"--bundle DIR", "--bundle exports/us_mobilenet_v1"),
    (r"^(slimexport .*--serve.*)", r"\1 --port 0"),
    (r"^slimbench channels (\S+)", rf"slimbench channels \1 {CHANNELS}"),
    (r"^(slimbench (?:choose )?exports.*)", rf"\1 {MEASURED}"),
    (r"--latency-ms 5", "--latency-ms 5000"),
    (r"^(slimbench load .*)--load 1.2", r"\1--rate 20 --seconds 0.5"),
)
# Exit codes other than 0, and why.
RTX = is_installed("tensorrt_rtx_bindings")
CODES = {
    "--format trt-rtx": 0 if RTX else 3,
    "--backend tensorrt-rtx": 3 if RTX else 2,  # no GPU here; no engine was built
    "--backend openvino": 0 if is_installed("openvino") else 3,
    "--format trt": 3,  # no TensorRT here
    "--backend onnxruntime-cuda": 3,  # no GPU here
}
COMMANDS: dict[str, click.Command] = {"slimtrain": slimtrain, "slimexport": slimexport, "slimbench": measure}
PARTS: dict[str, click.Command] = {"choose": choose, "channels": channels, "load": load}  # of slimbench
INLINE = re.compile(r"`((?:slimtrain|slimexport|slimbench)(?: [^`]+)+)`")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def commands_of(document: str) -> list[str]:
    """The commands of a document, each once: lines of blocks without a language, and whole commands within the text."""
    text = text_of(document)
    blocks = [line for language, block in FENCE.findall(text) if not language for line in block.splitlines()]
    inline = [
        match.replace("\n", " ") for match in INLINE.findall(FENCE.sub("", text)) if re.search("--|app:| groups ", match)
    ]
    return [line for line in dict.fromkeys((*blocks, *inline)) if not re.match(OF_CI, line)]


def python_of(document: str) -> list[str]:
    """The Python blocks of a document."""
    return [block for language, block in FENCE.findall(text_of(document)) if language == "python"]


def substituted(line: str) -> list[str]:
    for pattern, replacement in SUBSTITUTIONS:
        line = re.sub(pattern, replacement, line)
    return shlex.split(line)


def run(words: list[str]) -> Outcome:
    """A command in this process."""
    name, *arguments = words
    if name == "slimbench" and arguments[0] in PARTS:
        return outcome_of(PARTS[arguments[0]], f"slimbench {arguments[0]}", *arguments[1:])
    if name == "slimbench" and arguments == ["--list"]:
        from benchmarks.listing import listing

        return Outcome(0, listing(), "")
    return outcome_of(COMMANDS[name], name, *arguments)


def fill(folder: Path, checkpoint_path: Callable[[str], Path]) -> None:
    """What the documents' reader has: a published checkpoint, photographs in class folders, a data set, a published
    configuration."""
    (folder / "us_mbv1.pt").symlink_to(checkpoint_path("us_mobilenet_v1"))
    files = [f"{i}.jpg" for i in range(10)]
    for place in ("photos", "train", "imagenet/train", "imagenet/val"):
        write_classes(folder / place, ("ant", "bee"), files)
    Image.new("RGB", (50, 40), (200, 90, 0)).save(folder / "photo.jpg")
    app_settings(
        folder / "apps" / "us_mobilenet_v1_train_val.yml",
        dataset_dir="imagenet",
        num_classes=2,
        batch_size=4,
        log_dir="runs/app",
        width_mult_range=[0.25, 0.5],
        width_mult_list_test=[0.25, 0.5],
    )
    search_file(folder / "tiny.yml", output_dir="runs/autoslim_mobilenet_v2")
    write_folders(folder / "classes", classes=1000)
    write_cifar(folder / "cifar", "cifar10")
    (folder / "mynet.py").write_text(python_of("docs/own_network.md")[0])
    exec(python_of("docs/own_network.md")[2].replace("parser.pt", str(folder / "parser.pt")), {"__name__": "parser"})


@pytest.fixture(scope="module")
def places(checkpoint_path: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """A folder per document, in which its commands run one after the other, as a reader would."""
    threads = torch.get_num_threads()
    folders = {document: tmp_path_factory.mktemp("reader") for document in RUN}
    for folder in folders.values():
        (folder / "apps").mkdir()
        fill(folder, checkpoint_path)
    yield folders
    torch.set_num_threads(threads)


def test_the_page_on_detection_does_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    if not is_installed("faster_coco_eval"):
        pytest.skip("pip install '.[detection]'")
    (block,) = python_of("docs/detection.md")
    exec(block, {"__name__": "page"})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["x1_0", "x0_5"]


@pytest.mark.parametrize(("document", "line"), [(document, line) for document in RUN for line in commands_of(document)])
def test_a_command_does_what_the_document_says(
    document: str, line: str, places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(places[document])
    monkeypatch.syspath_prepend(str(places[document]))
    if "timm:" in line:
        pytest.importorskip("timm")
    if "--serve" in line:
        monkeypatch.setenv("XDG_CACHE_HOME", str(places[document] / "cache"))
        end_at_once(monkeypatch)
    with assumed_cache(2**14):  # of hundreds of layers each gets images that fill it
        outcome = run(substituted(line))
    expected = next((code for part, code in CODES.items() if part in line), 0)
    assert outcome.code == expected, (line, outcome)
    assert "Traceback" not in outcome.err


def end_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers begin, and end as soon as they listen."""
    server = pytest.importorskip("slimexport.target.serving.http.server", reason="pip install '.[serve]'").Server
    serve = server.run

    def begin_and_end(self: Any, sockets: Any) -> None:
        self.should_exit = True
        serve(self, sockets)

    monkeypatch.setattr(server, "run", begin_and_end)


def test_the_python_lines_of_serving_are_answered(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("slimexport.target.serving.http.app", reason="pip install '.[serve]'")
    pytest.importorskip("tritonclient.http", reason="pip install 'tritonclient[http]'")
    monkeypatch.chdir(places["docs/serving.md"])
    monkeypatch.setenv("XDG_CACHE_HOME", str(places["docs/serving.md"] / "cache"))
    assert run(shlex.split("slimexport --ckpt us_mbv1.pt --widths 0.5 --image-size 32 --output-dir exports/asked")).code == 0
    asking, alone = python_of("docs/serving.md")[:2]  # those for Ray run in tests/slimexport/target/serving/ray_app
    small = (("224", "32"), ("exports/us_mobilenet_v1", "exports/asked"), ("deadline_ms=20", "deadline_ms=600_000"))
    names: dict[str, Any] = {}
    with Runtime("exports/asked") as runtime, running(runtime) as server:
        exec(replaced(asking, *small, ("8000", str(server.port)), ("20_000", "600_000_000")), names)
        names["client"].close()
    assert (names["width"], names["logits"].shape) == (0.5, (1, 1000))
    exec(replaced(alone, *small), names)
    assert (names["answer"].width, names["answer"].output.shape) == (0.5, (1000,))


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        text = text.replace(old, new)
    return text


def test_the_python_lines_of_a_user_s_own_network_run() -> None:
    names: dict[str, object] = {}
    exec(python_of("docs/own_network.md")[1], names)
    dense, network = names["dense"], names["network"]
    assert isinstance(dense, torch.nn.Module) and isinstance(network, torch.nn.Module)
    assert sum(p.numel() for p in dense.parameters()) < 0.3 * sum(p.numel() for p in network.parameters())


def test_every_kind_of_command_is_among_them() -> None:
    """The test above would pass on documents without commands."""
    lines = [line for document in RUN for line in commands_of(document)]
    for start in (
        "slimexport --ckpt",
        "slimexport --bundle",
        "slimtrain train",
        "slimtrain search",
        "slimtrain app:",
        "slimbench",
    ):
        assert any(line.startswith(start) for line in lines), start
    assert len(lines) >= 25
    assert PROVIDERS, "the codes above are of a machine without a GPU"


# ------------------------------------------------------------------------------------------------------------- options


def options_of(command: click.Command) -> set[str]:
    names = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    if isinstance(command, click.Group):
        names |= {name for part in command.commands.values() for name in options_of(part)}
    return names


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_option_that_is_named_exists(document: str) -> None:
    known = {"--help", "--list", *(name for command in (*COMMANDS.values(), *PARTS.values()) for name in options_of(command))}
    others = {"--shm-size", "--nproc-per-node", "--no-deps"}  # docker's, torchrun's, pip's
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks" / "studies").rglob("*.py"))
    scripts = set(re.findall(r'add_argument\(\s*"(--[\w-]+)"', sources))
    codes = re.findall(r"`([^`]+)`", text_of(document))
    named = {name for code in codes for name in re.findall(r"(?<![\w-])--[a-z][\w-]*", code)}
    assert not named - known - others - scripts


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_extra_that_is_named_exists(document: str) -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert set(re.findall(r"'\.\[(\w+)\]'", text_of(document))) <= set(setup["options.extras_require"])


# --------------------------------------------------------------------------------------------------------------- links


def anchor(heading: str) -> str:
    """As GitHub makes them of headings."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(document)):
        if target.startswith("http"):
            continue
        name, _, heading = target.partition("#")
        path = (ROOT / document).parent / name if name else ROOT / document
        assert path.exists(), target
        if heading:
            assert heading in map(anchor, re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)), target


def test_readme_is_read_in_two_minutes() -> None:
    lines = text_of("README.md").splitlines()
    assert len(lines) <= 160
    assert not lines[2].startswith("`"), "what it is comes before the first command"
    first = next(block for language, block in FENCE.findall(text_of("README.md")) if not language)
    assert len(first.splitlines()) == 2, ".ci/run takes the first block's two lines"
