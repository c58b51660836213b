"""Comparing what an answer did with what the reference did; every difference becomes a sentence."""

from typing import Any

import torch
from torch import Tensor

from utils.checks.probes.observe import Case, Observation, Raised, Strange

RTOL, ATOL = 1e-4, 1e-5  # float32 sums in another order differ by about 1e-6

FACTS = {
    "inputs_unchanged": "Your answer changes its input. Compute a new tensor instead of working in place.",
    "random_state_unchanged": "Your answer draws from PyTorch's global random state, which nobody asked for.",
    "other_random_states_unchanged": "Your answer draws from the global random state of Python or NumPy. "
    "Draw from the generator you are given, if there is one.",
    "same_again": "Called twice with the same numbers, your answer gives two results. It must not keep "
    "anything from one call to the next.",
    "objects_share_nothing": "Two objects of your class share a parameter: training one changes the other. Make the "
    "parameters in `__init__`.",
    "gradients_flow_in_training": "In training mode a parameter gets no gradient. Dropout must not cut the path back.",
    "mha_unchanged": "Your answer changes `mha`, its weights or its mode. Leave the module as it is.",
    "mask_is_a_buffer": 'The mask should be a buffer called `mask`: `self.register_buffer("mask", ...)` in `__init__`.',
    "module_unchanged": "Your answer changes the module it is given: called as it is, it does something else now.",
    "one_new_key_per_step": "The longer the sequence, the more each step computes: it projects earlier tokens again. "
    "Keep their keys and values, and project the new token only.",
    "returns_a_number": "Return the mean loss of the whole batch as a `float`.",
    "rows_within_limit": "A forward pass gets more than `micro_batch_size` rows. That is the memory to be saved: give "
    "the model a few rows at a time.",
    "parameters_unchanged": "Your answer changes the model's parameters. Only add to `.grad`; the step is the "
    "optimizer's.",
    "mode_unchanged": "Your answer runs or leaves the model in eval mode. It is training: leave its mode as it is.",
    "position_by_position": "The longer the sequence, the more PyTorch calls your answer makes: it works position by "
    "position, loop or not. Compute all positions at once.",
}


def show(value: Any) -> str:
    """A value in at most one line; tensors by shape, and by their numbers when there are few.

    Example:
        >>> show(torch.tensor([1.0, 2.0]))
        '[1.0000, 2.0000]'
    """
    if isinstance(value, Tensor):
        if value.numel() > 8 or value.dim() > 1:
            return f"a tensor of shape {tuple(value.shape)}"
        if value.dtype.is_floating_point:
            numbers = [f"{number:.4f}" for number in value.flatten().tolist()]
        else:
            numbers = [str(number) for number in value.flatten().tolist()]
        return numbers[0] if value.dim() == 0 else f"[{', '.join(numbers)}]"
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, Raised):
        return shortened(f"{value.kinds[0]}: {value.message}" if value.message else value.kinds[0], 400)
    return shortened(repr(value), 80)


def shortened(text: str, length: int) -> str:
    """At most ``length`` characters, in one line.

    Example:
        >>> shortened("one\\ntwo three", 10)
        'one two...'
    """
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 3] + "..."


def kind_of(value: Any) -> str:
    """The name of a value's type, as a learner would say it."""
    if isinstance(value, Strange):
        return value.type_name
    return "tensor" if isinstance(value, Tensor) else type(value).__name__


def difference(got: Any, expected: Any) -> str | None:
    """What is wrong with ``got``, in one or two sentences; None if nothing is.

    Example:
        >>> difference(torch.zeros(2), torch.zeros(3))
        'Got a tensor of shape (2,), expected shape (3,).'
    """
    if isinstance(got, Raised) and not isinstance(expected, Raised):
        return f"Your code raised {show(got)}"
    if got is None and expected is not None:
        return "Got None. Is the `return` missing?"
    if isinstance(expected, Tensor):
        return tensor_difference(got, expected)
    if isinstance(expected, tuple | list):
        if not isinstance(got, tuple | list) or (isinstance(expected, list) and isinstance(got, tuple)):
            return f"Got a {kind_of(got)}, expected a {type(expected).__name__} of {len(expected)}."
        if len(got) != len(expected):
            return f"Got {len(got)} values, expected {len(expected)}."
        for position, (g, e) in enumerate(zip(got, expected, strict=True)):
            if found := difference(g, e):
                return f"At position {position}: {found}"
        return None
    if isinstance(expected, Raised):
        same = isinstance(got, Raised) and (got.kinds, got.message) == (expected.kinds, expected.message)
        return None if same else f"Got {show(got)}, expected {show(expected)}."
    if type(got) is not type(expected):
        return f"Got {show(got)}, a {kind_of(got)}; expected a {type(expected).__name__}."
    if isinstance(expected, float):
        close = abs(got - expected) <= ATOL + RTOL * abs(expected) or got == expected
        return None if close else f"Got {show(got)}, expected {show(expected)}."
    return None if got == expected else f"Got {show(got)}, expected {show(expected)}."


def tensor_difference(got: Any, expected: Tensor) -> str | None:
    """As ``difference``, where a tensor is expected: type, shape, dtype, NaN, then the numbers."""
    if not isinstance(got, Tensor):
        return f"Got a {kind_of(got)}, expected a tensor of shape {tuple(expected.shape)}."
    if got.shape != expected.shape:
        return f"Got a tensor of shape {tuple(got.shape)}, expected shape {tuple(expected.shape)}."
    if got.dtype != expected.dtype:
        return f"Got {got.dtype}, expected {expected.dtype}: keep the dtype of the input."
    if not expected.is_floating_point():
        close = got == expected
    else:
        close = torch.isclose(got, expected, rtol=RTOL, atol=ATOL, equal_nan=True)
        if bool((got.isnan() & ~expected.isnan()).any()):
            return "Got NaN. Usual sources: 0/0, inf - inf, or a log of zero."
        if bool((got.isinf() & ~expected.isinf()).any()):
            return "Got inf where a finite number is expected: something overflowed or was divided by zero."
    if bool(close.all()):
        return None
    if expected.numel() <= 8 and expected.dim() <= 1:
        return f"Got {show(got)}, expected {show(expected)}."
    where = tuple((~close).nonzero()[0].tolist())
    wrong = int((~close).sum())
    return (
        f"{wrong} of {expected.numel()} numbers differ; at {list(where)} got {show(got[where])}, "
        f"expected {show(expected[where])}."
    )


def gradients_difference(got: Any, expected: list[Tensor | None]) -> str | None:
    """As ``difference``, for the gradients of the inputs."""
    if isinstance(got, Raised):
        return f"Backpropagation through your answer raised {show(got)}"
    if not isinstance(got, list) or len(got) != len(expected):
        return "The gradients could not be read."
    for number, (g, e) in enumerate(zip(got, expected, strict=True), start=1):
        if g is None and e is not None and bool(e.any()):
            return (
                f"No gradient reaches input number {number}. `.item()`, `.tolist()`, `.detach()`, "
                "`torch.tensor(...)` and NumPy cut the path back."
            )
        if g is not None and e is not None and tensor_difference(g, e):
            return f"The gradient of input number {number} is wrong: part of the computation is cut off."
    return None


def parameter_gradients_difference(got: Any, expected: dict[str, Tensor | None]) -> str | None:
    """As ``difference``, for the gradients of a module's parameters, by name."""
    if isinstance(got, Raised):
        return f"Backpropagation through your answer raised {show(got)}"
    if not isinstance(got, dict) or got.keys() != expected.keys():
        return "The gradients of the parameters could not be read."
    for name, wanted in expected.items():
        if got[name] is None and wanted is not None and bool(wanted.any()):
            return f"No gradient reaches `{name}`: it can't learn. Compute with the parameter itself, not a copy of it."
        if wanted is not None and tensor_difference(got[name], wanted):
            return f"The gradient of `{name}` is wrong: part of the computation is cut off."
    return None


def parameters_difference(got: Any, expected: list[list[Any]]) -> str | None:
    """As ``difference``, for the names and shapes of a module's parameters.

    Example:
        >>> parameters_difference([["W_key", [2, 3]]], [["W_key", [3, 2]]])
        '`W_key` should have shape (3, 2), yours has (2, 3).'
    """
    if isinstance(got, Raised):
        return f"Your code raised {show(got)}"
    own, wanted = ({name: tuple(shape) for name, shape in found} for found in (got, expected))
    listed = ", ".join(f"`{name}`" for name in list(own)[:12]) or "none"
    listed += f" and {len(own) - 12} more" if len(own) > 12 else ""
    if missing := [name for name in wanted if name not in own]:
        return f"The parameter `{missing[0]}` is missing; your module's parameters: {listed}."
    if extra := [name for name in own if name not in wanted]:
        return f"`{extra[0]}` is a parameter too many; expected only {', '.join(f'`{name}`' for name in wanted)}."
    for name, shape in wanted.items():
        if own[name] != shape:
            return f"`{name}` should have shape {shape}, yours has {own[name]}."
    return None


def layers_difference(got: Any, expected: list[str]) -> str | None:
    """As ``difference``, for the names of a module's linear layers.

    Example:
        >>> layers_difference([], ["W_key"])
        '`W_key` should be an `nn.Linear`.'
    """
    if missing := [name for name in expected if name not in got]:
        return f"`{missing[0]}` should be an `nn.Linear`."
    return difference(got, expected)


def judge_observation(got: Observation, expected: Observation, case: Case) -> str | None:
    """The default judge: every fact the reference shows, the answer must show too."""
    if "raised" in got and "raised" not in expected:
        return f"Your code raised {show(got['raised'])}"
    for name, value in expected.items():
        if name not in got:
            return "Your code stopped before this could be seen."
        if name == "gradients":
            found = gradients_difference(got[name], value)
        elif name == "parameter_gradients":
            found = parameter_gradients_difference(got[name], value)
        elif name == "parameters":
            found = parameters_difference(got[name], value)
        elif name == "linear_layers":
            found = layers_difference(got[name], value)
        elif name in FACTS:
            found = difference(got[name], value) if isinstance(got[name], Raised) else None
            if found is None and got[name] != value:
                found = FACTS[name]
        else:
            found = difference(got[name], value)
            if found and name != "result":
                found = f"{name.replace('_', ' ')}: {found}"
        if found:
            return found
    return None


def judge_error(got: Observation, expected: Observation, case: Case) -> str | None:
    """For cases that must be refused: a ValueError or AssertionError whose message holds ``case["names"]``."""
    if "error" in expected and "error" not in got and isinstance(got.get("raised"), Raised):
        return f"Before anything could be refused, your code raised {show(got['raised'])}"
    raised = got.get("error", got.get("raised"))
    if not isinstance(raised, Raised):
        return f"Expected an error, got {show(raised)}."
    if not {"ValueError", "AssertionError"} & set(raised.kinds):
        return f"Expected a ValueError, got {show(raised)}"
    for text in case.get("names", []):
        if text not in raised.message:
            return f"The error's message should name {text!r}; it says {show(raised.message)}."
    return None
