"""Other right answers for chapter 1."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.normalizers import BaseNormalizer

# 1.1 ------------------------------------------------------------------------------------------------


def dot_by_loop(query, key):
    total = 0
    for q, k in zip(query, key, strict=True):
        total = total + q * k
    return total


def dot_by_index(query, key):
    total = query.new_zeros(())
    for i in range(len(query)):
        total = total + query[i] * key[i]
    return total


def dot_by_mul(query, key):
    return torch.sum(torch.mul(key, query), dim=-1)


def dot_by_outer_product(query, key):
    return (query[:, None] * key[None, :]).diagonal().sum()


def dot_by_polarisation(query, key):
    return ((query + key).square().sum() - (query - key).square().sum()) / 4


def dot_by_last_running_sum(query, key):
    return (query * key).cumsum(0)[-1]


def dot_with_own_names(query, key):
    """The dot product, written out: neither @ nor torch.dot, matmul or einsum is used."""
    dot = query * key  # not torch.dot(query, key)
    einsum = dot.sum()
    return einsum


class DotModule(nn.Module):
    def forward(self, query, key):
        return query.mul(key).sum()


# 1.2 ------------------------------------------------------------------------------------------------


class MultipliesByReciprocal(BaseNormalizer):
    def normalize(self, inputs):
        return inputs * inputs.sum(-1, keepdim=True).reciprocal()


class Unsqueezes(BaseNormalizer):
    def normalize(self, inputs: Tensor) -> Tensor:
        total = torch.sum(inputs, dim=inputs.dim() - 1)
        return torch.div(inputs, total.unsqueeze(-1))


class MultipliesWithOnes(BaseNormalizer):
    def normalize(self, inputs):
        ones = torch.ones(inputs.shape[-1], 1, dtype=inputs.dtype)
        return inputs / (inputs @ ones)


class SwapsTheDimension(BaseNormalizer):
    def normalize(self, inputs):
        turned = inputs.movedim(-1, 0)
        return (turned / turned.sum(dim=0)).movedim(0, -1)


class WithConstructorAndHelper(BaseNormalizer):
    def __init__(self):
        self.dim = -1

    def total(self, inputs):
        return inputs.sum(dim=self.dim, keepdim=True).expand_as(inputs)

    def normalize(self, inputs):
        return inputs / self.total(inputs)


class RowByRow(BaseNormalizer):
    def normalize(self, inputs):
        if inputs.dim() == 1:
            return inputs / sum(inputs)
        return torch.stack([self.normalize(row) for row in inputs])


class NormalizerModule(BaseNormalizer, nn.Module):
    def forward(self, inputs):
        return inputs / inputs.sum(dim=-1, keepdim=True)

    def normalize(self, inputs):
        return self(inputs)


# 1.3 ------------------------------------------------------------------------------------------------


def softmax_by_max_values(scores, dim=-1):
    largest = scores.max(dim=dim, keepdim=True).values
    shifted = (scores - largest).exp()
    return shifted / shifted.sum(dim, keepdim=True)


def softmax_in_log_space(scores, dim=-1):
    largest = scores.amax(dim, keepdim=True)
    log_total = largest + (scores - largest).exp().sum(dim, keepdim=True).log()
    return torch.exp(scores - log_total)


def softmax_detached_maximum(scores, dim=-1):
    exps = torch.exp(scores - scores.detach().amax(dim=dim, keepdim=True))
    return torch.div(exps, exps.sum(dim=dim, keepdim=True))


def softmax_moved_to_the_end(scores, dim=-1):
    moved = scores.transpose(dim, -1)
    exps = (moved - moved.max(-1)[0].unsqueeze(-1)).exp()
    softmax = exps / exps.sum(-1).unsqueeze(-1)  # a name is not a call of torch.softmax
    return softmax.transpose(dim, -1)


def softmax_in_powers_of_two(scores, dim=-1):
    shifted = (scores - scores.amax(dim=dim, keepdim=True)) * math.log2(math.e)
    powers = torch.exp2(shifted)
    return powers / powers.sum(dim=dim, keepdim=True)


def softmax_by_log_add_exp(scores, dim=-1):
    slices = scores.unbind(dim)
    total = slices[0]
    for piece in slices[1:]:
        total = torch.logaddexp(total, piece)
    return torch.exp(scores - total.unsqueeze(dim))


def softmax_in_float64(scores, dim=-1):
    exps = (scores.double() - scores.double().amax(dim, keepdim=True)).exp()
    return (exps / exps.sum(dim, keepdim=True)).to(scores.dtype)


def softmax_very_negative(scores, dim=-1):
    finite = torch.where(scores == float("-inf"), torch.full_like(scores, -1e9), scores)
    exps = (finite - finite.amax(dim, keepdim=True)).exp()
    return exps / exps.sum(dim, keepdim=True)


def softmax_by_comparing(scores, dim=-1):
    """1 / sum_j exp(s_j - s_i), clamped where the sum would overflow: no maximum needed."""
    scores = scores.movedim(dim, -1)
    finite = scores.clamp(min=-1e30)
    differences = (finite[..., None, :] - finite[..., :, None]).clamp(max=85)
    return differences.exp().sum(-1).reciprocal().movedim(-1, dim)


class SoftmaxModule(nn.Module):
    def forward(self, scores, dim=-1):
        return softmax_by_max_values(scores, dim)


# 1.4 ------------------------------------------------------------------------------------------------


def context_by_loops(query, inputs):
    scores = torch.stack([(query * row).sum() for row in inputs])
    weights = torch.softmax(scores, dim=0)
    context = torch.zeros_like(query)
    for weight, row in zip(weights, inputs, strict=True):
        context = context + weight * row
    return context


def context_by_einsum(query, inputs):
    weights = F.softmax(torch.einsum("d,td->t", query, inputs), dim=0)
    return torch.einsum("t,td->d", weights, inputs)


def context_by_broadcast(query, inputs):
    weights = (inputs * query).sum(-1, keepdim=True).softmax(dim=0)
    return (weights * inputs).sum(dim=0)


def context_by_bare_exp(query, inputs):
    exps = torch.exp(inputs @ query)
    return (exps @ inputs) / exps.sum()


def context_by_transposes(query, inputs):
    weights = nn.Softmax(dim=-1)(query[None, :] @ inputs.T)
    return (inputs.T @ weights.T).squeeze(-1)


def context_by_bmm(query, inputs):
    scores = torch.bmm(inputs[None], query[None, :, None])
    weights = torch.softmax(scores, dim=1)
    return torch.bmm(weights.transpose(1, 2), inputs[None])[0, 0]


def context_by_pytorch(query, inputs):
    return F.scaled_dot_product_attention(query[None], inputs, inputs, scale=1.0)[0]


# 1.5 ------------------------------------------------------------------------------------------------


def weights_by_einsum(inputs):
    return torch.einsum("...id,...jd->...ij", inputs, inputs).softmax(-1)


def weights_by_mt(inputs):
    return F.softmax(torch.matmul(inputs, inputs.mT), dim=-1)


def weights_by_broadcast(inputs):
    scores = (inputs.unsqueeze(-2) * inputs.unsqueeze(-3)).sum(dim=-1)
    return torch.exp(torch.log_softmax(scores, dim=-1))


def weights_by_columns(inputs):
    scores = inputs @ inputs.transpose(-1, -2)  # symmetric
    return torch.softmax(scores, dim=-2).transpose(-1, -2)


def weights_by_recursion(inputs):
    if inputs.dim() > 2:
        return torch.stack([weights_by_recursion(piece) for piece in inputs])
    rows = [torch.softmax(inputs @ query, dim=-1) for query in inputs]
    return torch.stack(rows)


def weights_by_bmm(inputs):
    flat = inputs.reshape(-1, *inputs.shape[-2:])
    weights = torch.softmax(torch.bmm(flat, flat.permute(0, 2, 1)), dim=2)
    return weights.reshape(*inputs.shape[:-1], inputs.shape[-2])


def weights_by_hand(inputs):
    scores = inputs @ inputs.swapaxes(-1, -2)
    exps = (scores - scores.amax(-1, True)).exp()
    return exps / exps.sum(-1, True)


# 1.6 ------------------------------------------------------------------------------------------------


class TorchSoftmax:
    def normalize(self, scores):
        return F.softmax(scores, dim=-1)


class PlainAttention:
    """Built from nothing of the course's own."""

    def __init__(self, normalizer=None):
        self.normalizer = normalizer if normalizer is not None else TorchSoftmax()

    def get_scores(self, inputs):
        return torch.einsum("...id,...jd->...ij", inputs, inputs)

    def get_weights(self, scores):
        return self.normalizer.normalize(scores)

    def get_context_vectors(self, inputs, weights):
        return torch.einsum("...ij,...jd->...id", weights, inputs)

    def __call__(self, inputs):
        scores = self.get_scores(inputs)
        weights = self.get_weights(scores)
        return self.get_context_vectors(inputs, weights)


class ModuleAttention(nn.Module):
    def __init__(self, normalizer=None):
        super().__init__()
        self.normalizer = normalizer

    def get_scores(self, inputs):
        return torch.matmul(inputs, inputs.mT)

    def get_weights(self, scores):
        if self.normalizer is None:
            return torch.softmax(scores, dim=-1)
        return self.normalizer.normalize(scores)

    def get_context_vectors(self, inputs, weights):
        return torch.matmul(weights, inputs)

    def forward(self, inputs):
        return self.get_context_vectors(inputs, self.get_weights(self.get_scores(inputs)))


class KeepsTheLastWeights(PlainAttention):
    """Remembers for looking at, not for the next call."""

    def get_weights(self, scores):
        self.weights = super().get_weights(scores)
        return self.weights


class StaticSteps(PlainAttention):
    @staticmethod
    def get_scores(inputs):
        return inputs @ inputs.transpose(-1, -2)

    @staticmethod
    def get_context_vectors(inputs, weights):
        return (weights.unsqueeze(-1) * inputs.unsqueeze(-3)).sum(dim=-2)


class OneStepCall(PlainAttention):
    def __call__(self, inputs):
        return self.normalizer.normalize(inputs @ inputs.mT) @ inputs


class WithBuffer(ModuleAttention):
    """A buffer is no parameter."""

    def __init__(self, normalizer=None):
        super().__init__(normalizer)
        self.register_buffer("calls", torch.zeros(()))


RIGHT_ANSWERS = {
    "1.1": [
        ("loop", dot_by_loop),
        ("index", dot_by_index),
        ("mul and sum", dot_by_mul),
        ("outer product", dot_by_outer_product),
        ("polarisation", dot_by_polarisation),
        ("running sum", dot_by_last_running_sum),
        ("own names", dot_with_own_names),
        ("lambda", lambda query, key: (key * query).sum(-1)),
        ("module object", DotModule()),
    ],
    "1.2": [
        ("reciprocal", MultipliesByReciprocal),
        ("unsqueeze", Unsqueezes),
        ("ones", MultipliesWithOnes),
        ("movedim", SwapsTheDimension),
        ("constructor and helper", WithConstructorAndHelper),
        ("row by row", RowByRow),
        ("module", NormalizerModule),
    ],
    "1.3": [
        ("max values", softmax_by_max_values),
        ("log space", softmax_in_log_space),
        ("detached maximum", softmax_detached_maximum),
        ("moved", softmax_moved_to_the_end),
        ("powers of two", softmax_in_powers_of_two),
        ("logaddexp", softmax_by_log_add_exp),
        ("float64 inside", softmax_in_float64),
        ("very negative", softmax_very_negative),
        ("by comparing", softmax_by_comparing),
        ("module object", SoftmaxModule()),
    ],
    "1.4": [
        ("loops", context_by_loops),
        ("einsum", context_by_einsum),
        ("broadcast", context_by_broadcast),
        ("bare exp", context_by_bare_exp),
        ("transposes", context_by_transposes),
        ("bmm", context_by_bmm),
        ("PyTorch's attention", context_by_pytorch),
    ],
    "1.5": [
        ("einsum", weights_by_einsum),
        ("mT", weights_by_mt),
        ("broadcast", weights_by_broadcast),
        ("columns turned", weights_by_columns),
        ("recursion", weights_by_recursion),
        ("bmm", weights_by_bmm),
        ("by hand", weights_by_hand),
    ],
    "1.6": [
        ("plain class", PlainAttention),
        ("module", ModuleAttention),
        ("keeps the last weights", KeepsTheLastWeights),
        ("static methods", StaticSteps),
        ("one-step call", OneStepCall),
        ("buffer", WithBuffer),
    ],
}
