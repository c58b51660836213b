"""How to try the answers of chapter 1. Legend: B batch, T tokens, d features."""

from typing import Any

import torch
from torch import Tensor

from utils.checks.probes.observe import (
    Case,
    Observation,
    Probe,
    attempt,
    call_plainly,
    call_watched,
    in_both_precisions,
    normal,
    plainly,
    watched,
)
from utils.normalizers import BaseNormalizer

# 1.1 ------------------------------------------------------------------------------------------------


def vector_pairs(generator: torch.Generator) -> list[Case]:
    cases = [
        {"query": torch.tensor([1.0, 2.0, 3.0]), "key": torch.tensor([4.0, -5.0, 6.0])},
        {"query": normal(generator, 3), "key": normal(generator, 3)},
        {"query": normal(generator, 7), "key": normal(generator, 7)},
    ]
    return cases


def odd_vector_pairs(generator: torch.Generator) -> list[Case]:
    cases = [
        {"query": normal(generator, 1), "key": normal(generator, 1)},
        {"query": normal(generator, 2), "key": normal(generator, 2)},
        {"query": normal(generator, 65), "key": normal(generator, 65), "strided": True},
    ]
    return in_both_precisions(cases)


def two_vector_pairs(generator: torch.Generator) -> list[Case]:
    return in_both_precisions([{"query": normal(generator, 5), "key": normal(generator, 5)} for _ in range(2)])


# 1.2 ------------------------------------------------------------------------------------------------


def positive_scores(generator: torch.Generator) -> list[Case]:
    return [
        {"inputs": torch.tensor([1.0, 8.0, 1.0])},
        {"inputs": normal(generator, 4).abs() + 0.1},
        {"inputs": normal(generator, 1).abs() + 0.1},
    ]


def batched_scores(generator: torch.Generator) -> list[Case]:
    cases = [
        {"inputs": normal(generator, 3, 5).abs() + 0.1},
        {"inputs": normal(generator, 2, 4, 3).abs() + 0.1, "strided": True},
        {"inputs": normal(generator, 1, 3, 3).abs() + 0.1},
        {"inputs": torch.tensor([[2.0, -1.0], [0.5, -2.0]])},  # a sum above zero and one below
    ]
    return in_both_precisions(cases)


def normalize_plainly(answer: Any, case: Case) -> Observation:
    return plainly(answer().normalize, case)


def normalize_watched(answer: Any, case: Case) -> Observation:
    inherits = isinstance(answer, type) and issubclass(answer, BaseNormalizer)
    return watched(answer().normalize, case) | {"inherits_from_BaseNormalizer": inherits}


# 1.3 ------------------------------------------------------------------------------------------------


def moderate_rows(generator: torch.Generator) -> list[Case]:
    return [
        {"scores": torch.tensor([1.0, 8.0, 1.0])},
        {"scores": normal(generator, 6)},
        {"scores": normal(generator, 1)},
        {"scores": 3 * normal(generator, 4, 5)},
    ]


def other_dimensions(generator: torch.Generator) -> list[Case]:
    cases = [
        {"scores": normal(generator, 3, 5), "options": {"dim": 0}},
        {"scores": normal(generator, 3, 5), "options": {"dim": 1}, "strided": True},
        {"scores": normal(generator, 2, 4, 3), "options": {"dim": -2}, "strided": True},
        {"scores": normal(generator, 2, 3, 5)},
        {"scores": normal(generator, 1, 3, 2, 4), "options": {"dim": 2}},
    ]
    return in_both_precisions(cases)


def extreme_rows(generator: torch.Generator) -> list[Case]:
    hidden = normal(generator, 5, 5).masked_fill(torch.ones(5, 5).triu(1).bool(), float("-inf"))
    far_apart = torch.stack([normal(generator, 3) + 1e4, normal(generator, 3) - 1e4])
    cases = [
        {"scores": torch.tensor([1e4, 0.0, -1e4])},
        {"scores": torch.tensor([-1e4, -1e4, -1e4])},
        {"scores": torch.tensor([[1e4, 1e4], [-1e4, 1e4]])},
        {"scores": far_apart},  # one row far up, one far down: each needs a maximum of its own
        {"scores": hidden},
        {"scores": hidden * 1e3, "options": {"dim": 1}},
    ]
    return in_both_precisions(cases)


def two_score_rows(generator: torch.Generator) -> list[Case]:
    cases = [{"scores": normal(generator, 2, 5)}, {"scores": normal(generator, 3, 4), "options": {"dim": 0}}]
    return in_both_precisions(cases)


# 1.4 and 1.5 ----------------------------------------------------------------------------------------


def queries_and_inputs(generator: torch.Generator) -> list[Case]:
    return [{"query": inputs[1], "inputs": inputs} for inputs in (normal(generator, 6, 3), normal(generator, 4, 4))] + [
        {"query": normal(generator, 3), "inputs": normal(generator, 5, 3)}
    ]


def odd_queries_and_inputs(generator: torch.Generator) -> list[Case]:
    cases = [
        {"query": normal(generator, 2), "inputs": normal(generator, 9, 2), "strided": True},
        {"query": normal(generator, 3), "inputs": normal(generator, 1, 3)},
        {"query": normal(generator, 1), "inputs": normal(generator, 4, 1)},
    ]
    return in_both_precisions(cases)


def two_queries_and_inputs(generator: torch.Generator) -> list[Case]:
    return in_both_precisions([{"query": normal(generator, 3), "inputs": normal(generator, 5, 3)} for _ in range(2)])


def token_matrices(generator: torch.Generator) -> list[Case]:
    return [{"inputs": normal(generator, 6, 3)}, {"inputs": normal(generator, 3, 3)}]


def batches_of_tokens(generator: torch.Generator) -> list[Case]:
    cases = [
        {"inputs": normal(generator, 2, 5, 3)},
        {"inputs": normal(generator, 1, 4, 2)},
        {"inputs": normal(generator, 3, 2, 4, 5), "strided": True},
        {"inputs": normal(generator, 4, 4, 4)},
        {"inputs": normal(generator, 1, 1)},
    ]
    return in_both_precisions(cases)


def two_token_matrices(generator: torch.Generator) -> list[Case]:
    return in_both_precisions([{"inputs": normal(generator, 4, 3)}, {"inputs": normal(generator, 2, 3, 2)}])


# 1.6 ------------------------------------------------------------------------------------------------


class SquareNormalizer(BaseNormalizer):
    """Divides squares by their sum: no other rule gives these weights, so its use can be seen."""

    def normalize(self, inputs: Tensor) -> Tensor:
        """Scores (..., d) -> weights (..., d)."""
        squares = inputs * inputs + 0.1
        return squares / squares.sum(dim=-1, keepdim=True)


ARGUMENTS = {
    "get_scores": ("inputs",),
    "get_weights": ("scores",),
    "get_context_vectors": ("inputs", "weights"),
    "__call__": ("inputs",),
}


def attention_cases(generator: torch.Generator) -> list[Case]:
    cases: list[Case] = [
        {"inputs": inputs, "scores": normal(generator, *scores), "weights": normal(generator, *scores)}
        for inputs, scores in (
            (normal(generator, 6, 3), (6, 6)),
            (normal(generator, 2, 5, 3), (2, 5, 5)),
            (normal(generator, 1, 4, 4), (1, 4, 4)),
            (normal(generator, 2, 1, 3, 2), (2, 1, 3, 3)),
            (normal(generator, 1, 2), (1, 1)),
        )
    ]
    return in_both_precisions(cases)


def observe_steps(answer: Any, case: Case) -> Observation:
    inputs, scores, weights = case["inputs"], case["scores"], case["weights"]
    attention = answer()
    return {
        "get_scores": call_plainly(attention.get_scores, inputs, strided=True),
        "get_weights": call_plainly(attention.get_weights, scores, strided=True),
        "get_context_vectors": call_plainly(attention.get_context_vectors, -inputs, weights, strided=True),
    }


def observe_call(answer: Any, case: Case) -> Observation:
    return {"result": call_plainly(answer(), case["inputs"], strided=True)}


def observe_normalizer(answer: Any, case: Case) -> Observation:
    by_position, by_name = answer(SquareNormalizer()), answer(normalizer=SquareNormalizer())
    by_default = answer(normalizer=None)  # made before the others are used: none may change another
    return {
        "get_weights": call_plainly(by_position.get_weights, case["scores"]),
        "result": call_plainly(by_name, case["inputs"]),
        "result_with_None": call_plainly(by_default, case["inputs"]),
    }


def method_cases(generator: torch.Generator) -> list[Case]:
    return [case | {"method": method} for case in attention_cases(generator)[:4] for method in ARGUMENTS]


def observe_manners(answer: Any, case: Case) -> Observation:
    attention = answer()
    parameters = getattr(attention, "parameters", list)
    seen = call_watched(getattr(attention, case["method"]), *(case[name] for name in ARGUMENTS[case["method"]]))
    return seen | {"number_of_parameters": attempt(lambda: len(list(parameters())))}


PROBES = {
    "1.1": {
        "values": Probe(vector_pairs, plainly),
        "any_input": Probe(odd_vector_pairs, plainly),
        "manners": Probe(two_vector_pairs, watched),
    },
    "1.2": {
        "values": Probe(positive_scores, normalize_plainly),
        "any_input": Probe(batched_scores, normalize_plainly),
        "manners": Probe(batched_scores, normalize_watched),
    },
    "1.3": {
        "values": Probe(moderate_rows, plainly),
        "any_input": Probe(other_dimensions, plainly),
        "extremes": Probe(extreme_rows, plainly),
        "manners": Probe(two_score_rows, watched),
    },
    "1.4": {
        "values": Probe(queries_and_inputs, plainly),
        "any_input": Probe(odd_queries_and_inputs, plainly),
        "manners": Probe(two_queries_and_inputs, watched),
    },
    "1.5": {
        "values": Probe(token_matrices, plainly),
        "any_input": Probe(batches_of_tokens, plainly),
        "manners": Probe(two_token_matrices, watched),
    },
    "1.6": {
        "steps": Probe(attention_cases, observe_steps),
        "call": Probe(attention_cases, observe_call),
        "normalizer": Probe(attention_cases, observe_normalizer),
        "manners": Probe(method_cases, observe_manners),
    },
}
