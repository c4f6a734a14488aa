"""Several processes on one machine, as `torchrun` sets them up, talking over gloo."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from slimtrain.cli import main
from slimtrain.training.distributed import Processes, processes

LIMIT_S = 240.0
# A fork server imports torch once for all processes of all tests; forking this one would take its threads' locks along.
METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def prepared() -> Any:
    """A context whose processes start with torch loaded, where the system can fork."""
    context = multiprocessing.get_context(METHOD)
    if METHOD == "forkserver":
        context.set_forkserver_preload(["torch", "pytest", "slimtrain.training.run"])
    return context


def started_command(*words: str | Path, cwd: Path) -> BaseProcess:
    """`python -m slimtrain WORDS` in a folder and a process of its own, quiet: for tests that kill it."""
    process: BaseProcess = prepared().Process(target=_command, args=(cwd, [str(word) for word in words]), daemon=True)
    process.start()
    return process


def _command(cwd: Path, words: list[str]) -> None:
    os.chdir(cwd)
    torch.set_num_threads(1)  # as the tests have it: sums depend on it
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # as long as the process
    main(words)


def in_processes(world: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `function(processes, *arguments)` returns in each of `world` processes, by rank. It is a module's own function.

    AssertionError, with the traceback, where one of them fails, and where they do not end.
    """
    context = prepared()
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{rank}.pt") for rank in range(world)]
        started = [
            context.Process(target=_child, args=(rank, world, port, path, function, arguments), daemon=True)
            for rank, path in enumerate(paths)
        ]
        try:
            for process in started:
                process.start()
            for process in started:
                process.join(LIMIT_S)
        finally:
            for process in started:
                if process.is_alive():
                    process.kill()
        missing = [rank for rank, path in enumerate(paths) if not path.exists()]
        assert not missing, f"processes {missing} ended without a result, or not within {LIMIT_S:g} s"
        results = [torch.load(path, weights_only=False) for path in paths]
    failures = [text for text, _ in results if text]
    assert not failures, "\n".join(failures)
    return [result for _, result in results]


def _child(rank: int, world: int, port: int, path: Path, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    values = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({key: str(value) for key, value in values.items()})
    torch.set_num_threads(1)
    failure, result = "", None
    try:
        with processes("cpu") as joined:
            result = function(joined, *arguments)
    except BaseException:
        failure = f"process {rank}: {traceback.format_exc()}"
    whole = path.with_suffix(".part")
    torch.save((failure, result), whole)
    whole.rename(path)


class CountingAllReduce:
    """Counts calls of `torch.distributed.all_reduce` within a `with` block; `sizes` are the tensors' lengths."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __enter__(self) -> CountingAllReduce:
        self.original = dist.all_reduce

        def counting(tensor: torch.Tensor, *arguments: Any, **options: Any) -> Any:
            self.sizes.append(tensor.numel())
            return self.original(tensor, *arguments, **options)

        dist.all_reduce = counting
        return self

    def __exit__(self, *exception: object) -> None:
        dist.all_reduce = self.original


def alone() -> Processes:
    """The one process of an ordinary run."""
    return Processes(0, 1, torch.device("cpu"))
