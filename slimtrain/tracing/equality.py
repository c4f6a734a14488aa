"""The proof that a slimmable network is the user's module: at its widest plan both give the same, in float64.

It is part of making a network, so it is made cheap where that costs nothing of what it proves. Stored tensors are not copied
as a whole: `Stored` gives each operator its float64 ones while it runs. Where no constant of the graph holds the size of the
images, smaller ones will do, as long as every tap of every convolution still meets a place of its map: then every stored
number still counts in the output (`smaller.py`); and one image, unless the graph computes images with each other. What torch
is slow at in float64 has a way of its own (`doubles/products.py`). Whatever does not agree that way is compared once more, by
copies of both in float64 and with images of the example's size; only that decides that a network is another one.
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from slimtrain.base.errors import UserError
from slimtrain.graph.coupling import couples_images
from slimtrain.graph.graph import CONSTANT, Graph, Value
from slimtrain.groups.spec import GraphSpec
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.slimmable.norms import AFFINE, SwitchableNorm, UniversalNorm
from slimtrain.tracing.doubles import products
from slimtrain.tracing.exported import inputs_of
from slimtrain.tracing.outputs import tensors_of
from slimtrain.tracing.smaller import smaller

ROUNDING = 1e-9  # of the largest output: what float64 may differ by where sums run in another order
IN_FLOAT32 = 1e-4  # where float32 is all that the module computes in
CAST = 1e-5  # where the module itself computes something in float32, whatever its own numbers
OPEN = 0.625  # in the place of zeros: neither closes a branch whose share it is nor the other one, whose share is the rest

Outputs = Sequence[tuple[Tensor, Tensor]]  # of the module, of the network


class NotEqualError(UserError):
    """A network that does not compute at its widest what the module does."""

    exit_code = 1


@torch.no_grad()
def check_equal(network: SlimmableNetwork, module: nn.Module, example: Tensor | Sequence[Tensor]) -> None:
    """NotEqualError unless `network` at its widest plan gives what `module` gives, in float64, for random images (and the
    example's own other inputs, where the module takes several: regions must be some)."""
    spec = network.spec
    assert isinstance(spec, GraphSpec)
    tolerance = rounding_of(spec.graph)
    first, *others = inputs_of(example)
    if _agree(network, module, first, others, tolerance):
        return
    full = (len(first) if others else 2, *first.shape[1:])
    try:
        pairs = _of_copies(network, module, _drawn(spec.graph, first, others, full, torch.float64), torch.float64)
        if _largest(pairs) >= tolerance and _largest(pairs) < CAST:  # casts that do nothing in float32 are in no graph
            drawn = _drawn(spec.graph, first, others, full, torch.float32)
            tolerance, pairs = CAST, _of_copies(network, module, drawn, torch.float32)
    except (RuntimeError, TypeError, ValueError):  # a module that casts its images to float32 cannot run in float64
        drawn = _drawn(spec.graph, first, others, full, torch.float32)
        tolerance, pairs = IN_FLOAT32, _of_copies(network, module, drawn, torch.float32)
    compared = [name for name in _results(spec) if not name.startswith(spec.groups.policy.inner)]
    for result, (expected, output) in zip(compared, pairs, strict=True):
        error = _largest([(expected, output)])
        if not error < tolerance:
            raise NotEqualError(
                f"{network.spec.name}: at its widest plan {result} differs by {error:.1e} of its largest value from "
                f"what the module computes in float64, expected less than {tolerance:.0e}. Report it, with the module."
            )


def _agree(network: SlimmableNetwork, module: nn.Module, example: Tensor, others: Sequence[Tensor], tolerance: float) -> bool:
    """Whether both are seen to give the same without copies of them: on a small image, or on one of the example's size."""
    spec = network.spec
    assert isinstance(spec, GraphSpec)
    if any(t.dtype == torch.float64 for t in (*module.parameters(), *module.buffers())):
        return False  # which would be the module's own, in which it might write
    small = smaller(spec.graph, example.shape[2:]) if example.is_floating_point() and not others else None
    count = len(example) if others else 2 if couples_images(spec.graph) else 1
    whole = (count, *example.shape[1:])
    for shape in ([(count, example.shape[1], *small)] if small else []) + [whole]:
        with suppress(Exception):  # of a module that takes no such images, or that cannot be run this way
            pairs = _of_stored(network, module, _drawn(spec.graph, example, others, shape, torch.float64))
            if _says_something(pairs) and _largest(pairs) < tolerance:
                return True
    return False


def _largest(pairs: Outputs) -> float:
    """The largest difference, of the largest value of the same output."""
    errors = [0.0]
    for theirs, ours in pairs:
        expected, output = theirs.double(), ours.double()  # they may be masks, or numbers of classes
        finite = expected.isfinite()
        if not torch.allclose(expected[~finite], output[~finite], rtol=0, atol=0, equal_nan=True):
            return math.inf
        if finite.any():
            error = float((output - expected)[finite].abs().max() / expected[finite].abs().max().clamp(min=1e-30))
            if not math.isfinite(error):
                return math.inf
            errors.append(error)
    return max(errors)


def _says_something(pairs: Outputs) -> bool:
    """Whether every output of the module has a number that is finite."""
    return all(bool(theirs.isfinite().any()) for theirs, _ in pairs)


def _drawn(graph: Graph, example: Tensor, others: Sequence[Tensor], shape: Sequence[int], number: torch.dtype) -> list[Tensor]:
    """Random images, and the other inputs as they are."""
    return [_images(graph, example, shape, number), *(x.to(number) if x.is_floating_point() else x for x in others)]


def _images(graph: Graph, example: Tensor, shape: Sequence[int], number: torch.dtype) -> Tensor:
    """Random images; whole numbers below the sizes of what is looked up by them, or, where nothing is, the example's own."""
    generator = torch.Generator().manual_seed(0)
    if example.is_floating_point():
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(number)
    if example.dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=generator).bool()
    rows = _looked_up(graph)
    if rows:
        return torch.randint(0, rows, shape, generator=generator).to(example.dtype)
    return example[: shape[0]].expand(shape).clone() if example.numel() else torch.zeros(shape, dtype=example.dtype)


def _looked_up(graph: Graph) -> int:
    """Rows of the shortest table in which the graph looks up its input; 0 where there is none."""
    same = {Value(name) for name, _ in graph.inputs}  # what holds the input's own numbers
    rows = []
    for node in graph.nodes:
        if node.kind == "embedding" and node.arguments["indices"] in same:
            rows.append(graph.types[node.arguments["weight"]].shape[0])  # type: ignore[index]
        elif node.kind in ("to", "view", "reshape", "flatten", "unsqueeze", "squeeze") and node.inputs[0] in same:
            same.add(Value(node.name))
    return min((size for size in rows if isinstance(size, int)), default=0)


def _of_stored(network: SlimmableNetwork, module: nn.Module, images: Sequence[Tensor]) -> Outputs:
    """What both give in float64, while their stored tensors stay what they are."""
    widest = network.spec.widest
    # The plan from before comes back outside of `Stored`, in the numbers that it was active in.
    with _evaluating(network), network.at(widest), Stored(network, torch.float64), network.at(widest):
        output = network(*images)  # first: where the graph holds the size of its images, it stops here
    shared = [tensor for tensor in (*module.parameters(), *module.buffers()) if tensor.is_floating_point()]
    reference = _copied(module, shared).eval()
    with Stored(reference, torch.float64):
        return _pairs(network, reference(*images), output)


@contextmanager
def _evaluating(network: SlimmableNetwork) -> Iterator[None]:
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


def _of_copies(
    network: SlimmableNetwork, module: nn.Module, images: Sequence[Tensor], number: torch.dtype, opened: bool = True
) -> Outputs:
    """What copies of both give that hold `number`s, with `OPEN` in the place of zeros, if they give anything finite then."""
    try:
        reference, ours = _copied(module).to(number).eval(), copy.deepcopy(network).to(number).eval()
    except Exception as error:  # of whatever the module holds
        raise UserError(
            f"{network.spec.name}: the module cannot be copied ({type(error).__name__}: {error}), and the proof that the "
            "network is the module runs a copy. Free it of what cannot be copied, or leave the proof out with check=False."
        ) from error
    for parameter in (*zeros_of(reference), *zeros_of(ours)) if opened else ():
        parameter.fill_(OPEN)
    with ours.at(ours.spec.widest):
        pairs = _pairs(network, reference(*images), ours(*images))
    return pairs if not opened or _says_something(pairs) else _of_copies(network, module, images, number, opened=False)


def _pairs(network: SlimmableNetwork, theirs: object, ours: object) -> Outputs:
    """Inner outputs, whose channels stand in an order of their own, are seen in what reads them."""
    assert isinstance(network.spec, GraphSpec)
    rows = zip(_results(network.spec), tensors_of(theirs), tensors_of(ours), strict=True)
    pairs = [(a, b) for name, a, b in rows if not name.startswith(network.spec.groups.policy.inner)]
    if any(a.shape != b.shape for a, b in pairs):
        raise ValueError("the outputs have other shapes")
    return pairs


def _results(spec: GraphSpec) -> list[str]:
    """What its outputs are called."""
    return [name for name, _ in spec.graph.results]


def _copied(module: nn.Module, shared: Sequence[Tensor] = ()) -> nn.Module:
    """A copy of `module`, in which `shared` tensors are its own: what its forward pass keeps is none of the user's concern."""
    values = [value for part in module.modules() for value in vars(part).values()]
    kept = [value for value in values if isinstance(value, Tensor) and value.grad_fn is not None]  # of an earlier pass
    memo: dict[int, Any] = {id(tensor): tensor for tensor in shared} | {id(tensor): tensor.detach() for tensor in kept}
    # Ten of every module, which Python would otherwise take apart one by one.
    memo |= {id(value): type(value)() for value in values if type(value) in (dict, OrderedDict) and not value}
    return copy.deepcopy(module, memo)


class Stored(TorchFunctionMode):
    """Within the block every operator gets the floating-point parameters and buffers of `module` as `number`s: the module
    runs in them without holding them. Of parameters that are all zeros it gets `OPEN`. What `products` is quick at it computes
    from weights as they are stored."""

    def __init__(self, module: nn.Module, number: torch.dtype) -> None:
        super().__init__()
        self.number = number
        self.stored = {id(t) for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()}
        self.zeros = {id(t) for t in zeros_of(module) if t.is_floating_point()}

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func is DTYPE and id(args[0]) in self.stored:
            return self.number
        if func in DESCRIBING:
            return func(*args, **(kwargs or {}))
        if func in PRODUCTS and not kwargs:
            x, weight, *others = args
            x, others = self._converted(x), self._converted(others)
            if id(weight) not in self.stored or id(weight) in self.zeros:
                weight = self._converted(weight)
            compute = products.quick(x, weight, *others)
            if compute is not None:
                return compute(x, weight, *others)
            args = (x, weight, *others)
        return func(*self._converted(args), **self._converted(kwargs or {}))

    def _converted(self, argument: Any) -> Any:
        if isinstance(argument, Tensor):
            if id(argument) in self.zeros:
                return torch.full_like(argument, OPEN, dtype=self.number)
            return argument.to(self.number) if id(argument) in self.stored else argument
        if isinstance(argument, list | tuple):
            return type(argument)(map(self._converted, argument)) if type(argument) in (list, tuple) else argument
        return {name: self._converted(value) for name, value in argument.items()} if isinstance(argument, dict) else argument


def zeros_of(module: nn.Module) -> list[nn.Parameter]:
    """Its parameters that are all zeros; of a slimmable network those that the user's module has too."""
    own: set[int] = set()
    if isinstance(module, SlimmableNetwork):
        for norm in module.body.of_nodes.values():
            target = module.norms[norm.path]
            for holder in (target, *(target.bn if isinstance(target, SwitchableNorm | UniversalNorm) else ())):
                own |= {id(holder._parameters.get(entry)) for entry in AFFINE if entry not in norm.stored}
    return [parameter for parameter in module.parameters() if id(parameter) not in own and _is_zero(parameter)]


def _is_zero(tensor: Tensor) -> bool:
    """Whether all its numbers are 0; most tensors' first one says no."""
    return tensor.numel() > 0 and not tensor[(0,) * tensor.ndim] and not tensor.any()


PRODUCTS = (torch.conv2d, nn.functional.linear)
DTYPE: Callable[..., Any] = torch.Tensor.dtype.__get__  # type: ignore[attr-defined]
# What is asked of a tensor without reading its numbers.
DESCRIBING: frozenset[Any] = frozenset(
    {
        *(getattr(torch.Tensor, name).__get__ for name in ("shape", "device", "ndim", "requires_grad", "layout", "is_cuda")),
        *(torch.Tensor.size, torch.Tensor.dim, torch.Tensor.numel, torch.Tensor.is_floating_point),
    }
)


def rounding_of(graph: Graph) -> float:
    """What a graph and its module may differ by in float64: more where the module casts to float32, or makes numbers in it."""
    casts = any(node.kind in ("to", "arange", "linspace") for node in graph.nodes)
    numbers = any(p.kind == CONSTANT and p.type.dtype == "float32" for p in graph.parameters)
    return CAST if casts or numbers else ROUNDING
