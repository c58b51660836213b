"""How to try the answers of chapter 4.

Legend: B batch, T tokens, H heads, D head size, C = H * D channels, d_in and d_out features.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from utils.checks.probes.modules import (
    built,
    normal_parameters,
    observe_after_shorter,
    observe_dropout,
    observe_manners_in_both_modes,
    observe_output,
    observe_refusal,
    observe_structure,
    telling_values,
)
from utils.checks.probes.observe import (
    Case,
    Observation,
    Probe,
    attempt,
    call_plainly,
    call_watched,
    gradients_of,
    identical,
    in_both_precisions,
    in_precision,
    load_parameters,
    normal,
    plainly,
    watched,
)

Arguments = dict[str, Any]  # what a module's class is called with
Shapes = dict[str, tuple[int, ...]]  # of its parameters, by name
SCALE = 0.6  # of the weights: softmax neither flat nor one-hot, so that mistakes before it show


def arguments_for(
    d_in: int, d_out: int, context_length: int, num_heads: int, qkv_bias: bool | None = None, dropout: float = 0.0
) -> Arguments:
    """In the order of the signature; without ``qkv_bias`` the class's own default counts."""
    arguments = {
        "d_in": d_in,
        "d_out": d_out,
        "context_length": context_length,
        "dropout": dropout,
        "num_heads": num_heads,
    }
    return arguments if qkv_bias is None else arguments | {"qkv_bias": qkv_bias}


def projection_shapes(arguments: Arguments, prefix: str = "") -> Shapes:
    """Of the three projections of one module; ``prefix`` leads to it."""
    d_in, d_out = arguments["d_in"], arguments["d_out"]
    names = [f"{prefix}{name}" for name in ("W_query", "W_key", "W_value")]
    biases = {f"{name}.bias": (d_out,) for name in names} if arguments.get("qkv_bias") else {}
    return {f"{name}.weight": (d_out, d_in) for name in names} | biases


def wrapper_shapes(arguments: Arguments) -> Shapes:
    shapes: Shapes = {}
    for h in range(arguments["num_heads"]):
        shapes |= projection_shapes(arguments, f"heads.{h}.")
    return shapes


def multi_head_shapes(arguments: Arguments) -> Shapes:
    d_out = arguments["d_out"]
    return projection_shapes(arguments) | {"out_proj.weight": (d_out, d_out), "out_proj.bias": (d_out,)}


def module_case(
    generator: torch.Generator,
    shapes_of: Callable[[Arguments], Shapes],
    batch_size: int,
    num_tokens: int,
    arguments: Arguments,
    **more: Any,
) -> Case:
    """A case as ``probes.modules`` describes it."""
    parameters = normal_parameters(generator, shapes_of(arguments))
    return {
        "arguments": arguments,
        "parameters": {name: SCALE * parameter for name, parameter in parameters.items()},
        "x": normal(generator, batch_size, num_tokens, arguments["d_in"]),
        **more,
    }


def in_turns(cases: list[Case]) -> list[Case]:
    """Every other case in float64: modules take too long to try each in both precisions."""
    return [in_precision(case, (torch.float32, torch.float64)[i % 2]) for i, case in enumerate(cases)]


def cases_with_dropout(
    generator: torch.Generator,
    shapes_of: Callable[[Arguments], Shapes],
    wide: bool,
    known: Callable[[int, int], Shapes],
) -> list[Case]:
    """One-hot tokens and values that show the weights; see ``modules.telling_values``.

    Args:
        wide: whether ``d_out`` is the size of all heads together.
        known: T, H -> the parameters that must not be random.
    """
    cases = []
    for p, batch_size, num_tokens, num_heads in ((0.4, 8, 4, 2), (0.3, 9, 5, 1)):
        d_out = 2 * num_tokens * (num_heads if wide else 1)
        arguments = arguments_for(num_tokens, d_out, num_tokens, num_heads, dropout=p)
        case = module_case(generator, shapes_of, batch_size, num_tokens, arguments, calls=8)
        case["parameters"] |= known(num_tokens, num_heads)
        cases.append(case | {"x": torch.eye(num_tokens).repeat(batch_size, 1, 1)})
    return cases


def too_long(generator: torch.Generator, shapes_of: Callable[[Arguments], Shapes]) -> list[Case]:
    """More tokens than ``context_length``; numbers of tokens that occur nowhere else in the case."""
    return [
        module_case(generator, shapes_of, 1, t, arguments_for(3, 4, context_length, 2), names=[str(t)])
        for t, context_length in ((11, 10), (5, 4), (17, 1))
    ]


# 4.1 ------------------------------------------------------------------------------------------------


def wrappers(generator: torch.Generator) -> list[Case]:
    return [
        module_case(generator, wrapper_shapes, 2, 4, arguments_for(3, 2, 4, 3)),
        module_case(generator, wrapper_shapes, 3, 6, arguments_for(5, 4, 6, 2), by_name=True),
        module_case(generator, wrapper_shapes, 2, 3, arguments_for(3, 3, 3, 2)),
    ]


def odd_wrappers(generator: torch.Generator) -> list[Case]:
    cases = [
        module_case(generator, wrapper_shapes, 3, 2, arguments_for(4, 3, 7, 1, qkv_bias=True)),
        module_case(generator, wrapper_shapes, 1, 5, arguments_for(3, 4, 9, 3, qkv_bias=False), strided=True),
        module_case(generator, wrapper_shapes, 2, 1, arguments_for(2, 1, 1, 4, qkv_bias=True), by_name=True),
        module_case(generator, wrapper_shapes, 2, 5, arguments_for(5, 5, 5, 5), strided=True, training=True),
    ]
    return in_turns(cases)


def wrappers_with_dropout(generator: torch.Generator) -> list[Case]:
    def known(num_tokens: int, num_heads: int) -> dict[str, Tensor]:
        return {f"heads.{h}.W_value.weight": telling_values(num_tokens) for h in range(num_heads)}

    return cases_with_dropout(generator, wrapper_shapes, False, known)


def too_long_for_wrappers(generator: torch.Generator) -> list[Case]:
    return too_long(generator, wrapper_shapes)


def two_wrappers(generator: torch.Generator) -> list[Case]:
    cases = [
        module_case(generator, wrapper_shapes, 2, 4, arguments_for(3, 2, 5, 3)),
        module_case(generator, wrapper_shapes, 1, 3, arguments_for(2, 5, 3, 2, qkv_bias=True)),
    ]
    return in_turns(cases)


def observe_wrapper_manners(answer: Any, case: Case) -> Observation:
    return observe_structure(answer, case) | observe_manners_in_both_modes(answer, case)


# 4.2 ------------------------------------------------------------------------------------------------


def two_calls(generator: torch.Generator) -> list[Case]:
    return [{}, {}]


# 4.3 ------------------------------------------------------------------------------------------------


def sequences_to_split(generator: torch.Generator) -> list[Case]:
    return [
        {"x": torch.arange(24.0).reshape(1, 4, 6), "num_heads": 2},
        {"x": normal(generator, 2, 4, 6), "num_heads": 3},
        {"x": normal(generator, 3, 5, 8), "num_heads": 2},
        {"x": normal(generator, 2, 3, 9), "num_heads": 3},  # T = H = D: all wrong orders have the right shape
    ]


def heads_to_merge(generator: torch.Generator) -> list[Case]:
    return [
        {"x": torch.arange(24.0).reshape(1, 2, 4, 3)},
        {"x": normal(generator, 2, 3, 4, 2)},
        {"x": normal(generator, 3, 2, 5, 4)},
        {"x": normal(generator, 2, 3, 3, 3)},
    ]


def odd_heads(generator: torch.Generator) -> list[Case]:
    """A sequence to split and heads to merge, of one size."""
    sizes = [(2, 5, 3, 4), (1, 4, 2, 3), (3, 4, 1, 5), (2, 3, 5, 1), (2, 1, 3, 2), (1, 1, 1, 1), (4, 3, 2, 2)]
    cases = [
        {
            "x": normal(generator, b, t, num_heads * d),
            "heads": normal(generator, b, num_heads, t, d),
            "num_heads": num_heads,
            "strided": (b + t) % 2 == 1,
        }
        for b, t, num_heads, d in sizes
    ]
    return in_both_precisions(cases)


def splitting_or_merging(generator: torch.Generator) -> list[Case]:
    cases = [
        {"which": 0, "arguments": [normal(generator, 2, 3, 8), 4]},
        {"which": 0, "arguments": [normal(generator, 1, 4, 6), 2]},
        {"which": 1, "arguments": [normal(generator, 2, 4, 3, 2)]},
        {"which": 1, "arguments": [normal(generator, 1, 2, 4, 3)]},
    ]
    precise = [case | {"arguments": [case["arguments"][0].double(), *case["arguments"][1:]]} for case in cases]
    return cases + precise


def observe_split(answer: Any, case: Case) -> Observation:
    return plainly(answer[0], case)


def observe_merge(answer: Any, case: Case) -> Observation:
    return plainly(answer[1], case)


def observe_both_ways(answer: Any, case: Case) -> Observation:
    """Splitting, merging, and one after the other: what ``split_heads`` gives need not be contiguous."""
    split, merge = answer
    across = case["heads"].transpose(1, 2).contiguous().transpose(1, 2)  # in memory as heads are after a split
    return {
        "split_heads": call_plainly(split, case["x"], case["num_heads"], strided=case["strided"]),
        "merge_heads": call_plainly(merge, case["heads"], strided=case["strided"]),
        "merge_heads_of_split_heads": attempt(lambda: merge(split(case["x"].clone(), case["num_heads"]))),
        "merge_heads_across_memory": attempt(lambda: merge(across)),
    }


def observe_either(answer: Any, case: Case) -> Observation:
    return call_watched(answer[case["which"]], *case["arguments"])


# 4.4 ------------------------------------------------------------------------------------------------


def multi_heads(generator: torch.Generator) -> list[Case]:
    return [
        module_case(generator, multi_head_shapes, 2, 4, arguments_for(3, 6, 4, 3)),
        module_case(generator, multi_head_shapes, 3, 6, arguments_for(5, 8, 6, 2), by_name=True),
        module_case(generator, multi_head_shapes, 2, 3, arguments_for(3, 9, 3, 3)),  # T = H = D
    ]


def odd_multi_heads(generator: torch.Generator) -> list[Case]:
    cases = [
        module_case(generator, multi_head_shapes, 3, 2, arguments_for(4, 3, 7, 1, qkv_bias=True)),
        module_case(generator, multi_head_shapes, 1, 5, arguments_for(3, 8, 9, 4, qkv_bias=False), strided=True),
        module_case(generator, multi_head_shapes, 2, 1, arguments_for(2, 6, 1, 3, qkv_bias=True), by_name=True),
        module_case(generator, multi_head_shapes, 2, 5, arguments_for(5, 5, 5, 5), strided=True, training=True),
        module_case(generator, multi_head_shapes, 4, 3, arguments_for(7, 4, 8, 2, qkv_bias=True), training=True),
    ]
    return in_turns(cases)


def multi_heads_to_look_at(generator: torch.Generator) -> list[Case]:
    return [
        module_case(generator, multi_head_shapes, 1, 3, arguments_for(*sizes, qkv_bias=qkv_bias), by_name=qkv_bias)
        for sizes, qkv_bias in (((3, 8, 5, 2), None), ((7, 6, 9, 3), True), ((4, 4, 3, 1), False))
    ]


def multi_heads_with_dropout(generator: torch.Generator) -> list[Case]:
    def known(num_tokens: int, num_heads: int) -> dict[str, Tensor]:
        d_out = 2 * num_tokens * num_heads
        return {
            "W_value.weight": telling_values(num_tokens, num_heads),
            "out_proj.weight": torch.eye(d_out),
            "out_proj.bias": torch.zeros(d_out),
        }

    return cases_with_dropout(generator, multi_head_shapes, True, known)


def indivisible(generator: torch.Generator) -> list[Case]:
    """Widths that don't divide; the last two would make heads of size zero."""
    return [
        {"arguments": arguments_for(3, d_out, 4, num_heads), "names": [str(d_out)], "by_name": d_out == 10}
        for d_out, num_heads in ((7, 2), (10, 4), (1, 2), (3, 5))
    ]


def too_long_for_multi_heads(generator: torch.Generator) -> list[Case]:
    return too_long(generator, multi_head_shapes)


def two_multi_heads(generator: torch.Generator) -> list[Case]:
    cases = [
        module_case(generator, multi_head_shapes, 2, 4, arguments_for(3, 6, 5, 3)),
        module_case(generator, multi_head_shapes, 1, 3, arguments_for(2, 4, 3, 2, qkv_bias=True)),
    ]
    return in_turns(cases)


SIZES = ("num_heads", "head_dim", "d_out", "context_length")
MISSING = "missing"


def observe_attributes(answer: Any, case: Case) -> Observation:
    """The parameters, the sizes that the module tells, and its buffers after a first call."""
    module = built(answer, case)
    attempt(lambda: module(case["x"]))
    sizes = {name: attempt(lambda name=name: getattr(module, name, MISSING)) for name in SIZES}
    has_mask = attempt(lambda: "mask" in dict(module.named_buffers()))
    return sizes | {"mask_is_a_buffer": has_mask} | observe_structure(answer, case)


def observe_building(answer: Any, case: Case) -> Observation:
    """The error of a module that must not be built."""
    return {"error": attempt(lambda: "a module" if built(answer, case) is not None else None)}


# 4.5 ------------------------------------------------------------------------------------------------


class ZerosInstead(TorchFunctionMode):
    """While active, initial values are zeros: 2.4 million random numbers take long, and only sizes matter here."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in ("kaiming_uniform_", "uniform_", "normal_", "trunc_normal_"):
            tensor = args[0] if args else kwargs["tensor"]
            with torch.no_grad():
                return tensor.zero_()
        return func(*args, **kwargs)


def gpt2_sized(answer: Any) -> nn.Module:
    with ZerosInstead():
        module = answer()
    if not isinstance(module, nn.Module):
        raise TypeError(f"expected a module, got a {type(module).__name__}")
    return module


def observe_heads(answer: Any, case: Case) -> Observation:
    """How the module is divided into heads, and the shapes of its weights; biases are free."""
    module = gpt2_sized(answer)
    sizes = {name: attempt(lambda name=name: getattr(module, name, MISSING)) for name in SIZES[:3]}
    shapes = attempt(lambda: sorted([n, list(p.shape)] for n, p in module.named_parameters() if n.endswith("weight")))
    return sizes | {"parameters": shapes}


def observe_reach(answer: Any, case: Case) -> Observation:
    """How long a sequence may be, and whether a short one passes."""
    module = gpt2_sized(answer)
    with torch.no_grad():
        shape = attempt(lambda: list(module(torch.zeros(1, 3, 768)).shape))
    return {"context_length": attempt(lambda: getattr(module, "context_length", MISSING)), "output_shape": shape}


# 4.6 ------------------------------------------------------------------------------------------------


class StandIn(nn.Module):
    """All that the contract of 4.4 names, and a ``forward`` that computes nothing but notes that it was called.

    An answer thus can't get the numbers from the module itself, nor read here how they are made.
    """

    def __init__(self, arguments: Arguments, note: Callable[[str], None]):
        super().__init__()
        d_in, d_out = arguments["d_in"], arguments["d_out"]
        self.num_heads, self.d_out, self.context_length = arguments["num_heads"], d_out, arguments["context_length"]
        self.head_dim = d_out // self.num_heads
        bias = arguments.get("qkv_bias", False)
        self.W_query, self.W_key, self.W_value = (nn.Linear(d_in, d_out, bias=bias) for _ in range(3))
        self.out_proj = nn.Linear(d_out, d_out)
        self.dropout = nn.Dropout(arguments["dropout"])
        length = self.context_length
        self.register_buffer("mask", torch.ones(length, length, dtype=torch.bool).triu(1))
        self.note = note  # the method of a list: a deep copy of the module still writes into the same list

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, d_in) -> (B, T, d_out), all zeros."""
        self.note("called")
        return x.new_zeros(*x.shape[:-1], self.d_out)


class SilentKernel(TorchFunctionMode):
    """While active, ``F.scaled_dot_product_attention`` gives zeros: what still depends on x came another way."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "").split(".")[0]
        return 0 * result if name == "scaled_dot_product_attention" else result


def stand_ins(generator: torch.Generator) -> list[Case]:
    return [
        module_case(generator, multi_head_shapes, 2, 4, arguments_for(3, 6, 4, 3, dropout=0.2)),
        module_case(generator, multi_head_shapes, 3, 5, arguments_for(5, 8, 7, 2, qkv_bias=True, dropout=0.1)),
        module_case(generator, multi_head_shapes, 2, 3, arguments_for(3, 9, 3, 3, dropout=0.2)),
    ]


def odd_stand_ins(generator: torch.Generator) -> list[Case]:
    cases = [
        module_case(generator, multi_head_shapes, 3, 2, arguments_for(4, 3, 7, 1, True, 0.2)),
        module_case(generator, multi_head_shapes, 1, 5, arguments_for(3, 8, 9, 4, False, 0.2), strided=True),
        module_case(generator, multi_head_shapes, 2, 1, arguments_for(2, 6, 1, 3, True, 0.0)),
        module_case(generator, multi_head_shapes, 2, 5, arguments_for(5, 5, 5, 5, None, 0.2), strided=True),
    ]
    return in_turns(cases)


def two_stand_ins(generator: torch.Generator) -> list[Case]:
    cases = [
        module_case(generator, multi_head_shapes, 2, 4, arguments_for(3, 6, 5, 3, None, 0.2)),
        module_case(generator, multi_head_shapes, 1, 3, arguments_for(2, 4, 3, 2, True, 0.2)),
    ]
    return in_turns(cases)


def stand_in(case: Case) -> tuple[nn.Module, list[str]]:
    """A module in eval mode with the case's parameters, and the notes of its calls."""
    notes: list[str] = []
    return load_parameters(StandIn(case["arguments"], notes.append), case["parameters"]).eval(), notes


def observe_fused(answer: Any, case: Case) -> Observation:
    mha, notes = stand_in(case)
    strided = case.get("strided", False)
    result = call_plainly(answer, mha, case["x"], strided=strided)
    with SilentKernel():
        silenced = call_plainly(answer, mha, case["x"], strided=strided)
    return {"mha_was_called": bool(notes), "result": result, "with_a_silent_kernel": silenced}


def observe_fused_manners(answer: Any, case: Case) -> Observation:
    mha, notes = stand_in(case)
    seen = call_watched(answer, mha, case["x"])
    names = list(case["parameters"])
    gradients = attempt(lambda: gradients_of(answer(mha, case["x"].clone()), [mha.get_parameter(n) for n in names]))
    if isinstance(gradients, list):
        gradients = dict(zip(names, gradients, strict=True))
    is_unchanged = not any(module.training for module in mha.modules()) and all(
        identical(mha.get_parameter(name), parameter) for name, parameter in case["parameters"].items()
    )
    with torch.no_grad():  # as after a training step: the same module, other weights
        for parameter in mha.parameters():
            parameter.mul_(0.5)
    return {
        "mha_was_called": bool(notes),
        **seen,
        "parameter_gradients": gradients,
        "mha_unchanged": is_unchanged,
        "with_other_weights": call_plainly(answer, mha, case["x"]),
    }


# 4.7 ------------------------------------------------------------------------------------------------


def two_sequences(
    generator: torch.Generator, b: int, t_x: int, t_context: int, d: int, d_context: int, d_out: int, **more: Any
) -> Case:
    """x and its context, and the three weights."""
    return {
        "x": normal(generator, b, t_x, d),
        "context": normal(generator, b, t_context, d_context),
        "W_query": SCALE * normal(generator, d, d_out),
        "W_key": SCALE * normal(generator, d_context, d_out),
        "W_value": SCALE * normal(generator, d_context, d_out),
        **more,
    }


def pairs_of_sequences(generator: torch.Generator) -> list[Case]:
    sizes = [(2, 4, 4, 3, 3, 3), (2, 3, 5, 4, 6, 2), (3, 6, 2, 5, 3, 4)]  # in the first all roles fit each other
    return [two_sequences(generator, *row) for row in sizes]


def odd_pairs_of_sequences(generator: torch.Generator) -> list[Case]:
    sizes = [(1, 2, 7, 3, 5, 4), (3, 1, 4, 2, 3, 1), (2, 5, 1, 1, 4, 3), (1, 1, 1, 1, 1, 1), (4, 3, 6, 5, 2, 7)]
    return in_both_precisions(two_sequences(generator, *row, strided=row[0] % 2 == 0) for row in sizes)


def two_pairs_of_sequences(generator: torch.Generator) -> list[Case]:
    return in_both_precisions(two_sequences(generator, *row) for row in ((2, 3, 5, 4, 6, 2), (1, 4, 2, 3, 3, 5)))


PROBES = {
    "4.1": {
        "values": Probe(wrappers, observe_output),
        "any_input": Probe(odd_wrappers, observe_after_shorter),
        "dropout": Probe(wrappers_with_dropout, observe_dropout),
        "length_error": Probe(too_long_for_wrappers, observe_refusal),
        "manners": Probe(two_wrappers, observe_wrapper_manners),
    },
    "4.2": {"values": Probe(two_calls, plainly)},
    "4.3": {
        "split": Probe(sequences_to_split, observe_split),
        "merge": Probe(heads_to_merge, observe_merge),
        "any_input": Probe(odd_heads, observe_both_ways),
        "manners": Probe(splitting_or_merging, observe_either),
    },
    "4.4": {
        "values": Probe(multi_heads, observe_output),
        "any_input": Probe(odd_multi_heads, observe_after_shorter),
        "attributes": Probe(multi_heads_to_look_at, observe_attributes),
        "dropout": Probe(multi_heads_with_dropout, observe_dropout),
        "error": Probe(indivisible, observe_building),
        "length_error": Probe(too_long_for_multi_heads, observe_refusal),
        "manners": Probe(two_multi_heads, observe_manners_in_both_modes),
    },
    "4.5": {"heads": Probe(two_calls, observe_heads), "reach": Probe(two_calls, observe_reach)},
    "4.6": {
        "values": Probe(stand_ins, observe_fused),
        "any_input": Probe(odd_stand_ins, observe_fused),
        "manners": Probe(two_stand_ins, observe_fused_manners),
    },
    "4.7": {
        "values": Probe(pairs_of_sequences, plainly),
        "any_input": Probe(odd_pairs_of_sequences, plainly),
        "manners": Probe(two_pairs_of_sequences, watched),
    },
}
