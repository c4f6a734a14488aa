"""A torch module as torch.export sees it: ATen operators in evaluation mode, for any batch."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import re
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import _lazy_graph_module

from slimtrain.base.errors import UserError
from slimtrain.graph.graph import Batch, Size
from slimtrain.tracing.untouched import untouched

# Images that a module is exported with: a prime, the first that no size of the module or its images is a multiple of, so that
# every size which is a multiple of it is known to count images. Nothing is computed with them, they are never touched.
BATCHES = (1009, 1013, 1019, 1021, 1031, 1033)


class NotExportable(UserError):
    """A module that torch cannot export, or whose graph nobody here can read."""

    exit_code = 2


def inputs_of(example: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The inputs of an example: one, or several."""
    return (example,) if isinstance(example, Tensor) else tuple(example)


def exported_program(module: nn.Module, example: Tensor | Sequence[Tensor]) -> ExportedProgram:
    """`module` on images like `example` [N, C, H, W] (any rank; N is of no account), in evaluation mode. Of several inputs the
    others have a number of rows for each image of the first: regions [N * 100, 5].

    NotExportable, with torch's reason and the line of the user's module, where it cannot be exported.
    """
    training = [part for part in module.modules() if part.training]
    module.eval()
    first, *others = inputs_of(example)
    batch = _batch(module, (first, *others))
    rows = [batch, *(batch * (other.shape[0] // first.shape[0]) for other in others)]
    given = tuple(untouched((n, *x.shape[1:]), x.dtype) for n, x in zip(rows, (first, *others), strict=True))
    try:
        with quiet(), uncollected(), unwritten(), torch.no_grad():
            return torch.export.export(module, given, strict=False)
    except Exception as error:
        raise NotExportable(export_refusal(module, (first, *others), error)) from error
    finally:
        for part in training:
            part.training = True


@contextmanager
def quiet() -> Iterator[None]:
    """Without what torch warns of, logs and prints about what it does inside: its error says it all."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the search for unused circles of objects, for which Python would look through all that torch has made so far,
    again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def unwritten() -> contextlib.AbstractContextManager[None]:
    """Without the Python code of graphs that nobody runs: torch writes it when it is asked for, where it knows how to wait."""
    lazily = getattr(_lazy_graph_module, "_use_lazy_graph_module", None)
    return lazily(True) if lazily else contextlib.nullcontext()


def _batch(module: nn.Module, inputs: Sequence[Tensor]) -> int:
    tensors = [*module.parameters(), *module.buffers(), *inputs]
    sizes = {size for tensor in tensors for size in tensor.shape if size}
    sizes |= {other.shape[0] // inputs[0].shape[0] for other in inputs[1:]}
    return next((batch for batch in BATCHES if all(size % batch for size in sizes)), BATCHES[0])


def size_of(number: int, batch: int) -> Size:
    """A size in a graph that was exported with `batch` images, as ours."""
    return Batch(number // batch) if number and number % batch == 0 else number


FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)\s*\n\s*(?P<code>[^\n]*)')
# Whose frames are of no account to a user: torch's, this package's, and what is no file.
OTHERS = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]), "<")


def user_line(trace: str) -> str:
    """The innermost line of a stack trace of the user's own code, as `resnet.py:93`; nothing where there is none."""
    frames = [match for match in FRAME.finditer(trace) if not match["file"].startswith(OTHERS)]
    return f"{Path(frames[-1]['file']).name}:{frames[-1]['line']}" if frames else ""


UNKNOWN_OUTPUT = re.compile(r"Found <class '(?P<type>[^']+)'> in output, which is not a known type")


def export_refusal(module: nn.Module, inputs: Sequence[Tensor], error: Exception) -> str:
    """What to say of a module that torch does not export: its own error where it does not take such images at all, else
    torch's reason, shortened, with the line of the module."""
    name, shape = type(module).__name__, " and ".join("x".join(map(str, x.shape[1:])) for x in inputs)
    own = _own_error(module, inputs)
    if own is not None:
        return (
            f"{name}: does not take inputs of {shape}{_at(own)}: {_reason(own)}. Expected a module of one batch of images; "
            "where it takes others, say so: --image-size, --set in_channels, or another `example`."
        )
    unknown = UNKNOWN_OUTPUT.search(str(error))
    if unknown is not None:
        kind = unknown["type"].rpartition(".")[2]
        return (
            f"{name}: gives out a {kind}, which torch does not look into. Expected tensors in dictionaries, tuples and lists, "
            f"or, of a dataclass, torch.export.register_dataclass({kind}) before it is exported."
        )
    zeros = ", ".join(f"torch.zeros({', '.join(map(str, x.shape))})" for x in _two(inputs))
    return (
        f"{name}: torch cannot export it for inputs of {shape}{_at(error)}: {_reason(error)}. Expected a module whose forward "
        "pass takes one batch of images and does not depend on their values (if, for, .item() on them); run "
        f"`torch.export.export(module, ({zeros},), strict=False)` for all that torch says."
    )


def _two(inputs: Sequence[Tensor]) -> list[Tensor]:
    """Zeros for two images."""
    images = inputs[0].shape[0] or 1
    return [torch.zeros((max(2 * x.shape[0] // images, 2), *x.shape[1:]), dtype=x.dtype) for x in inputs]


def _own_error(module: nn.Module, inputs: Sequence[Tensor]) -> Exception | None:
    """What the module raises by itself for such images; None where it takes them."""
    try:
        with quiet(), torch.no_grad():
            module(*_two(inputs))
    except Exception as error:
        return error
    return None


def _at(error: Exception) -> str:
    line = user_line("".join(traceback.format_tb(error.__traceback__)))
    return f", at {line}" if line else ""


def _reason(error: Exception) -> str:
    """The first line of an error, without the number of images that nobody gave."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[0] if lines else type(error).__name__
    return re.sub(rf"\b({'|'.join(map(str, BATCHES))})\b", "batch", reason)[:200].rstrip(".! ")
