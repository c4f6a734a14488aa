"""A torch module as torch.export sees it: ATen operators in evaluation mode, for any batch."""

from __future__ import annotations

import logging
import re
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from slimtrain.base.errors import UserError
from slimtrain.graph.graph import Batch, Size

# Images that a module is exported with: a prime that no channel count, window or image side is a multiple of, so that every
# size which is a multiple of it is known to count images. Nothing is computed with them, they are never touched.
TRACING_BATCH = 1009


class NotExportable(UserError):
    """A module that torch cannot export, or whose graph nobody here can read."""

    exit_code = 2


def exported_program(module: nn.Module, example: Tensor) -> ExportedProgram:
    """`module` on images like `example` [N, C, H, W] (any rank; N is of no account), in evaluation mode.

    NotExportable, with torch's reason and the line of the user's module, where it cannot be exported.
    """
    training = [part for part in module.modules() if part.training]
    module.eval()
    images = torch.empty((TRACING_BATCH, *example.shape[1:]), dtype=example.dtype)
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(module, (images,), strict=False)
    except Exception as error:
        raise NotExportable(export_refusal(module, example, error)) from error
    finally:
        for part in training:
            part.training = True


@contextmanager
def quiet() -> Iterator[None]:
    """Without torch's warnings about what it does inside."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def size_of(number: int) -> Size:
    """A size in an exported graph, as ours."""
    return Batch(number // TRACING_BATCH) if number and number % TRACING_BATCH == 0 else number


FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)\s*\n\s*(?P<code>[^\n]*)')
TORCH = str(Path(torch.__file__).parent)


def user_line(trace: str) -> str:
    """The innermost line of a stack trace that is not torch's own, as `resnet.py:93`; nothing where all of it is torch's."""
    frames = [match for match in FRAME.finditer(trace) if not match["file"].startswith((TORCH, "<"))]
    return f"{Path(frames[-1]['file']).name}:{frames[-1]['line']}" if frames else ""


def export_refusal(module: nn.Module, example: Tensor, error: BaseException) -> str:
    """What to say of a module that torch does not export: torch's reason, shortened, and the line of the module."""
    name = type(module).__name__
    line = user_line("".join(traceback.format_tb(error.__traceback__)))
    reason = next((text.strip() for text in str(error).splitlines() if text.strip()), type(error).__name__)
    shape = "x".join(map(str, example.shape[1:]))
    zeros = f"torch.zeros({', '.join(map(str, (2, *example.shape[1:])))})"
    return (
        f"{name}: torch cannot export it for inputs of {shape}{f', at {line}' if line else ''}: {reason[:200]}. Expected a "
        "module whose forward pass takes one batch of images and does not depend on their values (if, for, .item() on "
        f"them); run `torch.export.export(module, ({zeros},), strict=False)` for all that torch says."
    )
