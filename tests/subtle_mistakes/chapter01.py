"""Subtle mistakes for chapter 1."""

import torch

from utils.attention import SimpleSelfAttention
from utils.normalizers import BaseNormalizer, SoftmaxNormalizer


class PositiveSums(BaseNormalizer):
    def normalize(self, inputs):
        return inputs / inputs.sum(-1, keepdim=True).clamp(min=1e-9)


class KeepsTheFirstSum(BaseNormalizer):
    total = None

    def normalize(self, inputs):
        if self.total is None or self.total.shape[:-1] != inputs.shape[:-1]:
            self.total = inputs.sum(-1, keepdim=True).detach()
        return inputs / self.total


def weights_by_view(inputs):
    flat = inputs.view(-1, *inputs.shape[-2:])
    return torch.softmax(flat @ flat.mT, dim=-1).view(*inputs.shape[:-1], -1)


class ThreeDimensionsAtMost(SimpleSelfAttention):
    def get_scores(self, inputs):
        return torch.bmm(inputs, inputs.mT) if inputs.dim() == 3 else inputs @ inputs.T


class RemembersItsInputs(SimpleSelfAttention):
    def get_scores(self, inputs):
        self.inputs = inputs
        return super().get_scores(inputs)

    def get_context_vectors(self, inputs, weights):
        return weights @ getattr(self, "inputs", inputs)


class KeepsTheFirstWeights(SimpleSelfAttention):
    weights = None

    def get_weights(self, scores):
        if self.weights is None:
            self.weights = super().get_weights(scores)
        return self.weights


class SharedNormalizer(SimpleSelfAttention):
    shared = None

    def __init__(self, normalizer=None):
        type(self).shared = normalizer or SoftmaxNormalizer()

    @property
    def normalizer(self):
        return type(self).shared


class ChangesTheScores(SimpleSelfAttention):
    def get_weights(self, scores):
        scores -= scores.amax(-1, keepdim=True)
        return super().get_weights(scores)


def twice_as_sparse(query, key):
    return (query * key).sum().reshape(1).to_sparse()


SUBTLE_MISTAKES = [
    ("1.1", twice_as_sparse),
    ("1.2", PositiveSums),
    ("1.2", KeepsTheFirstSum),
    ("1.5", weights_by_view),
    ("1.6", ThreeDimensionsAtMost),
    ("1.6", RemembersItsInputs),
    ("1.6", KeepsTheFirstWeights),
    ("1.6", SharedNormalizer),
    ("1.6", ChangesTheScores),
]
