"""Exercises of chapter 1, dot-product attention."""

import torch
from torch import Tensor

from utils.attention import (
    SimpleSelfAttention,
    attention_weights,
    context_vector,
    dot_product_score,
)
from utils.checks.chapters.parts import any_input, manners, values
from utils.checks.compare import judge_observation
from utils.checks.exercise import Exercise, Misconception, Part
from utils.checks.probes.chapter01 import PROBES
from utils.checks.probes.observe import Case, Observation
from utils.normalizers import AddOneNormalizer, BaseNormalizer, SoftmaxNormalizer, stable_softmax

DOT_PRODUCTS = frozenset(
    ["dot", "inner", "vdot", "matmul", "einsum", "mv", "mm", "bmm", "addmv", "vecdot", "linear", "tensordot"]
)
SOFTMAXES = frozenset(["softmax", "log_softmax", "softmin", "logsumexp"])


# 1.1 ------------------------------------------------------------------------------------------------


def product_without_sum(query: Tensor, key: Tensor) -> Tensor:
    return query * key


def product_of_sums(query: Tensor, key: Tensor) -> Tensor:
    return query.sum() * key.sum()


def mean_instead_of_sum(query: Tensor, key: Tensor) -> Tensor:
    return (query * key).mean()


def scaled_too_early(query: Tensor, key: Tensor) -> Tensor:
    return (query * key).sum() / query.shape[-1] ** 0.5


def cosine_similarity(query: Tensor, key: Tensor) -> Tensor:
    return (query * key).sum() / (query.norm() * key.norm())


def sum_instead_of_product(query: Tensor, key: Tensor) -> Tensor:
    return (query + key).sum()


def euclidean_distance(query: Tensor, key: Tensor) -> Tensor:
    return ((query - key) ** 2).sum().sqrt()


def sum_kept_as_vector(query: Tensor, key: Tensor) -> Tensor:
    return (query * key).sum(dim=-1, keepdim=True)


def python_number(query: Tensor, key: Tensor) -> float:
    return sum(q.item() * k.item() for q, k in zip(query, key, strict=True))


def rebuilt_tensor(query: Tensor, key: Tensor) -> Tensor:
    return torch.tensor(sum(q.item() * k.item() for q, k in zip(query, key, strict=True)), dtype=query.dtype)


EXERCISE_1_1 = Exercise(
    id="1.1",
    title="The dot product",
    reference=dot_product_score,
    parts=(
        values(1, "Multiply entry by entry, then add the products: one number comes out."),
        any_input(1, "Any length, float32 and float64, any memory layout"),
        manners(1),
    ),
    probes=PROBES["1.1"],
    misconceptions=(
        Misconception(
            "no sum",
            product_without_sum,
            "You have the products, one per entry. The dot product is their sum: a single number.",
        ),
        Misconception(
            "product of sums",
            product_of_sums,
            "You added first and multiplied afterwards. Pair the entries first: multiply position by position, "
            "then add.",
        ),
        Misconception(
            "mean",
            mean_instead_of_sum,
            "You took the mean of the products. A dot product is their sum; dividing by the length changes every "
            "score.",
        ),
        Misconception(
            "scaled",
            scaled_too_early,
            "You divided by the square root of the length. Scaling comes in chapter 2; the plain dot product has "
            "no division.",
        ),
        Misconception(
            "cosine",
            cosine_similarity,
            "You divided by the lengths of the vectors: that is the cosine similarity. The dot product keeps the "
            "lengths, so that long vectors count more.",
        ),
        Misconception(
            "sum of everything",
            sum_instead_of_product,
            "You added the two vectors. Multiply matching entries instead; only then does agreement give a large "
            "number.",
        ),
        Misconception(
            "distance",
            euclidean_distance,
            "This is the distance between the vectors: it is small when they agree. The dot product is large when "
            "they agree.",
        ),
        Misconception(
            "kept dimension",
            sum_kept_as_vector,
            "The number is right, but it sits in a vector of length 1. The score should be a 0-d tensor: leave out "
            "`keepdim=True`.",
        ),
        Misconception(
            "python number",
            python_number,
            "The number is right, but `.item()` made it a Python number: no gradient can flow back. Stay with "
            "tensors throughout.",
        ),
        Misconception(
            "rebuilt tensor",
            rebuilt_tensor,
            "The number is right, but `torch.tensor(...)` makes a new tensor that has forgotten where it came "
            "from: no gradient can flow back. Compute with the tensors themselves.",
        ),
    ),
    forbid=DOT_PRODUCTS,
)


# 1.2 ------------------------------------------------------------------------------------------------


class DividesByEverything(BaseNormalizer):
    def normalize(self, inputs: Tensor) -> Tensor:
        return inputs / inputs.sum()


class DividesByFirstDimension(BaseNormalizer):
    def normalize(self, inputs: Tensor) -> Tensor:
        return inputs / inputs.sum(dim=0)


class ForgetsKeepdim(BaseNormalizer):
    def normalize(self, inputs: Tensor) -> Tensor:
        return inputs / inputs.sum(dim=-1)


class DividesByMaximum(BaseNormalizer):
    def normalize(self, inputs: Tensor) -> Tensor:
        return inputs / inputs.amax(dim=-1, keepdim=True)


class DividesByLength(BaseNormalizer):
    def normalize(self, inputs: Tensor) -> Tensor:
        return inputs / inputs.norm(dim=-1, keepdim=True)


class AddsOne(BaseNormalizer):
    def normalize(self, inputs: Tensor) -> Tensor:
        return inputs + 1


class TakesAbsoluteValues(BaseNormalizer):
    def normalize(self, inputs: Tensor) -> Tensor:
        return inputs.abs() / inputs.abs().sum(dim=-1, keepdim=True)


class ChangesInPlace(BaseNormalizer):
    def normalize(self, inputs: Tensor) -> Tensor:
        return inputs.div_(inputs.sum(dim=-1, keepdim=True))


class NotANormalizer:
    def normalize(self, inputs: Tensor) -> Tensor:
        return inputs / inputs.sum(dim=-1, keepdim=True)


EXERCISE_1_2 = Exercise(
    id="1.2",
    title="Make the components add to one",
    reference=AddOneNormalizer,
    parts=(
        values(1, "Divide each entry by the sum of all entries: [1, 8, 1] gives [0.1, 0.8, 0.1]."),
        any_input(1, "Many rows at once: each row adds to one"),
        manners(1, "Inherits BaseNormalizer, gradients flow, inputs stay untouched"),
    ),
    probes=PROBES["1.2"],
    misconceptions=(
        Misconception(
            "sum over everything",
            DividesByEverything,
            "With several rows you divide by the sum of the whole tensor, so no row adds to one. Sum over the last "
            "dimension only: `dim=-1`.",
        ),
        Misconception(
            "first dimension",
            DividesByFirstDimension,
            "You sum over the first dimension: with several rows the columns add to one, not the rows. Use `dim=-1`.",
        ),
        Misconception(
            "no keepdim",
            ForgetsKeepdim,
            "The sums are right but lie in the wrong direction when they meet the rows again. `keepdim=True` keeps "
            "one sum beside each row.",
        ),
        Misconception(
            "maximum",
            DividesByMaximum,
            "You divided by the largest entry, so the largest becomes 1. Divide by the sum, so that all together "
            "make 1.",
        ),
        Misconception(
            "length",
            DividesByLength,
            "You divided by the length of the vector: then the squares add to one. Here the entries themselves should.",
        ),
        Misconception(
            "adds one",
            AddsOne,
            "The name misleads: nothing is added to the entries. The entries are divided so that they add up to one.",
        ),
        Misconception(
            "absolute values",
            TakesAbsoluteValues,
            "You made negative entries positive first. Keep the signs: that this normalizer gives negative weights "
            "is a weakness worth seeing.",
        ),
        Misconception(
            "in place",
            ChangesInPlace,
            "Your method overwrites the scores it was given. Someone may still need them: return a new tensor "
            "(`/`, not `/=` or `div_`).",
        ),
        Misconception(
            "no inheritance",
            NotANormalizer,
            "The numbers are right. Now inherit from `BaseNormalizer`, so that attention can rely on what it is "
            "given: `class AddOneNormalizer(BaseNormalizer)`.",
        ),
    ),
)


# 1.3 ------------------------------------------------------------------------------------------------


def naive_softmax(scores: Tensor, dim: int = -1) -> Tensor:
    return torch.exp(scores) / torch.exp(scores).sum(dim=dim, keepdim=True)


def softmax_over_all(scores: Tensor, dim: int = -1) -> Tensor:
    exponentials = torch.exp(scores - scores.max())
    return exponentials / exponentials.sum()


def one_maximum_for_all(scores: Tensor, dim: int = -1) -> Tensor:
    exponentials = torch.exp(scores - scores.max())
    return exponentials / exponentials.sum(dim=dim, keepdim=True)


def softmax_fixed_dim(scores: Tensor, dim: int = -1) -> Tensor:
    return stable_softmax(scores, dim=-1)


def softmax_of_first_dim(scores: Tensor, dim: int = -1) -> Tensor:
    return stable_softmax(scores, dim=0)


def softmax_without_sum(scores: Tensor, dim: int = -1) -> Tensor:
    return torch.exp(scores - scores.amax(dim=dim, keepdim=True))


def softmax_minus_mean(scores: Tensor, dim: int = -1) -> Tensor:
    exponentials = torch.exp(scores - scores.mean(dim=dim, keepdim=True))
    return exponentials / exponentials.sum(dim=dim, keepdim=True)


def softmax_clamped(scores: Tensor, dim: int = -1) -> Tensor:
    exponentials = torch.exp(scores.clamp(-50, 50))
    return exponentials / exponentials.sum(dim=dim, keepdim=True)


def log_of_softmax(scores: Tensor, dim: int = -1) -> Tensor:
    return stable_softmax(scores, dim).log()


def scores_over_sum(scores: Tensor, dim: int = -1) -> Tensor:
    return scores / scores.sum(dim=dim, keepdim=True)


def softmax_of_nothing_left(scores: Tensor, dim: int = -1) -> Tensor:
    return torch.nan_to_num(naive_softmax(scores, dim))


def judge_roughly(got: Observation, expected: Observation, case: Case) -> str | None:
    """As every judge, with room for rounding: near 10,000, neighbouring float32 numbers are 0.001 apart."""
    seen, wanted = got.get("result"), expected["result"]
    if isinstance(seen, Tensor) and (seen.shape, seen.dtype) == (wanted.shape, wanted.dtype):
        tolerance = 2e-3 if seen.dtype == torch.float32 else 1e-4
        if torch.allclose(seen, wanted, rtol=tolerance, atol=1e-5):
            return None
    return judge_observation(got, expected, case)


EXERCISE_1_3 = Exercise(
    id="1.3",
    title="A softmax that does not overflow",
    reference=stable_softmax,
    parts=(
        values(1, "exp of each score, divided by the sum of those exps along `dim`."),
        any_input(1, "Any `dim`, any shape, float32 and float64"),
        Part(
            "extremes",
            "Scores of ±10,000 and of -inf",
            2,
            "Subtract the largest score along `dim` before the exponential: the result is the same and nothing "
            "overflows.",
            judge=judge_roughly,
            needs=("values",),
        ),
        manners(1),
    ),
    probes=PROBES["1.3"],
    misconceptions=(
        Misconception(
            "naive",
            naive_softmax,
            "Right formula, but exp(10000) is inf, and inf/inf is NaN; exp(-10000) is 0, and 0/0 is NaN. Subtract "
            "the largest score along `dim` first.",
        ),
        Misconception(
            "over everything",
            softmax_over_all,
            "Your weights add to one over the whole tensor. Each row along `dim` should add to one: pass `dim` and "
            "`keepdim=True` to both the maximum and the sum.",
        ),
        Misconception(
            "one maximum for all",
            one_maximum_for_all,
            "You subtract one maximum from the whole tensor. A row far below it becomes exp(-20000) = 0 everywhere, "
            "and 0/0 is NaN. Each row needs its own maximum: `amax(dim=dim, keepdim=True)`.",
        ),
        Misconception(
            "ignores dim",
            softmax_fixed_dim,
            "Your answer always works on the last dimension. Use the argument `dim` in the maximum and in the sum.",
        ),
        Misconception(
            "first dimension",
            softmax_of_first_dim,
            "Your answer always works on the first dimension. Use the argument `dim` in the maximum and in the sum.",
        ),
        Misconception(
            "no division",
            softmax_without_sum,
            "The exponentials are safe now, but they don't add to one yet: divide by their sum along `dim`.",
        ),
        Misconception(
            "minus mean",
            softmax_minus_mean,
            "Subtracting the mean leaves scores far above it, which still overflow. Subtract the largest score: "
            "then no exponent is above 0.",
        ),
        Misconception(
            "clamped",
            softmax_clamped,
            "Clamping hides the overflow by changing the scores: 100 and 10,000 become equal, and -inf gets a "
            "weight. Subtracting the maximum changes nothing in the result.",
        ),
        Misconception(
            "NaN replaced",
            softmax_of_nothing_left,
            "Replacing NaN after the fact gives rows that don't add to one. Avoid the overflow instead: subtract "
            "the largest score first.",
        ),
        Misconception(
            "logarithm",
            log_of_softmax,
            "These are the logarithms of the weights. The weights themselves are asked for: leave out the log.",
        ),
        Misconception(
            "no exponential",
            scores_over_sum,
            "You divided the scores by their sum: that is the normalizer of exercise 1.2. Softmax takes the "
            "exponential of each score first.",
        ),
    ),
    forbid=SOFTMAXES,
)


# 1.4 ------------------------------------------------------------------------------------------------


def context_without_softmax(query: Tensor, inputs: Tensor) -> Tensor:
    return (inputs @ query) @ inputs


def context_sum_normalised(query: Tensor, inputs: Tensor) -> Tensor:
    attn_scores = inputs @ query
    return (attn_scores / attn_scores.sum()) @ inputs


def context_mean(query: Tensor, inputs: Tensor) -> Tensor:
    return inputs.mean(dim=0)


def context_hard(query: Tensor, inputs: Tensor) -> Tensor:
    return inputs[(inputs @ query).argmax()] + 0 * inputs.sum()


def context_scaled(query: Tensor, inputs: Tensor) -> Tensor:
    return torch.softmax(inputs @ query / inputs.shape[-1] ** 0.5, dim=-1) @ inputs


def context_weights_only(query: Tensor, inputs: Tensor) -> Tensor:
    return torch.softmax(inputs @ query, dim=-1)


def context_unsummed(query: Tensor, inputs: Tensor) -> Tensor:
    return torch.softmax(inputs @ query, dim=-1)[:, None] * inputs


def context_of_query(query: Tensor, inputs: Tensor) -> Tensor:
    return torch.softmax(inputs @ query, dim=-1).sum() * query


def context_softmax_of_inputs(query: Tensor, inputs: Tensor) -> Tensor:
    return (inputs @ query) @ torch.softmax(inputs, dim=0)


EXERCISE_1_4 = Exercise(
    id="1.4",
    title="One context vector",
    reference=context_vector,
    parts=(
        values(2, "Three steps: one dot product per input, softmax over them, then the weighted sum of the inputs."),
        any_input(1, "Any number of tokens and features, float32 and float64"),
        manners(1),
    ),
    probes=PROBES["1.4"],
    misconceptions=(
        Misconception(
            "no softmax",
            context_without_softmax,
            "You weight the inputs by the raw scores. Turn the scores into weights first: softmax over the T tokens.",
        ),
        Misconception(
            "divided by the sum",
            context_sum_normalised,
            "You divided the scores by their sum. With scores of both signs that gives negative or huge weights; "
            "use softmax.",
        ),
        Misconception(
            "plain mean",
            context_mean,
            "This is the plain mean of the inputs: every token gets the same weight, and the query has no say.",
        ),
        Misconception(
            "hard choice",
            context_hard,
            "You return the one input with the largest score. Attention blends all inputs, each by its weight.",
        ),
        Misconception(
            "scaled",
            context_scaled,
            "You divided the scores by √d. That comes in chapter 2; here the softmax takes the plain dot products.",
        ),
        Misconception(
            "weights only",
            context_weights_only,
            "These are the weights, one per token. One step is left: the sum of the inputs, each times its weight.",
        ),
        Misconception(
            "not summed",
            context_unsummed,
            "You have every input times its weight. Add them up over the tokens to get one vector of size d.",
        ),
        Misconception(
            "weights on the query",
            context_of_query,
            "You applied the weights to the query, which gives the query back. The weights belong to the inputs.",
        ),
        Misconception(
            "softmax of the inputs",
            context_softmax_of_inputs,
            "You took the softmax of the inputs. The softmax belongs on the scores; the inputs stay as they are.",
        ),
    ),
)


# 1.5 ------------------------------------------------------------------------------------------------


def weights_over_queries(inputs: Tensor) -> Tensor:
    return torch.softmax(inputs @ inputs.transpose(-2, -1), dim=-2)


def scores_only(inputs: Tensor) -> Tensor:
    return inputs @ inputs.transpose(-2, -1)


def weights_scaled(inputs: Tensor) -> Tensor:
    return torch.softmax(inputs @ inputs.transpose(-2, -1) / inputs.shape[-1] ** 0.5, dim=-1)


def weights_of_features(inputs: Tensor) -> Tensor:
    return torch.softmax(inputs.transpose(-2, -1) @ inputs, dim=-1)


def weights_one_matrix_only(inputs: Tensor) -> Tensor:
    return torch.softmax(inputs @ inputs.T, dim=-1)


def weights_first_dimension(inputs: Tensor) -> Tensor:
    return torch.softmax(inputs @ inputs.transpose(-2, -1), dim=0)


def weights_fixed_dimension(inputs: Tensor) -> Tensor:
    return torch.softmax(inputs @ inputs.transpose(-2, -1), dim=1)


def context_instead_of_weights(inputs: Tensor) -> Tensor:
    return attention_weights(inputs) @ inputs


def weights_sum_normalised(inputs: Tensor) -> Tensor:
    attn_scores = inputs @ inputs.transpose(-2, -1)
    return attn_scores / attn_scores.sum(dim=-1, keepdim=True)


EXERCISE_1_5 = Exercise(
    id="1.5",
    title="All weights at once",
    reference=attention_weights,
    parts=(
        values(2, "All dot products at once are `inputs @ inputs.transpose(-2, -1)`; then softmax along each row."),
        any_input(1, "Batches in front, float32 and float64"),
        manners(1),
    ),
    probes=PROBES["1.5"],
    misconceptions=(
        Misconception(
            "softmax over the queries",
            weights_over_queries,
            "Your columns add to one, your rows don't: the softmax runs over the queries. Row i holds the weights of "
            "query i, so normalise along the row: `dim=-1`.",
        ),
        Misconception(
            "scores only",
            scores_only,
            "These are the scores. One step is left: softmax along each row.",
        ),
        Misconception(
            "scaled",
            weights_scaled,
            "You divided by √d. That comes in chapter 2; here the softmax takes the plain dot products.",
        ),
        Misconception(
            "features",
            weights_of_features,
            "Your matrix compares features with features (d × d). Tokens are the rows: `inputs @ "
            "inputs.transpose(-2, -1)` is T × T.",
        ),
        Misconception(
            "one matrix only",
            weights_one_matrix_only,
            "Right for one matrix; with a batch in front, `.T` turns all dimensions around. "
            "`transpose(-2, -1)` swaps only the last two.",
        ),
        Misconception(
            "first dimension",
            weights_first_dimension,
            "Your softmax runs over dimension 0, which is the queries, or the batch when there is one. Row i holds "
            "the weights of query i: `dim=-1`.",
        ),
        Misconception(
            "fixed dimension",
            weights_fixed_dimension,
            "`dim=1` is the keys for one matrix, but the queries as soon as a batch stands in front. Count from the "
            "end: `dim=-1`.",
        ),
        Misconception(
            "context vectors",
            context_instead_of_weights,
            "You went one step too far: these are the context vectors. Only the weights are asked for.",
        ),
        Misconception(
            "divided by the sum",
            weights_sum_normalised,
            "Your rows add to one, but some weights are negative: the scores were divided by their sum. Use softmax.",
        ),
    ),
)


# 1.6 ------------------------------------------------------------------------------------------------


class AlwaysSoftmax(SimpleSelfAttention):
    def __init__(self, normalizer: BaseNormalizer | None = None):
        super().__init__(None)


class SumByDefault(SimpleSelfAttention):
    def __init__(self, normalizer: BaseNormalizer | None = None):
        super().__init__(AddOneNormalizer() if normalizer is None else normalizer)


class OverQueries(SimpleSelfAttention):
    def get_weights(self, scores: Tensor) -> Tensor:
        return self.normalizer.normalize(scores.transpose(-2, -1)).transpose(-2, -1)


class TransposedContext(SimpleSelfAttention):
    def get_context_vectors(self, inputs: Tensor, weights: Tensor) -> Tensor:
        return weights.transpose(-2, -1) @ inputs


class WeightsTheScores(SimpleSelfAttention):
    def __call__(self, inputs: Tensor) -> Tensor:
        return self.get_context_vectors(inputs, self.get_scores(inputs))


class ReturnsWeights(SimpleSelfAttention):
    def __call__(self, inputs: Tensor) -> Tensor:
        return self.get_weights(self.get_scores(inputs))


class ScaledScores(SimpleSelfAttention):
    def get_scores(self, inputs: Tensor) -> Tensor:
        return super().get_scores(inputs) / inputs.shape[-1] ** 0.5


class OneMatrixOnly(SimpleSelfAttention):
    def get_scores(self, inputs: Tensor) -> Tensor:
        return inputs @ inputs.T


class CallsTheNormalizer(SimpleSelfAttention):
    def get_weights(self, scores: Tensor) -> Tensor:
        if isinstance(self.normalizer, SoftmaxNormalizer):
            return self.normalizer.normalize(scores)
        return self.normalizer(scores)


class MakesTheNormalizer(SimpleSelfAttention):
    def __init__(self, normalizer: type[BaseNormalizer] | None = None):
        super().__init__(None if normalizer is None else normalizer())


class TrainableScale(torch.nn.Module):
    def __init__(self, normalizer: BaseNormalizer | None = None):
        super().__init__()
        self.inner = SimpleSelfAttention(normalizer)
        self.scale = torch.nn.Parameter(torch.ones(()))

    def get_scores(self, inputs: Tensor) -> Tensor:
        return self.inner.get_scores(inputs)

    def get_weights(self, scores: Tensor) -> Tensor:
        return self.inner.get_weights(scores)

    def get_context_vectors(self, inputs: Tensor, weights: Tensor) -> Tensor:
        return self.inner.get_context_vectors(inputs, weights)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.inner(inputs) * self.scale.to(inputs.dtype)


EXERCISE_1_6 = Exercise(
    id="1.6",
    title="Self-attention as a class",
    reference=SimpleSelfAttention,
    parts=(
        Part(
            "steps",
            "`get_scores`, `get_weights` and `get_context_vectors`, each by itself",
            2,
            "Scores: inputs times inputs transposed. Weights: the normalizer along each row. Context vectors: "
            "weights times inputs.",
        ),
        Part("call", "Calling the object runs the three steps", 1, "`__call__` puts the three steps together."),
        Part(
            "normalizer",
            "Another normalizer can be plugged in",
            1,
            "Keep the instance you are given, use its `.normalize`, and fall back to softmax for None.",
        ),
        Part(
            "manners",
            "No parameters, gradients flow, inputs stay untouched",
            1,
            "",
            needs=("steps", "call"),
        ),
    ),
    probes=PROBES["1.6"],
    misconceptions=(
        Misconception(
            "always softmax",
            AlwaysSoftmax,
            "The normalizer you were given is never used: every object uses softmax. Store it in `__init__` and "
            "call its `.normalize` in `get_weights`.",
        ),
        Misconception(
            "sum by default",
            SumByDefault,
            "Without a normalizer your class divides by the sum. None should mean softmax: `SoftmaxNormalizer()`.",
        ),
        Misconception(
            "over the queries",
            OverQueries,
            "Your weights add to one along the columns, that is over the queries. The normalizer works on the last "
            "dimension already; give it the scores as they are.",
        ),
        Misconception(
            "transposed weights",
            TransposedContext,
            "Your context vectors use the weights transposed: token j's weights for i instead of token i's weights "
            "for j. It is `weights @ inputs`, without a transpose.",
        ),
        Misconception(
            "skips the weights",
            WeightsTheScores,
            "Calling the object multiplies the raw scores with the inputs. The weights are missing in between: "
            "scores, then `get_weights`, then `get_context_vectors`.",
        ),
        Misconception(
            "stops at the weights",
            ReturnsWeights,
            "Calling the object returns the weights (T × T). One step is left: `get_context_vectors`.",
        ),
        Misconception(
            "scaled",
            ScaledScores,
            "You divided the scores by √d. That comes in chapter 2; here the scores are plain dot products.",
        ),
        Misconception(
            "one matrix only",
            OneMatrixOnly,
            "Right for one matrix; with a batch in front, `.T` turns all dimensions around. "
            "`transpose(-2, -1)` swaps only the last two.",
        ),
        Misconception(
            "normalizer called",
            CallsTheNormalizer,
            "You call the normalizer like a function. A normalizer promises one method: "
            "`self.normalizer.normalize(scores)`.",
        ),
        Misconception(
            "normalizer made",
            MakesTheNormalizer,
            "You put brackets after the normalizer you were given. It is an instance already: store it as it is.",
        ),
        Misconception(
            "parameters",
            TrainableScale,
            "Your class has trainable parameters. This version learns nothing; trainable weights come in chapter 2.",
        ),
    ),
)


EXERCISES = (EXERCISE_1_1, EXERCISE_1_2, EXERCISE_1_3, EXERCISE_1_4, EXERCISE_1_5, EXERCISE_1_6)
