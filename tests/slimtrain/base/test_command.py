"""What a command says and how it ends: one line and an exit code for a user's mistake, a traceback for a defect of ours."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import NoReturn

import click
import pytest
from click.testing import CliRunner, Result

from slimtrain.base.command import messages, script_messages
from slimtrain.base.errors import CommandError, ResourceError, TrainingError, UserError


def fails(error: BaseException) -> Callable[[], NoReturn]:
    def action() -> NoReturn:
        raise error

    return action


def run(action: Callable[[], object], interrupted: str = "interrupted.") -> Result:
    """A click command called `tool` that does `action`."""

    @click.command()
    def command() -> None:
        with messages("tool", interrupted):
            action()
            click.echo("done")

    return CliRunner().invoke(command, [])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("no such file."), 2),
        (TrainingError("diverged."), 1),
        (ResourceError("no GPU."), 3),
        (CommandError("it failed.", 7), 7),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_users_mistake_is_one_line_and_the_errors_exit_code(error: UserError, code: int) -> None:
    result = run(fails(error))
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", f"tool: {error}\n")


def test_what_goes_well_is_left_alone() -> None:
    result = run(lambda: None)
    assert (result.exit_code, result.output) == (0, "done\n")


def test_a_package_that_is_missing_is_a_lack_of_the_environment() -> None:
    result = run(fails(ModuleNotFoundError("No module named 'tqdm.auto'", name="tqdm.auto")))
    assert result.exit_code == 3 and result.stderr.startswith("tool: the package tqdm.auto is not installed")


def test_what_to_install_is_the_extra_that_brings_the_package() -> None:
    for module, extra in (("torch", "full"), ("yaml", "full"), ("PIL.Image", "target")):
        result = run(fails(ModuleNotFoundError(f"No module named {module!r}", name=module)))
        assert f"pip install 'slimmable-deploy[{extra}]'" in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["slimtrain.nothing", "slimexport", "benchmarks.nothing.at_all"])
def test_a_module_of_ours_that_is_missing_is_a_defect(name: str) -> None:
    error = ModuleNotFoundError(f"No module named {name!r}", name=name)
    assert run(fails(error)).exception is error


def test_a_defect_keeps_its_traceback() -> None:
    error = ValueError("not told by us")
    assert run(fails(error)).exception is error


def test_ctrl_c_ends_in_the_line_that_was_given() -> None:
    result = run(fails(KeyboardInterrupt()), "interrupted. Go on with --resume auto.")
    assert (result.exit_code, result.stderr) == (130, "tool: interrupted. Go on with --resume auto.\n")


def test_a_polite_kill_is_ctrl_c_and_the_former_handler_comes_back() -> None:
    handled: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: handled.append(number))
    try:
        assert run(lambda: signal.raise_signal(signal.SIGTERM)).exit_code == 130
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert handled == [signal.SIGTERM]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_in_a_destructor_ends_the_command_too(number: int) -> None:
    class Ended:
        def __del__(self) -> None:
            signal.raise_signal(number)
            time.sleep(0)

    def action() -> None:
        Ended()
        time.sleep(10)

    result = run(action)
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "tool: interrupted.\n")


def test_a_thread_that_may_set_no_handler_has_messages_too() -> None:
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.append(run(fails(UserError("wrong.")))))
    thread.start()
    thread.join()
    assert (results[0].exit_code, results[0].stderr) == (2, "tool: wrong.\n")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [(ResourceError("no GPU."), 3, "study: no GPU.\n"), (KeyboardInterrupt(), 130, "study: interrupted.\n")],
)
def test_a_script_that_is_no_click_command_ends_alike(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught, script_messages("study"):
        raise error
    assert caught.value.code == code and capsys.readouterr().err == line


def caused(error: UserError, cause: BaseException) -> UserError:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 3 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: Unable to allocate 3 GiB"),
        caused(UserError("a.pt: cannot be read."), MemoryError("Unable to allocate 3 GiB")),
    ],
)
def test_too_little_memory_is_a_lack_of_the_environment(error: BaseException) -> None:
    result = run(fails(error))
    assert result.exit_code == 3 and result.stderr.count("\n") == 1
    assert result.stderr.startswith("tool: too little memory (") and "Unable to allocate 3 GiB" in result.stderr


def test_a_command_says_what_takes_less_memory() -> None:
    @click.command("train")
    def command() -> None:
        with messages("slimtrain"):
            raise MemoryError

    result = CliRunner().invoke(command, [])
    assert "too little memory for train (MemoryError)." in result.stderr and "a smaller --batch-size" in result.stderr


def test_what_already_says_it_stays() -> None:
    result = run(fails(caused(ResourceError("the GPU has no room."), MemoryError())))
    assert (result.exit_code, result.stderr) == (3, "tool: the GPU has no room.\n")
