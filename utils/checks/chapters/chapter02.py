"""Exercises of chapter 2, self-attention."""

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.attention import SelfAttention_v1, SelfAttention_v2, attend, copy_weights, project, scaled_scores
from utils.checks.chapters.parts import any_input, manners, values
from utils.checks.compare import FACTS, show
from utils.checks.exercise import Exercise, Misconception, Part
from utils.checks.probes.chapter02 import NAMES, PROBES
from utils.checks.probes.observe import Case, Observation, Raised
from utils.normalizers import SoftmaxNormalizer

Step = Callable[[Tensor, Tensor, Tensor], Any]  # from queries, keys and values to the result
SOFTMAX = SoftmaxNormalizer()

# 2.1 ------------------------------------------------------------------------------------------------


def transposed_projections(x: Tensor, W_query: Tensor, W_key: Tensor, W_value: Tensor):
    return x @ W_query.T, x @ W_key.T, x @ W_value.T


def keys_first(x: Tensor, W_query: Tensor, W_key: Tensor, W_value: Tensor):
    return x @ W_key, x @ W_query, x @ W_value


def values_first(x: Tensor, W_query: Tensor, W_key: Tensor, W_value: Tensor):
    return x @ W_value, x @ W_key, x @ W_query


def one_matrix_for_all(x: Tensor, W_query: Tensor, W_key: Tensor, W_value: Tensor):
    return x @ W_query, x @ W_query, x @ W_query


def one_after_the_other(x: Tensor, W_query: Tensor, W_key: Tensor, W_value: Tensor):
    queries = x @ W_query
    keys = queries @ W_key
    return queries, keys, keys @ W_value


def joined_projections(x: Tensor, W_query: Tensor, W_key: Tensor, W_value: Tensor):
    return torch.cat(project(x, W_query, W_key, W_value), dim=-1)


def weights_first(x: Tensor, W_query: Tensor, W_key: Tensor, W_value: Tensor):
    return W_query @ x, W_key @ x, W_value @ x


def projections_of_one_matrix(x: Tensor, W_query: Tensor, W_key: Tensor, W_value: Tensor):
    return torch.mm(x, W_query), torch.mm(x, W_key), torch.mm(x, W_value)


def projections_of_a_batch(x: Tensor, W_query: Tensor, W_key: Tensor, W_value: Tensor):
    batch_size, num_tokens, d_in = x.shape
    flat = project(x.reshape(-1, d_in), W_query, W_key, W_value)
    return tuple(rows.reshape(batch_size, num_tokens, -1) for rows in flat)


def scaled_projections(x: Tensor, W_query: Tensor, W_key: Tensor, W_value: Tensor):
    return tuple(rows / W_query.shape[-1] ** 0.5 for rows in project(x, W_query, W_key, W_value))


def context_of_projections(x: Tensor, W_query: Tensor, W_key: Tensor, W_value: Tensor):
    return attend(*project(x, W_query, W_key, W_value), SOFTMAX)


EXERCISE_2_1 = Exercise(
    id="2.1",
    title="Three projections",
    reference=project,
    parts=(
        values(1, "Three matrix products, `x @ W_query` and so on, returned in the order queries, keys, values."),
        any_input(1, "Batches in front, float32 and float64"),
        manners(1),
    ),
    probes=PROBES["2.1"],
    misconceptions=(
        Misconception(
            "transposed weights",
            transposed_projections,
            "You transposed the weights. They have shape (d_in, d_out) already, so `x @ W_query` fits as it is; the "
            "transpose belongs to `nn.Linear`, which stores (d_out, d_in).",
        ),
        Misconception(
            "keys first",
            keys_first,
            "You return the keys before the queries. The order is queries, keys, values.",
        ),
        Misconception(
            "values first",
            values_first,
            "You return the values first and the queries last. The order is queries, keys, values.",
        ),
        Misconception(
            "one matrix for all",
            one_matrix_for_all,
            "All three results come from `W_query`. Each role has a matrix of its own: `W_query`, `W_key`, `W_value`.",
        ),
        Misconception(
            "one after the other",
            one_after_the_other,
            "You project what has been projected before. All three start from the same `x`.",
        ),
        Misconception(
            "joined",
            joined_projections,
            "You joined the three results into one tensor. Return them side by side: `return queries, keys, values`.",
        ),
        Misconception(
            "weights first",
            weights_first,
            "You multiply from the wrong side. Tokens are the rows of `x`, so `x` comes first: `x @ W_query`.",
        ),
        Misconception(
            "one matrix only",
            projections_of_one_matrix,
            "Right for one matrix, but `torch.mm` knows no batches. `@` takes any number of dimensions in front.",
        ),
        Misconception(
            "batches of matrices only",
            projections_of_a_batch,
            "Your code expects exactly three dimensions (B, T, d_in). `@` takes any number of dimensions in front, "
            "also none, so no shape needs to be unpacked.",
        ),
        Misconception(
            "scaled",
            scaled_projections,
            "You divided the projections by √d. Leave them as they are: it is the scores that are scaled, in the "
            "next exercise.",
        ),
        Misconception(
            "context vectors",
            context_of_projections,
            "You went on to the context vectors. Only the three projections are asked for here.",
        ),
    ),
)


# 2.2 ------------------------------------------------------------------------------------------------


def dot_products(queries: Tensor, keys: Tensor) -> Tensor:
    return queries @ keys.transpose(-2, -1)


def scores_unscaled(queries: Tensor, keys: Tensor) -> Tensor:
    return dot_products(queries, keys)


def scores_over_d(queries: Tensor, keys: Tensor) -> Tensor:
    return dot_products(queries, keys) / keys.shape[-1]


def scores_multiplied(queries: Tensor, keys: Tensor) -> Tensor:
    return dot_products(queries, keys) * keys.shape[-1] ** 0.5


def scores_over_root_of_keys(queries: Tensor, keys: Tensor) -> Tensor:
    return dot_products(queries, keys) / keys.shape[-2] ** 0.5


def scores_over_root_of_queries(queries: Tensor, keys: Tensor) -> Tensor:
    return dot_products(queries, keys) / queries.shape[-2] ** 0.5


def scores_over_half_of_d(queries: Tensor, keys: Tensor) -> Tensor:
    return dot_products(queries, keys) / keys.shape[-1] ** 1 / 2


def scores_over_whole_root(queries: Tensor, keys: Tensor) -> Tensor:
    return dot_products(queries, keys) / int(keys.shape[-1] ** 0.5)


def scores_as_weights(queries: Tensor, keys: Tensor) -> Tensor:
    return torch.softmax(scaled_scores(queries, keys), dim=-1)


def scores_transposed(queries: Tensor, keys: Tensor) -> Tensor:
    return scaled_scores(keys, queries)


def scores_of_one_matrix(queries: Tensor, keys: Tensor) -> Tensor:
    return queries @ keys.T / keys.shape[-1] ** 0.5


def scores_of_a_batch(queries: Tensor, keys: Tensor) -> Tensor:
    return queries @ keys.transpose(1, 2) / keys.shape[-1] ** 0.5


def scores_of_features(queries: Tensor, keys: Tensor) -> Tensor:
    return queries.transpose(-2, -1) @ keys / keys.shape[-1] ** 0.5


def cosine_scores(queries: Tensor, keys: Tensor) -> Tensor:
    return dot_products(F.normalize(queries, dim=-1), F.normalize(keys, dim=-1))


EXERCISE_2_2 = Exercise(
    id="2.2",
    title="Scaled scores",
    reference=scaled_scores,
    parts=(
        values(2, "All dot products are `queries @ keys.transpose(-2, -1)`; then divide by the root of their length."),
        any_input(1, "Batches in front, more or fewer keys than queries, float32 and float64"),
        manners(1),
    ),
    probes=PROBES["2.2"],
    misconceptions=(
        Misconception(
            "not scaled",
            scores_unscaled,
            "These are the plain dot products. Their spread grows with √d_k: divide by `keys.shape[-1] ** 0.5`.",
        ),
        Misconception(
            "divided by d_k",
            scores_over_d,
            "You divided by d_k itself. The spread of a dot product grows with the root of its length, so divide by "
            "√d_k.",
        ),
        Misconception(
            "multiplied",
            scores_multiplied,
            "You made the scores larger by √d_k. Divide by it; with a power of -0.5 you would multiply.",
        ),
        Misconception(
            "root of the number of keys",
            scores_over_root_of_keys,
            "You divided by the root of the number of keys. What counts is how long each key is, not how many there "
            "are: `keys.shape[-1]`.",
        ),
        Misconception(
            "root of the number of queries",
            scores_over_root_of_queries,
            "You divided by the root of the number of queries. What counts is how long each query is, not how many "
            "there are: `queries.shape[-1]`.",
        ),
        Misconception(
            "half of d_k",
            scores_over_half_of_d,
            "`/ d_k ** 1 / 2` is read from the left: divided by d_k, then by 2. Write `d_k ** 0.5` instead.",
        ),
        Misconception(
            "whole root",
            scores_over_whole_root,
            "Your root was rounded to a whole number. Leave out `int` and `//`: √3 is 1.73, not 1.",
        ),
        Misconception(
            "weights",
            scores_as_weights,
            "You took the softmax already. The scores are asked for, before they become weights.",
        ),
        Misconception(
            "transposed",
            scores_transposed,
            "Rows and columns are swapped. Row i belongs to query i: queries first, then the keys transposed.",
        ),
        Misconception(
            "one matrix only",
            scores_of_one_matrix,
            "Right for one matrix; with a batch in front, `.T` turns all dimensions around. "
            "`transpose(-2, -1)` swaps only the last two.",
        ),
        Misconception(
            "batches of matrices only",
            scores_of_a_batch,
            "`transpose(1, 2)` fits three dimensions only. Count from the end, `transpose(-2, -1)`, and any number "
            "of dimensions may stand in front.",
        ),
        Misconception(
            "features",
            scores_of_features,
            "You transposed the queries, which compares features with features. Tokens are the rows: it is the keys "
            "that are transposed.",
        ),
        Misconception(
            "cosine",
            cosine_scores,
            "You divided each dot product by the lengths of its vectors: that is the cosine, always between -1 and 1. "
            "Divide all scores by the one number √d_k.",
        ),
    ),
)


# 2.3 and 2.4: the steps after the projections can go wrong in the same ways ------------------------------


def without_scaling(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return torch.softmax(dot_products(queries, keys), dim=-1) @ values


def over_the_queries(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return torch.softmax(scaled_scores(queries, keys), dim=-2) @ values


def over_dimension_one(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return torch.softmax(scaled_scores(queries, keys), dim=1) @ values


def of_one_matrix(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return torch.softmax(scores_of_one_matrix(queries, keys), dim=-1) @ values


def root_of_tokens(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return torch.softmax(scores_over_root_of_keys(queries, keys), dim=-1) @ values


def scaled_after_softmax(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return torch.softmax(dot_products(queries, keys), dim=-1) / keys.shape[-1] ** 0.5 @ values


def without_softmax(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return scaled_scores(queries, keys) @ values


def stops_at_the_weights(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return torch.softmax(scaled_scores(queries, keys), dim=-1)


def with_the_weights(queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    weights = torch.softmax(scaled_scores(queries, keys), dim=-1)
    return weights @ values, weights


def keys_as_values(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return attend(queries, keys, keys, SOFTMAX)


def keys_asking(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return attend(keys, queries, values, SOFTMAX)


def v1_with(step: Step) -> type[nn.Module]:
    """Version 1 with another last step."""

    class Version1(SelfAttention_v1):
        def forward(self, x: Tensor) -> Any:
            return step(*project(x, self.W_query, self.W_key, self.W_value))

    return Version1


def v2_with(step: Step) -> type[nn.Module]:
    """Version 2 with another last step."""

    class Version2(SelfAttention_v2):
        def forward(self, x: Tensor) -> Any:
            return step(self.W_query(x), self.W_key(x), self.W_value(x))

    return Version2


NO_SCALING = "The scores are not scaled: divide them by the root of the keys' length before the softmax."
OVER_THE_QUERIES = (
    "Your softmax runs over the queries, so the weights of one query don't add to one. Each row of the scores "
    "belongs to one query: `dim=-1`."
)
OVER_DIMENSION_ONE = (
    "`dim=1` is the keys for one sequence, but the queries as soon as a batch stands in front. Count from the end: "
    "`dim=-1`."
)
ONE_MATRIX_ONLY = (
    "Right for one sequence; with a batch in front, `.T` turns all dimensions around. `transpose(-2, -1)` swaps only "
    "the last two."
)
ROOT_OF_TOKENS = (
    "You divided by the root of the number of tokens. What counts is how long each key is, not how many there are: "
    "`keys.shape[-1]`."
)
NO_SOFTMAX = "The values are weighted with the raw scores. Turn the scores into weights first: softmax over the keys."
STOPS_AT_THE_WEIGHTS = "These are the weights (T × T). One step is left: the weights times the values."
WITH_THE_WEIGHTS = "You return the weights as well. Only the context vectors are asked for."
KEYS_AS_VALUES = "You blend the keys. What a token hands on is its value: `attn_weights @ values`."


# 2.3 ------------------------------------------------------------------------------------------------


class NormalDraws(SelfAttention_v1):
    def __init__(self, d_in: int, d_out: int):
        super().__init__(d_in, d_out)
        for name in NAMES:
            setattr(self, name, nn.Parameter(torch.randn(d_in, d_out)))


class KeyDrawnFirst(SelfAttention_v1):
    def __init__(self, d_in: int, d_out: int):
        super().__init__(d_in, d_out)
        self.W_query, self.W_key = self.W_key, self.W_query


class SeedsItself(SelfAttention_v1):
    def __init__(self, d_in: int, d_out: int):
        torch.manual_seed(123)
        super().__init__(d_in, d_out)


class LinearLayers(SelfAttention_v2):
    def __init__(self, d_in: int, d_out: int):
        super().__init__(d_in, d_out)


class TransposedShapes(nn.Module):
    def __init__(self, d_in: int, d_out: int):
        super().__init__()
        for name in NAMES:
            setattr(self, name, nn.Parameter(torch.rand(d_out, d_in)))

    def forward(self, x: Tensor) -> Tensor:
        return attend(*transposed_projections(x, self.W_query, self.W_key, self.W_value), SOFTMAX)


class PlainTensors(nn.Module):
    def __init__(self, d_in: int, d_out: int):
        super().__init__()
        self.W_query, self.W_key, self.W_value = torch.rand(3, d_in, d_out)

    def forward(self, x: Tensor) -> Tensor:
        return attend(*project(x, self.W_query, self.W_key, self.W_value), SOFTMAX)


class NoSuperInit(SelfAttention_v1):
    def __init__(self, d_in: int, d_out: int):
        self.W_query = nn.Parameter(torch.rand(d_in, d_out))


class FrozenParameters(SelfAttention_v1):
    def __init__(self, d_in: int, d_out: int):
        super().__init__(d_in, d_out)
        self.requires_grad_(False)


class QueriesAsKeys(SelfAttention_v1):
    def forward(self, x: Tensor) -> Tensor:
        return attend(*project(x, self.W_query, self.W_query, self.W_value), SOFTMAX)


class RootOfInputSize(SelfAttention_v1):
    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = project(x, self.W_query, self.W_key, self.W_value)
        return torch.softmax(dot_products(queries, keys) / x.shape[-1] ** 0.5, dim=-1) @ values


class BlendsTheInputs(SelfAttention_v1):
    def forward(self, x: Tensor) -> Tensor:
        queries, keys, _ = project(x, self.W_query, self.W_key, self.W_value)
        return attend(queries, keys, x, SOFTMAX)


EXERCISE_2_3 = Exercise(
    id="2.3",
    title="Self-attention with parameters",
    reference=SelfAttention_v1,
    parts=(
        values(2, "Project, score and scale, softmax over the keys, weights times values.", "Context vectors"),
        Part(
            "draws",
            "Three parameters, drawn with `torch.rand`: query, key, value",
            1,
            "`nn.Parameter(torch.rand(d_in, d_out))` three times, in the order query, key, value.",
            needs=("values",),
        ),
        any_input(1, "Batches in front, float32 and float64"),
        manners(1, "Gradients reach inputs and parameters; calling it draws nothing"),
    ),
    probes=PROBES["2.3"],
    misconceptions=(
        Misconception("not scaled", v1_with(without_scaling), NO_SCALING),
        Misconception("softmax over the queries", v1_with(over_the_queries), OVER_THE_QUERIES),
        Misconception("fixed dimension", v1_with(over_dimension_one), OVER_DIMENSION_ONE),
        Misconception(
            "normal draws",
            NormalDraws,
            "You drew normal numbers with `torch.randn`. `torch.rand` draws uniformly between 0 and 1.",
        ),
        Misconception(
            "key drawn first",
            KeyDrawnFirst,
            "Your parameters are drawn in another order: key before query. Draw query, key, value, so that a seed "
            "gives everyone the same numbers.",
        ),
        Misconception(
            "seeds itself",
            SeedsItself,
            "Your class sets the seed, so all its objects are alike. Whoever makes the object sets the seed: leave "
            "`torch.manual_seed` out of the class.",
        ),
        Misconception(
            "linear layers",
            LinearLayers,
            "You used `nn.Linear`: that is version 2, the next exercise. Here each weight is an `nn.Parameter` of "
            "shape (d_in, d_out).",
        ),
        Misconception(
            "transposed shapes",
            TransposedShapes,
            "Your weights have shape (d_out, d_in). They should be (d_in, d_out), so that `x @ self.W_query` needs no "
            "transpose.",
        ),
        Misconception(
            "plain tensors",
            PlainTensors,
            "Your weights are plain tensors: the module does not know them, and no optimizer will. Wrap each in "
            "`nn.Parameter`.",
        ),
        Misconception(
            "no super().__init__()",
            NoSuperInit,
            "An `nn.Module` needs its own constructor before it can hold parameters. Begin `__init__` with "
            "`super().__init__()`.",
        ),
        Misconception(
            "frozen parameters",
            FrozenParameters,
            "No gradient reaches your parameters, so they can't learn. Leave out `requires_grad=False`, and `.data` "
            "and `.detach()` where you compute with them.",
        ),
        Misconception(
            "queries as keys",
            QueriesAsKeys,
            "Your keys are made with `W_query`; `W_key` is never used. Each role has a matrix of its own.",
        ),
        Misconception("keys as values", v1_with(keys_as_values), KEYS_AS_VALUES),
        Misconception(
            "blends the inputs",
            BlendsTheInputs,
            "Your weights meet the inputs, as in chapter 1. Now they blend the values, `x @ self.W_value`.",
        ),
        Misconception(
            "root of the input size",
            RootOfInputSize,
            "You divided by √d_in. Queries and keys have d_out entries, so the dot product grows with √d_out: use "
            "`keys.shape[-1]`.",
        ),
        Misconception("root of the number of tokens", v1_with(root_of_tokens), ROOT_OF_TOKENS),
        Misconception(
            "scaled after the softmax",
            v1_with(scaled_after_softmax),
            "You scaled the weights instead of the scores, so they no longer add to one. Divide by √d_out before the "
            "softmax.",
        ),
        Misconception("no softmax", v1_with(without_softmax), NO_SOFTMAX),
        Misconception("one sequence only", v1_with(of_one_matrix), ONE_MATRIX_ONLY),
        Misconception("stops at the weights", v1_with(stops_at_the_weights), STOPS_AT_THE_WEIGHTS),
        Misconception("returns the weights, too", v1_with(with_the_weights), WITH_THE_WEIGHTS),
    ),
)


# 2.4 ------------------------------------------------------------------------------------------------


class AlwaysBias(SelfAttention_v2):
    def __init__(self, d_in: int, d_out: int, qkv_bias: bool = False):
        super().__init__(d_in, d_out, True)


class NeverBias(SelfAttention_v2):
    def __init__(self, d_in: int, d_out: int, qkv_bias: bool = False):
        super().__init__(d_in, d_out, False)


class BiasByDefault(SelfAttention_v2):
    def __init__(self, d_in: int, d_out: int, qkv_bias: bool = True):
        super().__init__(d_in, d_out, qkv_bias)


class BiasUnused(SelfAttention_v2):
    def forward(self, x: Tensor) -> Tensor:
        return attend(*transposed_projections(x, self.W_query.weight, self.W_key.weight, self.W_value.weight), SOFTMAX)


class BiasOnValuesOnly(SelfAttention_v2):
    def __init__(self, d_in: int, d_out: int, qkv_bias: bool = False):
        super().__init__(d_in, d_out, qkv_bias)
        self.W_query = nn.Linear(d_in, d_out, bias=False)
        self.W_key = nn.Linear(d_in, d_out, bias=False)


class VersionOne(SelfAttention_v1):
    def __init__(self, d_in: int, d_out: int, qkv_bias: bool = False):
        super().__init__(d_in, d_out)


class SizesSwapped(SelfAttention_v2):
    def __init__(self, d_in: int, d_out: int, qkv_bias: bool = False):
        super().__init__(d_out, d_in, qkv_bias)


class WeightsUntransposed(SelfAttention_v2):
    def forward(self, x: Tensor) -> Tensor:
        return attend(*project(x, self.W_query.weight, self.W_key.weight, self.W_value.weight), SOFTMAX)


class OneLayerForAll(nn.Module):
    def __init__(self, d_in: int, d_out: int, qkv_bias: bool = False):
        super().__init__()
        self.W_qkv = nn.Linear(d_in, 3 * d_out, bias=qkv_bias)

    def forward(self, x: Tensor) -> Tensor:
        return attend(*self.W_qkv(x).chunk(3, dim=-1), SOFTMAX)


class ShortNames(nn.Module):
    def __init__(self, d_in: int, d_out: int, qkv_bias: bool = False):
        super().__init__()
        self.query = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.key = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.value = nn.Linear(d_in, d_out, bias=qkv_bias)

    def forward(self, x: Tensor) -> Tensor:
        return attend(self.query(x), self.key(x), self.value(x), SOFTMAX)


class QueryLayerAsKeys(SelfAttention_v2):
    def forward(self, x: Tensor) -> Tensor:
        return attend(self.W_query(x), self.W_query(x), self.W_value(x), SOFTMAX)


EXERCISE_2_4 = Exercise(
    id="2.4",
    title="Self-attention with linear layers",
    reference=SelfAttention_v2,
    parts=(
        values(1, "As in exercise 2.3, with `self.W_query(x)` instead of `x @ self.W_query`.", "Context vectors"),
        Part(
            "bias",
            "Three `nn.Linear`, with a bias only if `qkv_bias` asks for it",
            1,
            "Hand `qkv_bias` on to all three: `nn.Linear(d_in, d_out, bias=qkv_bias)`.",
            needs=("values",),
        ),
        any_input(1, "Batches in front, float32 and float64"),
        manners(1, "Gradients reach inputs and parameters; calling it draws nothing"),
    ),
    probes=PROBES["2.4"],
    misconceptions=(
        Misconception(
            "always a bias",
            AlwaysBias,
            "`nn.Linear` has a bias unless told otherwise. Tell it: `nn.Linear(d_in, d_out, bias=qkv_bias)`.",
        ),
        Misconception(
            "never a bias",
            NeverBias,
            "Your class takes `qkv_bias` but never uses it. Hand it on: `nn.Linear(d_in, d_out, bias=qkv_bias)`.",
        ),
        Misconception(
            "bias by default",
            BiasByDefault,
            "With you the bias is there unless it is switched off. The default should be none: `qkv_bias=False`.",
        ),
        Misconception(
            "bias unused",
            BiasUnused,
            "You multiply with the layers' weights yourself and leave their biases out. Call the layers: "
            "`self.W_query(x)` does both.",
        ),
        Misconception(
            "bias on the values only",
            BiasOnValuesOnly,
            "Only the values get a bias. `qkv_bias` is for queries, keys and values alike.",
        ),
        Misconception(
            "version 1",
            VersionOne,
            "Your weights are still plain parameters, as in version 1. Make each of the three an `nn.Linear(d_in, "
            "d_out, bias=qkv_bias)`.",
        ),
        Misconception(
            "sizes swapped",
            SizesSwapped,
            "Your layers have their sizes swapped. `nn.Linear` is told d_in first, then d_out; that it stores its "
            "weight as (d_out, d_in) is its own affair.",
        ),
        Misconception(
            "weights untransposed",
            WeightsUntransposed,
            "`nn.Linear` stores its weight as (d_out, d_in), so `x @ self.W_query.weight` is not the projection. "
            "Call the layer: `self.W_query(x)`.",
        ),
        Misconception(
            "one layer for all",
            OneLayerForAll,
            "You put the three projections into one layer. That is a fine trick, but here `W_query`, `W_key` and "
            "`W_value` are asked for, one `nn.Linear` each.",
        ),
        Misconception(
            "other names",
            ShortNames,
            "Your layers have names of their own. Call them `W_query`, `W_key` and `W_value`, so that weights can be "
            "loaded and copied by name.",
        ),
        Misconception(
            "query layer for the keys",
            QueryLayerAsKeys,
            "Your keys come from `W_query`; `W_key` is never used. Each role has a layer of its own.",
        ),
        Misconception("not scaled", v2_with(without_scaling), NO_SCALING),
        Misconception("softmax over the queries", v2_with(over_the_queries), OVER_THE_QUERIES),
        Misconception("fixed dimension", v2_with(over_dimension_one), OVER_DIMENSION_ONE),
        Misconception(
            "keys ask",
            v2_with(keys_asking),
            "Queries and keys have changed places. The scores are queries times keys transposed: row i belongs to "
            "query i.",
        ),
        Misconception("root of the number of tokens", v2_with(root_of_tokens), ROOT_OF_TOKENS),
        Misconception("no softmax", v2_with(without_softmax), NO_SOFTMAX),
        Misconception("keys as values", v2_with(keys_as_values), KEYS_AS_VALUES),
        Misconception("one sequence only", v2_with(of_one_matrix), ONE_MATRIX_ONLY),
        Misconception("stops at the weights", v2_with(stops_at_the_weights), STOPS_AT_THE_WEIGHTS),
        Misconception("returns the weights, too", v2_with(with_the_weights), WITH_THE_WEIGHTS),
    ),
)


# 2.5 ------------------------------------------------------------------------------------------------

INDEPENDENCE = {
    "v2_unchanged": "Your function changes `v2`. It is only read from; `v1` receives.",
    "v2_still_trainable": "Your function changes `v2`: its parameters can't be trained any more. Leave it as it is.",
    "still_parameters": "After your function, `W_query`, `W_key` and `W_value` are no longer the parameters of `v1`, "
    "or not the only ones.",
    "still_trainable": "After your function the parameters of `v1` can't be trained any more. They should be "
    "parameters of their own, with `requires_grad`.",
    "v1_left_alone_by_training_v2": "Changing `v2` afterwards changes `v1`, too: they share their numbers. "
    "A transpose is a view, so copy: `.copy_(...)` or `.clone()`.",
    "v2_left_alone_by_training_v1": "Changing `v1` afterwards changes `v2`, too: they share their numbers.",
    "random_state_unchanged": FACTS["random_state_unchanged"],
    "other_random_states_unchanged": FACTS["other_random_states_unchanged"],
}


def judge_independence(got: Observation, expected: Observation, case: Case) -> str | None:
    """Every fact has to hold; what does not is said in a sentence of its own."""
    if isinstance(got.get("raised"), Raised):
        return f"Your code raised {show(got['raised'])}"
    return next((sentence for fact, sentence in INDEPENDENCE.items() if got.get(fact) is not True), None)


def judge_bias(got: Observation, expected: Observation, case: Case) -> str | None:
    """A ValueError or AssertionError whose message names the bias; what `v1` holds then is left open."""
    error = got.get("error", got.get("raised"))
    if error is None:
        return "`v2` has a bias, `v1` has no place for it, and your function says nothing. Raise a ValueError."
    if not isinstance(error, Raised) or not {"ValueError", "AssertionError"} & set(error.kinds):
        return f"For a `v2` with bias, expected a ValueError, got {show(error)}"
    if "bias" not in error.message.lower():
        return f"The error's message should say that it is about the bias; it says {show(error)}."
    return None


def linear_layers(v2: nn.Module) -> list[nn.Linear]:
    return [getattr(v2, name) for name in NAMES]


def refuse_bias(v2: nn.Module) -> None:
    if any(layer.bias is not None for layer in linear_layers(v2)):
        raise ValueError("v2 has a bias")


@torch.no_grad()
def copy_untransposed(v2: nn.Module, v1: nn.Module) -> None:
    refuse_bias(v2)
    for name in NAMES:
        getattr(v1, name).copy_(getattr(v2, name).weight)


@torch.no_grad()
def copy_reshaped(v2: nn.Module, v1: nn.Module) -> None:
    refuse_bias(v2)
    for name in NAMES:
        getattr(v1, name).copy_(getattr(v2, name).weight.reshape(getattr(v1, name).shape))


def share_data(v2: nn.Module, v1: nn.Module) -> None:
    refuse_bias(v2)
    for name in NAMES:
        getattr(v1, name).data = getattr(v2, name).weight.data.T


@torch.no_grad()
def copy_backwards(v2: nn.Module, v1: nn.Module) -> None:
    refuse_bias(v2)
    for name in NAMES:
        getattr(v2, name).weight.copy_(getattr(v1, name).T)


@torch.no_grad()
def copy_without_values(v2: nn.Module, v1: nn.Module) -> None:
    refuse_bias(v2)
    for name in ("W_query", "W_key"):
        getattr(v1, name).copy_(getattr(v2, name).weight.T)


@torch.no_grad()
def copy_query_to_all(v2: nn.Module, v1: nn.Module) -> None:
    refuse_bias(v2)
    for name in NAMES:
        getattr(v1, name).copy_(v2.W_query.weight.T)


def copy_elsewhere(v2: nn.Module, v1: nn.Module) -> nn.Module:
    refuse_bias(v2)
    changed = copy.deepcopy(v1)
    copy_weights(v2, changed)
    return changed


def assign_tensors(v2: nn.Module, v1: nn.Module) -> None:
    refuse_bias(v2)
    for name in NAMES:
        setattr(v1, name, getattr(v2, name).weight.T)


def copy_with_gradients_on(v2: nn.Module, v1: nn.Module) -> None:
    refuse_bias(v2)
    for name in NAMES:
        getattr(v1, name).copy_(getattr(v2, name).weight.T)


def load_as_it_is(v2: nn.Module, v1: nn.Module) -> None:
    refuse_bias(v2)
    v1.load_state_dict(v2.state_dict())


def freeze(v2: nn.Module, v1: nn.Module) -> None:
    copy_weights(v2, v1)
    v1.requires_grad_(False)


@torch.no_grad()
def ignore_the_bias(v2: nn.Module, v1: nn.Module) -> None:
    for name in NAMES:
        getattr(v1, name).copy_(getattr(v2, name).weight.T)


def refuse_without_a_word(v2: nn.Module, v1: nn.Module) -> None:
    assert all(layer.bias is None for layer in linear_layers(v2))
    ignore_the_bias(v2, v1)


def refuse_by_another_error(v2: nn.Module, v1: nn.Module) -> None:
    if any(layer.bias is not None for layer in linear_layers(v2)):
        raise TypeError("v2 has a bias")
    ignore_the_bias(v2, v1)


EXERCISE_2_5 = Exercise(
    id="2.5",
    title="Carry the weights over",
    reference=copy_weights,
    parts=(
        values(
            2,
            "Copy `v2.W_query.weight.T` into `v1.W_query`, and so on for key and value, under `torch.no_grad()`.",
            "`v1` holds the weights of `v2`, transposed",
        ),
        Part(
            "independence",
            "`v1` can still be trained, and neither model changes the other",
            1,
            "",
            judge=judge_independence,
            needs=("values",),
        ),
        Part(
            "error",
            "A `v2` with bias is refused",
            1,
            "Before copying, raise a ValueError that names the bias if `v2.W_query.bias is not None`.",
            judge=judge_bias,
            needs=("values",),
        ),
    ),
    probes=PROBES["2.5"],
    misconceptions=(
        Misconception(
            "not transposed",
            copy_untransposed,
            "The transpose is missing. `nn.Linear` stores (d_out, d_in), version 1 holds (d_in, d_out); with "
            "d_in = d_out no error tells you.",
        ),
        Misconception(
            "reshaped",
            copy_reshaped,
            "`view` and `reshape` make the shape fit but leave the numbers in their old order. Rows and columns "
            "change places: `.T`.",
        ),
        Misconception(
            "shared",
            share_data,
            "`.T` is only a view: assigned as it is, both models share their numbers, and training one changes the "
            "other. Copy them: `.copy_(...)`, or `.clone()` before you assign.",
        ),
        Misconception(
            "values forgotten",
            copy_without_values,
            "Query and key are right, `v1.W_value` still holds its old numbers. Copy all three.",
        ),
        Misconception(
            "query for all",
            copy_query_to_all,
            "All three of `v1` got the weight of `v2.W_query`. Each takes the one of its own name.",
        ),
        Misconception(
            "not in place",
            copy_elsewhere,
            "`v1` is as it was before. Write into the `v1` you are given, as in `v1.W_query.copy_(...)`; a new name "
            "or a new object changes nothing for the caller.",
        ),
        Misconception(
            "wrong direction",
            copy_backwards,
            "Your function writes into `v2`. It goes the other way: `v2` is only read, `v1` is written.",
        ),
        Misconception(
            "tensors assigned",
            assign_tensors,
            "A module keeps parameters, not tensors, under these names. Write into the parameter: `copy_` under "
            "`torch.no_grad()`, or assign a new `nn.Parameter`.",
        ),
        Misconception(
            "gradients on",
            copy_with_gradients_on,
            "PyTorch won't let you overwrite a parameter while it tracks gradients. Copying is not part of the "
            "model's computation: put it under `with torch.no_grad():`.",
        ),
        Misconception(
            "state dict as it is",
            load_as_it_is,
            "The two models name and shape their weights differently: `W_query.weight` (d_out, d_in) here, `W_query` "
            "(d_in, d_out) there. Copy them one by one, transposed.",
        ),
        Misconception(
            "frozen",
            freeze,
            "The numbers are right, but the parameters of `v1` no longer ask for gradients. It should stay a model "
            "that can be trained.",
        ),
        Misconception(
            "bias ignored",
            ignore_the_bias,
            "With a bias, `v2` computes something that `v1` can't, and your function says nothing. Raise a ValueError "
            "that names the bias.",
        ),
        Misconception(
            "refused without a word",
            refuse_without_a_word,
            "You refuse a bias, but the error doesn't say why. Give it a message that names the bias.",
        ),
        Misconception(
            "another error",
            refuse_by_another_error,
            "You refuse a bias with another kind of error. A value that can't be used is a ValueError.",
        ),
    ),
)


EXERCISES = (EXERCISE_2_1, EXERCISE_2_2, EXERCISE_2_3, EXERCISE_2_4, EXERCISE_2_5)
