"""Calling an answer and writing down what it does, as plain data: tensors, numbers, texts, lists."""

import random
import re
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, allclose, get_rng_state, nn
from torch._C import DisableTorchFunctionSubclass

# Bound here, so that an answer which replaces `torch.allclose` or makes a tensor lie about itself changes nothing.
as_it_is = Tensor.detach, Tensor.clone, Tensor.as_subclass, Tensor.tolist
UNLIKELY_SEED = 904_625_697  # one that no answer sets itself: setting it again would leave no trace
Case = dict[str, Any]  # the arguments of one trial: tensors, numbers, texts
Observation = dict[str, Any]  # what the answer did in one trial, by name


@dataclass(frozen=True)
class Raised:
    """An exception as data: the names of its class and bases, its message, and the line of the answer."""

    kinds: tuple[str, ...]
    message: str
    line: str = ""

    @property
    def is_stub(self) -> bool:
        """Whether this is the exception that an unsolved exercise raises."""
        return self.kinds[0] == "NotImplementedError"


@dataclass(frozen=True)
class Strange:
    """A value of a type that no exercise asks for; only the type's name is kept."""

    type_name: str


@dataclass(frozen=True)
class Probe:
    """One part of an exercise: ``cases`` draws the trials, ``observe`` runs one of them."""

    cases: Callable[[torch.Generator], list[Case]]
    observe: Callable[[Any, Case], Observation]


def to_data(value: Any) -> Any:
    """Whatever an answer returned, as data that can leave its process.

    Example:
        >>> to_data((1, torch.nn.ReLU))
        (1, Strange(type_name='type'))
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int | float):
        return int(value) if isinstance(value, int) else float(value)
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.device.type != "cpu":
            return Strange(f"{value.layout} tensor on {value.device.type}".removeprefix("torch."))
        return plain_copy(value)
    if isinstance(value, tuple):
        return tuple(to_data(item) for item in value)
    if isinstance(value, list):
        return [to_data(item) for item in value]
    return Strange(type(value).__name__)


def plain_copy(tensor: Tensor) -> Tensor:
    """The numbers of a tensor in a new one that is no more than a tensor.

    Example:
        >>> plain_copy(nn.Parameter(torch.ones(1)))
        tensor([1.])
    """
    detach, clone, as_subclass, _ = as_it_is
    with DisableTorchFunctionSubclass():
        return as_subclass(clone(detach(tensor)), Tensor)


def identical(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors hold the same numbers, found out by looking at each of them.

    Example:
        >>> identical(torch.ones(2), torch.tensor([1.0, 1.0]))
        True
    """
    tolist = as_it_is[-1]
    with DisableTorchFunctionSubclass():
        numbers, others = tolist(first), tolist(second)
    return numbers == others or repr(numbers) == repr(others)  # the second for NaN, which equals nothing


def attempt(action: Callable[[], Any]) -> Any:
    """The action's value as data, or the exception it raised as ``Raised``.

    Only an interrupt from the keyboard passes through: it belongs to the person, not to the answer.

    Example:
        >>> attempt(lambda: 1 / 0).message
        'division by zero'
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return to_data(action())
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        kinds = tuple(kind.__name__ for kind in type(error).__mro__ if kind is not object)
        return Raised(kinds, message_of(error), line_of(error))


def message_of(error: BaseException) -> str:
    """What an exception says, without memory addresses: a report reads the same every time.

    Example:
        >>> message_of(ValueError("<Thing object at 0x7f3a12345678> is odd"))
        '<Thing object> is odd'
    """
    try:
        text = str(error)
    except Exception:  # a learner's own exception class may fail even at this
        return ""
    return re.sub(r" at 0x[0-9a-fA-F]+|0x[0-9a-fA-F]{6,}", "", text)


def line_of(error: BaseException) -> str:
    """The innermost line of the learner's own code on the way to an exception; empty if its source is not known.

    Example:
        >>> line_of(ValueError("never raised"))
        ''
    """
    foreign = (str(Path(__file__).parent.parent), str(Path(torch.__file__).parent))  # the checks and PyTorch
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame.line for frame in frames if frame.line and not frame.filename.startswith(foreign)]
    return own[-1] if own else ""


def observe_safely(probe: Probe, answer: Any, case: Case) -> Observation:
    """One trial; when the probe itself is stopped by the answer, the observation is what was raised."""
    seen: Observation = {}
    stopped = attempt(lambda: seen.update(probe.observe(answer, case)))
    return {"raised": stopped} if isinstance(stopped, Raised) else seen


def trials(probe: Probe, answer: Any, cases: list[Case]) -> Iterator[Observation]:
    """What an answer does in one part, case by case.

    Seeds the global random state first, so that answers which draw from it can be compared, and starts each case
    with PyTorch's own settings, so that no answer can change them for the next one.
    """
    torch.manual_seed(UNLIKELY_SEED)
    for case in cases:
        with torch.enable_grad():
            observation = observe_safely(probe, answer, case)
        torch.set_default_dtype(torch.float32)
        yield observation


def laid_out(tensor: Tensor, strided: bool) -> Tensor:
    """The same numbers, in another order in memory if ``strided``: answers must not rely on contiguity."""
    if not strided:
        return tensor.clone()
    if tensor.dim() < 2:
        return apart(tensor)
    backwards = tuple(reversed(range(tensor.dim())))
    return tensor.permute(backwards).clone(memory_format=torch.contiguous_format).permute(backwards)


def apart(tensor: Tensor) -> Tensor:
    """The same numbers with gaps between them in memory; ``view`` still works."""
    return torch.stack([tensor, tensor], dim=-1)[..., 0]


class RandomStates:
    """The global random states at one moment, and whether they are still the same later."""

    def __init__(self) -> None:
        self.torch, self.others = get_rng_state(), other_random_states()

    def unchanged(self) -> Observation:
        """What to add to an observation."""
        return {
            "random_state_unchanged": identical(get_rng_state(), self.torch),
            "other_random_states_unchanged": other_random_states() == self.others,
        }


def other_random_states() -> tuple[Any, ...]:
    """The states of Python's and NumPy's global random numbers, to be compared with ``==``."""
    kind, numbers, *rest = np.random.get_state()
    return random.getstate(), kind, numbers.tobytes(), *rest


def call_plainly(function: Callable[..., Any], *arguments: Any, strided: bool = False, **options: Any) -> Any:
    """The value of one call, on copies of the arguments."""
    given = [laid_out(a, strided) if isinstance(a, Tensor) else a for a in arguments]
    return attempt(lambda: function(*given, **options))


def call_watched(function: Callable[..., Any], *arguments: Any, **options: Any) -> Observation:
    """Two calls on the same numbers, one on others in between, and whether anything but the result was touched.

    Returns:
        ``result``: the first call's value.
        ``inputs_unchanged``, ``random_state_unchanged``, ``other_random_states_unchanged``: about the first call.
        ``on_other_numbers``: the value of a call on the squares of the floating arguments.
        ``same_again``: whether the last call, with gradients, agrees with the first.
        ``gradients``: one tensor for each floating argument, None where none arrived.
    """
    given = [laid_out(a, False) if isinstance(a, Tensor) else a for a in arguments]
    states = RandomStates()
    with torch.no_grad():
        result = attempt(lambda: function(*given, **options))
    seen: Observation = {
        "result": result,
        "inputs_unchanged": all(
            identical(now, before) for now, before in zip(given, arguments, strict=True) if isinstance(before, Tensor)
        ),
        **states.unchanged(),
    }
    if isinstance(result, Raised):
        return seen
    squares = [a * a if isinstance(a, Tensor) and a.is_floating_point() else a for a in arguments]
    with torch.no_grad():
        seen["on_other_numbers"] = call_plainly(function, *squares, **options)
    leaves = [a.clone().requires_grad_() if isinstance(a, Tensor) and a.is_floating_point() else a for a in arguments]
    floating = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad]
    raw: list[Any] = []
    # "* 1" because a leaf that asks for a gradient refuses to be changed; that is reported above instead
    second = attempt(
        lambda: raw.append(
            function(*(leaf * 1 if any(leaf is f for f in floating) else leaf for leaf in leaves), **options)
        )
    )
    if isinstance(second, Raised):
        return seen | {"same_again": second}
    seen["same_again"] = agree(to_data(raw[0]), result)
    if floating:
        seen["gradients"] = attempt(lambda: gradients_of(raw[0], floating))
    return seen


def plainly(answer: Any, case: Case) -> Observation:
    """Call a function with the case's arguments; ``strided`` and ``options`` say how."""
    arguments = [value for name, value in case.items() if name not in ("strided", "options")]
    options = case.get("options", {})
    return {"result": call_plainly(answer, *arguments, strided=case.get("strided", False), **options)}


def watched(answer: Any, case: Case) -> Observation:
    """Call a function and watch what else it touches."""
    arguments = [value for name, value in case.items() if name not in ("strided", "options")]
    return call_watched(answer, *arguments, **case.get("options", {}))


def gradients_of(result: Any, leaves: list[Tensor]) -> list[Tensor | None]:
    """Gradients of a fixed weighted sum of the result; None for each leaf that has no part in it."""
    outputs = result if isinstance(result, tuple | list) else [result]
    total = torch.zeros((), dtype=torch.float64)
    for output in outputs:
        if isinstance(output, Tensor) and output.is_floating_point():
            weights = torch.linspace(0.5, 1.5, output.numel(), dtype=torch.float64).reshape(output.shape)
            total = total + (output.double() * weights).sum()
    if not total.requires_grad:
        return [None] * len(leaves)
    return list(torch.autograd.grad(total, leaves, allow_unused=True))


def agree(first: Any, second: Any) -> bool:
    """Whether two values are the same up to rounding."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.shape == second.shape and allclose(
            first.double(), second.double(), rtol=1e-4, atol=1e-6, equal_nan=True
        )
    if isinstance(first, tuple | list) and isinstance(second, tuple | list):
        return len(first) == len(second) and all(map(agree, first, second))
    return bool(first == second)


def load_parameters(module: nn.Module, parameters: dict[str, Tensor]) -> nn.Module:
    """The module with these numbers in its parameters, and in their dtype. Buffers stay as they are.

    Raises:
        ValueError: the module's parameters have other names or shapes; the message says which.
    """
    own = dict(module.named_parameters())
    if own.keys() != parameters.keys():
        lacking, surplus = sorted(parameters.keys() - own.keys()), sorted(own.keys() - parameters.keys())
        faults = [f"has no parameter {listed(lacking)}"] if lacking else []
        faults += [f"has {listed(surplus)}, which nobody asked for"] if surplus else []
        raise ValueError(f"your module {' and '.join(faults)}")
    for name, given in parameters.items():
        if own[name].shape != given.shape:
            raise ValueError(f"`{name}` should have shape {tuple(given.shape)}, yours has {tuple(own[name].shape)}")
    module.to(next(iter(parameters.values())).dtype)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(parameters[name])
    return module


def listed(names: list[str], at_most: int = 2) -> str:
    """Names in a sentence; of many only the first.

    Example:
        >>> listed(["W_key", "W_query", "W_value"])
        '`W_key`, `W_query` and 1 more'
    """
    quoted = ", ".join(f"`{name}`" for name in names[:at_most])
    return quoted if len(names) <= at_most else f"{quoted} and {len(names) - at_most} more"


def normal(generator: torch.Generator, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal numbers from this generator."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def in_precision(value: Any, dtype: torch.dtype) -> Any:
    """The value with all floating tensors in it, also those in dictionaries, in that dtype."""
    if isinstance(value, dict):
        return {name: in_precision(item, dtype) for name, item in value.items()}
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def in_both_precisions(cases: Iterable[Case]) -> list[Case]:
    """Every case in float32 and once more in float64."""
    return [in_precision(case, dtype) for case in cases for dtype in (torch.float32, torch.float64)]
