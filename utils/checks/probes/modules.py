"""Trying a trainable module: build it, give it known numbers, and write down what it does.

A case of a module holds

- ``arguments``: what its class is called with, by name and in the order of the signature,
- ``by_name``: whether to pass them by name (else by position),
- ``parameters``: a tensor for each parameter, by its full name,
- ``x``: an input; ``strided``: whether it lies in memory in another order,
- ``training``: whether to call the module in training mode,
- ``calls``: how many calls show its dropout.

Legend: B batch, T tokens.
"""

from typing import Any

import torch
from torch import Tensor, nn

from utils.checks.probes.observe import (
    Case,
    Observation,
    attempt,
    call_plainly,
    call_watched,
    gradients_of,
    load_parameters,
    normal,
    to_data,
)

DROPOUT_CALLS = 60  # enough to see every weight dropped and kept


def normal_parameters(generator: torch.Generator, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Standard normal numbers for every parameter."""
    return {name: normal(generator, *shape) for name, shape in shapes.items()}


def built(answer: Any, case: Case) -> nn.Module:
    """A new module with the case's arguments.

    Raises:
        TypeError: what the answer makes is no ``nn.Module``.
    """
    arguments = case["arguments"]
    module = answer(**arguments) if case.get("by_name") else answer(*arguments.values())
    if not isinstance(module, nn.Module):
        raise TypeError("the class should inherit from nn.Module")
    return module


def loaded(answer: Any, case: Case) -> nn.Module:
    """A new module that holds the case's parameters, in the mode the case asks for."""
    return load_parameters(built(answer, case), case["parameters"]).train(case.get("training", False))


def storages(module: nn.Module) -> set[int]:
    """Where the numbers of the parameters lie in memory."""
    return {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}


def observe_structure(answer: Any, case: Case) -> Observation:
    """Names and shapes of the parameters, in any order, which of them belong to an ``nn.Linear``, and whether
    two objects have parameters of their own."""
    module, other = built(answer, case), built(answer, case)
    shapes = attempt(lambda: sorted([name, list(p.shape)] for name, p in module.named_parameters()))
    linears = [name for name, inner in module.named_modules() if isinstance(inner, nn.Linear)]
    share_nothing = attempt(lambda: storages(module).isdisjoint(storages(other)))
    return {"parameters": shapes, "linear_layers": sorted(linears), "objects_share_nothing": share_nothing}


def observe_buffers(answer: Any, case: Case) -> Observation:
    """As ``observe_structure``, and whether there is a buffer called ``mask``."""
    found = {"mask_is_a_buffer": any(name.split(".")[-1] == "mask" for name, _ in built(answer, case).named_buffers())}
    return observe_structure(answer, case) | found


def observe_output(answer: Any, case: Case) -> Observation:
    """The output for the case's input."""
    return {"result": call_plainly(loaded(answer, case), case["x"], strided=case.get("strided", False))}


def observe_after_shorter(answer: Any, case: Case) -> Observation:
    """As ``observe_output``, after a call on the first token alone, which must leave nothing behind."""
    module = loaded(answer, case)
    call_plainly(module, case["x"][:1, :1])
    return {"result": call_plainly(module, case["x"], strided=case.get("strided", False))}


def observe_manners(answer: Any, case: Case) -> Observation:
    """What a call does besides its result; the gradients of input and parameters; a call with other parameters."""
    module = loaded(answer, case)
    seen = call_watched(module, case["x"])
    names = list(case["parameters"])
    gradients = attempt(lambda: gradients_of(module(case["x"].clone()), [module.get_parameter(n) for n in names]))
    if isinstance(gradients, list):
        gradients = dict(zip(names, gradients, strict=True))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(-0.5)
    changed = call_plainly(module, case["x"])  # as after a step of training: nothing may be kept from before
    return seen | {"parameter_gradients": gradients, "after_training": changed}


def observe_manners_in_both_modes(answer: Any, case: Case, rate: str = "dropout") -> Observation:
    """As ``observe_manners``, and whether every parameter gets a gradient where dropout drops.

    ``rate`` is the name of the argument that says how much is dropped.
    """
    with_dropout = case | {"arguments": case["arguments"] | {rate: 0.5}, "training": True}

    def all_get_one() -> bool:
        module = loaded(answer, with_dropout)
        found = gradients_of(module(case["x"].clone()), list(module.parameters()))
        return all(gradient is not None and bool(gradient.isfinite().all()) for gradient in found)

    return observe_manners(answer, case) | {"gradients_flow_in_training": attempt(all_get_one)}


def observe_refusal(answer: Any, case: Case) -> Observation:
    """The error for an input that must be refused."""
    module = loaded(answer, case)
    return {"error": call_plainly(module, case["x"])}


def observe_dropout(answer: Any, case: Case) -> Observation:
    """The output in eval mode and many outputs in training mode.

    The case's values are chosen so that the outputs show the weights; see ``telling_values``. A case with a large
    batch may ask for fewer ``calls``.
    """
    module = loaded(answer, case)
    module.eval()
    without = attempt(lambda: module(case["x"].clone()))  # (B, T, H * 2T)
    module.train()
    calls = range(case.get("calls", DROPOUT_CALLS))
    trained = attempt(lambda: torch.stack([to_data(module(case["x"].clone())) for _ in calls]))
    module.eval()
    return {"without": without, "in_training": trained, "eval_again": attempt(lambda: module(case["x"].clone()))}


def telling_values(num_tokens: int, num_heads: int = 1) -> Tensor:
    """A weight (H * 2T, T) for ``W_value`` that turns one-hot tokens into values which show the weights.

    Token j of a head becomes the vector with ones at j and at T + j, so each output (H * 2T) holds every
    weight twice: dropped weights vanish in both places, dropped outputs don't.
    """
    one_head = torch.cat([torch.eye(num_tokens)] * 2)  # (2T, T)
    return one_head.repeat(num_heads, 1)  # (H * 2T, T)
