"""torch as it begins, whatever a program around has told it: so that what is made here is a matter of what it is made of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

DEVICES = ("cpu", "cuda")


@contextmanager
def uncast() -> Iterator[None]:
    """Within the block nothing is cast by itself."""
    with ExitStack() as stack:
        for device in DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def ordinary_torch(*, numbers: bool = True) -> Iterator[None]:
    """Within the block, which may decorate a function: tensors are made on the CPU, in float32, nothing is cast by itself, and
    gradients can be taken. Without `numbers` torch's number type stays, for a user's module that makes tensors of it."""
    with ExitStack() as stack:
        if numbers and (usual := torch.get_default_dtype()) != torch.float32:
            torch.set_default_dtype(torch.float32)
            stack.callback(torch.set_default_dtype, usual)
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(uncast())
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if not torch.is_grad_enabled():
            stack.enter_context(torch.enable_grad())
        yield
