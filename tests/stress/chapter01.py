"""Stress cases for chapter 1."""

import torch

from stress.draws import randn, size
from utils.normalizers import AddOneNormalizer, stable_softmax


def stress_1_1(f, g):
    n = size(g, 1, 20)
    dtype = torch.float64
    q, k = torch.randn(2, n, generator=g, dtype=dtype)
    return f(q, k)


def stress_1_2(f, g):
    x = randn(g, *(size(g) for _ in range(size(g, 1, 4))))
    return f().normalize(x)


def stress_1_3(f, g):
    x = randn(g, *(size(g) for _ in range(size(g, 1, 4)))) * (1, 1000)[size(g, 0, 2)]
    return f(x), f(x, dim=size(g, -x.dim(), x.dim()))


def stress_1_4(f, g):
    d = size(g)
    x = torch.randn(size(g) + 1, d, generator=g)
    return f(x[0], x[1:])


def stress_1_5(f, g):
    return f(randn(g, *(size(g) for _ in range(size(g, 2, 5)))))


class Cubes:
    def normalize(self, scores):
        return stable_softmax(scores**3)


def stress_1_6(f, g):
    x = randn(g, *(size(g) for _ in range(size(g, 2, 5))))
    made = [f(), f(AddOneNormalizer()), f(normalizer=Cubes()), f(None)]
    scores = made[0].get_scores(x)
    return [
        scores,
        [m.get_weights(scores + 1) for m in made],
        [m(x) for m in made],
        made[1].get_context_vectors(x, scores),
    ]
