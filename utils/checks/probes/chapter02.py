"""How to try the answers of chapter 2. Legend: B batch, T tokens (Tq queries, Tk keys), d_in, d_out, d_k features."""

from typing import Any

import torch
from torch import Tensor, nn

from utils.checks.probes.modules import (
    built,
    normal_parameters,
    observe_manners,
    observe_output,
    observe_structure,
)
from utils.checks.probes.observe import (
    Case,
    Observation,
    Probe,
    RandomStates,
    attempt,
    identical,
    in_both_precisions,
    normal,
    plainly,
    to_data,
    watched,
)

NAMES = ("W_query", "W_key", "W_value")
SEEDS = 2**31  # for seeds that the cases draw

# 2.1 ------------------------------------------------------------------------------------------------


def projection(generator: torch.Generator, *shape: int, d_out: int, **how: Any) -> Case:
    """An input (..., T, d_in) and three matrices (d_in, d_out)."""
    return {"x": normal(generator, *shape)} | {name: normal(generator, shape[-1], d_out) for name in NAMES} | how


def projections(generator: torch.Generator) -> list[Case]:
    return [
        projection(generator, 6, 3, d_out=2),
        projection(generator, 5, 4, d_out=4),  # square: a transposed matrix shows in the numbers only
        projection(generator, 2, 3, d_out=7),
    ]


def odd_projections(generator: torch.Generator) -> list[Case]:
    return in_both_precisions(
        [
            projection(generator, 2, 5, 3, d_out=4),
            projection(generator, 1, 4, 2, d_out=3, strided=True),
            projection(generator, 3, 2, 4, 5, d_out=2, strided=True),
            projection(generator, 3, 3, 3, d_out=3),
            projection(generator, 5, 1, 4, d_out=1),
            projection(generator, 1, 1, d_out=1),
        ]
    )


def two_projections(generator: torch.Generator) -> list[Case]:
    return in_both_precisions([projection(generator, 4, 3, d_out=2), projection(generator, 2, 3, 4, d_out=5)])


# 2.2 ------------------------------------------------------------------------------------------------


def asking(generator: torch.Generator, *shape: int, num_keys: int, **how: Any) -> Case:
    """Queries (..., Tq, d_k) and keys (..., Tk, d_k)."""
    *lead, _, d_k = shape
    return {"queries": normal(generator, *shape), "keys": normal(generator, *lead, num_keys, d_k)} | how


def queries_and_keys(generator: torch.Generator) -> list[Case]:
    return [
        asking(generator, 6, 3, num_keys=6),
        asking(generator, 4, 8, num_keys=5),
        asking(generator, 5, 5, num_keys=5),
        asking(generator, 3, 2, num_keys=4),
    ]


def odd_queries_and_keys(generator: torch.Generator) -> list[Case]:
    large = {name: (10 * rows).round() for name, rows in asking(generator, 4, 5, num_keys=3).items()}
    return in_both_precisions(
        [
            large,  # scores in the hundreds; whole numbers, so that rounding plays no part
            asking(generator, 2, 5, 3, num_keys=5),
            asking(generator, 2, 3, 7, num_keys=4, strided=True),
            asking(generator, 1, 4, 2, num_keys=1),
            asking(generator, 3, 2, 1, 6, num_keys=4, strided=True),
            asking(generator, 3, 3, 3, num_keys=3),
            asking(generator, 1, 64, num_keys=2, strided=True),
            asking(generator, 1, 1, num_keys=1),
        ]
    )


def two_queries_and_keys(generator: torch.Generator) -> list[Case]:
    return in_both_precisions([asking(generator, 3, 5, num_keys=2), asking(generator, 2, 2, 3, num_keys=4)])


# 2.3 and 2.4: two classes with the same job, but other parameters --------------------------------------


def with_parameters(generator: torch.Generator, shape: tuple[int, ...], d_out: int, **how: Any) -> Case:
    """Self-attention as version 1: an input (..., T, d_in) and three parameters (d_in, d_out)."""
    shapes = dict.fromkeys(NAMES, (shape[-1], d_out))
    arguments = {"d_in": shape[-1], "d_out": d_out}
    parameters = normal_parameters(generator, shapes)
    return moderate({"arguments": arguments, "parameters": parameters, "x": normal(generator, *shape)}) | how


def with_linears(
    generator: torch.Generator, shape: tuple[int, ...], d_out: int, qkv_bias: bool | None = None, **how: Any
) -> Case:
    """Self-attention as version 2, the parameters of three linear layers; ``qkv_bias`` None leaves it out."""
    weights = {f"{name}.weight": (d_out, shape[-1]) for name in NAMES}
    biases = {f"{name}.bias": (d_out,) for name in NAMES} if qkv_bias else {}
    arguments = {"d_in": shape[-1], "d_out": d_out} | ({} if qkv_bias is None else {"qkv_bias": qkv_bias})
    parameters = normal_parameters(generator, weights | biases)
    return moderate({"arguments": arguments, "parameters": parameters, "x": normal(generator, *shape)}) | how


def moderate(case: Case) -> Case:
    """The case with smaller numbers: a softmax by bare exponentials is right here, and must not overflow."""
    parameters = {name: 0.7 * numbers for name, numbers in case["parameters"].items()}
    return case | {"parameters": parameters, "x": 0.7 * case["x"]}


def single_sequences(case: Any) -> Any:
    def cases(generator: torch.Generator) -> list[Case]:
        return [
            case(generator, (6, 3), 2),
            case(generator, (4, 4), 4, training=True),  # square: a transposed matrix shows in the numbers only
            case(generator, (5, 2), 7, by_name=True),
        ]

    return cases


def batches(case: Any) -> Any:
    def cases(generator: torch.Generator) -> list[Case]:
        return in_both_precisions(
            [
                case(generator, (2, 5, 3), 4),
                case(generator, (1, 4, 5), 2, strided=True, training=True),
                case(generator, (3, 2, 4, 2), 3, strided=True),
                case(generator, (3, 3, 3), 3),
                case(generator, (4, 1, 2), 5),
                case(generator, (7, 3), 1, strided=True),
                case(generator, (1, 1), 1),
            ]
        )

    return cases


def two_modules(case: Any) -> Any:
    def cases(generator: torch.Generator) -> list[Case]:
        return in_both_precisions([case(generator, (5, 3), 2), case(generator, (2, 3, 4), 6, training=True)])

    return cases


def seeded_cases(generator: torch.Generator) -> list[Case]:
    sizes = [(3, 2, False), (4, 4, True), (5, 7, False), (1, 1, False)]
    return [
        {
            "arguments": {"d_in": d_in, "d_out": d_out},
            "by_name": by_name,
            "seed": int(torch.randint(SEEDS, (), generator=generator)),
        }
        for d_in, d_out, by_name in sizes
    ]


def observe_draws(answer: Any, case: Case) -> Observation:
    """Which parameters there are, and their numbers right after the seed is set."""
    structure = observe_structure(answer, case)
    torch.manual_seed(case["seed"])
    module = built(answer, case)
    return structure | {f"initial_{name}": attempt(lambda n=name: getattr(module, n)) for name in NAMES}


def bias_cases(generator: torch.Generator) -> list[Case]:
    return [
        with_linears(generator, (4, 3), 2, qkv_bias=True),
        with_linears(generator, (2, 5, 3), 4, qkv_bias=True, by_name=True, training=True),
        with_linears(generator, (4, 4), 4, qkv_bias=False),
        with_linears(generator, (2, 3, 2), 5, qkv_bias=False, by_name=True),
        with_linears(generator, (6, 3), 2),
    ]


def bias_or_not(generator: torch.Generator) -> list[Case]:
    return [*two_modules(with_linears)(generator), with_linears(generator, (3, 2), 4, qkv_bias=True)]


def observe_layers(answer: Any, case: Case) -> Observation:
    """Which parameters and linear layers there are, and the output."""
    return observe_structure(answer, case) | observe_output(answer, case)


# 2.5 ------------------------------------------------------------------------------------------------


class SelfAttention_v1(nn.Module):
    """Stands in for exercise 2.3: the same parameters; calling it gives queries, keys and values, side by side."""

    def __init__(self, d_in: int, d_out: int):
        super().__init__()
        self.W_query = nn.Parameter(torch.rand(d_in, d_out))
        self.W_key = nn.Parameter(torch.rand(d_in, d_out))
        self.W_value = nn.Parameter(torch.rand(d_in, d_out))

    def forward(self, x: Tensor) -> Tensor:
        """(..., T, d_in) -> (..., T, 3 * d_out)"""
        return torch.cat([x @ self.W_query, x @ self.W_key, x @ self.W_value], dim=-1)


class SelfAttention_v2(nn.Module):
    """Stands in for exercise 2.4, as above."""

    def __init__(self, d_in: int, d_out: int, qkv_bias: bool = False):
        super().__init__()
        self.W_query = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_key = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_value = nn.Linear(d_in, d_out, bias=qkv_bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., T, d_in) -> (..., T, 3 * d_out)"""
        return torch.cat([self.W_query(x), self.W_key(x), self.W_value(x)], dim=-1)


def pair(generator: torch.Generator, d_in: int, d_out: int, bias: str = "") -> Case:
    """The numbers of a version 2, of a version 1, and others; ``bias`` is "", "zeros" or "normal"."""
    return {
        "weights": normal(generator, 3, d_out, d_in),
        "biases": normal(generator, 3, d_out) * (bias == "normal") if bias else None,
        "before": normal(generator, 3, d_in, d_out),
        "other_weights": normal(generator, 3, d_out, d_in),
    }


def pairs(generator: torch.Generator) -> list[Case]:
    sizes = [(3, 2), (4, 4), (2, 5), (1, 3), (3, 1)]
    return in_both_precisions([pair(generator, *d) for d in sizes])


def pairs_of_some_size(generator: torch.Generator) -> list[Case]:
    """Without sizes of one, at which `.T.contiguous()` would share its storage: it copies at all others."""
    return in_both_precisions([pair(generator, *d) for d in ((3, 2), (4, 4), (2, 5))])


def pairs_with_bias(generator: torch.Generator) -> list[Case]:
    cases = [pair(generator, 3, 2, bias="normal"), pair(generator, 4, 4, bias="normal")]
    return [*cases, pair(generator, 2, 3, bias="zeros")]  # a bias of zeros is a bias


def made(case: Case) -> tuple[nn.Module, nn.Module]:
    """A version 2 and a version 1 with the numbers of the case."""
    weights, biases, before = case["weights"], case["biases"], case["before"]
    _, d_in, d_out = before.shape
    v2 = SelfAttention_v2(d_in, d_out, qkv_bias=biases is not None).to(before.dtype)
    v1 = SelfAttention_v1(d_in, d_out).to(before.dtype)
    with torch.no_grad():
        for i, name in enumerate(NAMES):
            getattr(v1, name).copy_(before[i])
            getattr(v2, name).weight.copy_(weights[i])
            if biases is not None:
                getattr(v2, name).bias.copy_(biases[i])
    return v2, v1


def numbers_in(v1: nn.Module) -> list[Any]:
    """What version 1 holds under the three names, whatever it is."""
    return [to_data(getattr(v1, name)) for name in NAMES]


def weights_of(v2: nn.Module) -> list[Any]:
    """The three weights of version 2."""
    return [to_data(getattr(v2, name).weight) for name in NAMES]


def same_numbers(first: list[Any], second: list[Any]) -> bool:
    return len(first) == len(second) and all(
        isinstance(a, Tensor) and a.dtype == b.dtype and identical(a, b) for a, b in zip(first, second, strict=True)
    )


def observe_copies(answer: Any, case: Case) -> Observation:
    """What version 1 holds after a copy, and after a second one from the same, trained version 2."""
    v2, v1 = made(case)
    if stopped := raised_by(answer, v2, v1):
        return stopped
    seen = dict(zip(NAMES, numbers_in(v1), strict=True))
    with torch.no_grad():
        for i, name in enumerate(NAMES):
            getattr(v2, name).weight.copy_(case["other_weights"][i])
    if stopped := raised_by(answer, v2, v1):
        return stopped
    return seen | {f"{name}_copied_again": now for name, now in zip(NAMES, numbers_in(v1), strict=True)}


def raised_by(answer: Any, v2: nn.Module, v1: nn.Module) -> Observation:
    """What an answer raises, if it does; what it returns is free."""
    stopped = attempt(lambda: (answer(v2, v1), None)[1])
    return {} if stopped is None else {"raised": stopped}


def observe_independence(answer: Any, case: Case) -> Observation:
    """Whether both modules are whole after a copy and can be trained without each other."""
    v2, v1 = made(case)
    states = RandomStates()
    if stopped := raised_by(answer, v2, v1):
        return stopped
    seen = states.unchanged()
    own, theirs = dict(v1.named_parameters()), dict(v2.named_parameters())
    copied = numbers_in(v1)
    seen["v2_unchanged"] = set(theirs) == {f"{name}.weight" for name in NAMES} and same_numbers(
        weights_of(v2), list(case["weights"])
    )
    seen["v2_still_trainable"] = all(parameter.requires_grad and parameter.is_leaf for parameter in theirs.values())
    seen["still_parameters"] = set(own) == set(NAMES) and all(own[name] is getattr(v1, name) for name in own)
    seen["still_trainable"] = all(getattr(v1, name).requires_grad and getattr(v1, name).is_leaf for name in NAMES)
    with torch.no_grad():
        for parameter in v2.parameters():
            parameter.add_(1)
    seen["v1_left_alone_by_training_v2"] = same_numbers(numbers_in(v1), copied)
    trained = weights_of(v2)
    with torch.no_grad():
        for name in NAMES:
            getattr(v1, name).add_(1)
    seen["v2_left_alone_by_training_v1"] = same_numbers(weights_of(v2), trained)
    return seen


def observe_refusal(answer: Any, case: Case) -> Observation:
    """The error for a version 2 with bias."""
    return {"error": raised_by(answer, *made(case)).get("raised")}


PROBES = {
    "2.1": {
        "values": Probe(projections, plainly),
        "any_input": Probe(odd_projections, plainly),
        "manners": Probe(two_projections, watched),
    },
    "2.2": {
        "values": Probe(queries_and_keys, plainly),
        "any_input": Probe(odd_queries_and_keys, plainly),
        "manners": Probe(two_queries_and_keys, watched),
    },
    "2.3": {
        "values": Probe(single_sequences(with_parameters), observe_output),
        "draws": Probe(seeded_cases, observe_draws),
        "any_input": Probe(batches(with_parameters), observe_output),
        "manners": Probe(two_modules(with_parameters), observe_manners),
    },
    "2.4": {
        "values": Probe(single_sequences(with_linears), observe_output),
        "bias": Probe(bias_cases, observe_layers),
        "any_input": Probe(batches(with_linears), observe_output),
        "manners": Probe(bias_or_not, observe_manners),
    },
    "2.5": {
        "values": Probe(pairs, observe_copies),
        "independence": Probe(pairs_of_some_size, observe_independence),
        "error": Probe(pairs_with_bias, observe_refusal),
    },
}
