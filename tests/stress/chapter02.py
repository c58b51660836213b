"""Stress cases for chapter 2."""

import torch
from torch import nn

from stress.draws import randn, size

NAMES = ("W_query", "W_key", "W_value")


def lead(g):
    """Some leading dimensions, or none."""
    return [size(g, 1, 4) for _ in range(size(g, 0, 3))]


def stress_2_1(f, g):
    d_in, d_out = size(g), size(g)
    x = randn(g, *lead(g), size(g), d_in)
    weights = torch.randn(3, d_in, d_out, generator=g).to(x.dtype)
    return tuple(f(x, *weights))


def stress_2_2(f, g):
    shape, d_k = lead(g), size(g, 1, 40)
    queries = randn(g, *shape, size(g), d_k)
    keys = torch.randn(*shape, size(g), d_k, generator=g).to(queries.dtype)
    return f(queries, keys)


def filled(module, g, dtype):
    """The module with new numbers in its parameters, in the order of their names, so that the draws are the same."""
    module.to(dtype)
    with torch.no_grad():
        for _, parameter in sorted(module.named_parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=g, dtype=torch.float64))
    return module


def names_and_shapes(module):
    return sorted((name, *parameter.shape, parameter.requires_grad) for name, parameter in module.named_parameters())


def stress_2_3(f, g):
    d_in, d_out = size(g), size(g)
    torch.manual_seed(size(g, 0, 1000))
    module = f(d_in, d_out)
    drawn = [getattr(module, name).detach().clone() for name in NAMES]
    x = randn(g, *lead(g), size(g), d_in)
    return names_and_shapes(module), drawn, filled(module, g, x.dtype)(x)


def stress_2_4(f, g):
    d_in, d_out = size(g), size(g)
    made = [f(d_in, d_out), f(d_in, d_out, True), f(d_in=d_in, d_out=d_out, qkv_bias=False)]
    x = randn(g, *lead(g), size(g), d_in)
    return [(names_and_shapes(module), filled(module, g, x.dtype)(x)) for module in made]


def stress_2_5(f, g):
    d_in, d_out = size(g), size(g)
    v1, v2 = nn.Module(), nn.Module()
    for name in NAMES:
        setattr(v1, name, nn.Parameter(torch.randn(d_in, d_out, generator=g)))
        setattr(v2, name, nn.Linear(d_in, d_out, bias=size(g, 0, 4) == 0))
    filled(v2, g, torch.float32)
    try:
        f(v2, v1)
    except (ValueError, AssertionError) as error:
        return "bias" in str(error)
    with torch.no_grad():
        copied = [getattr(v1, name).clone() for name in NAMES]
        for name in NAMES:
            getattr(v1, name).add_(1)
    return names_and_shapes(v1), copied, [getattr(v2, name).weight.detach() for name in NAMES]
