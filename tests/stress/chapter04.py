"""Stress cases for chapter 4."""

import torch

from stress.draws import outcome, randn, size
from utils.attention import MultiHeadAttention


def with_random_parameters(module, g, like):
    module = module.to(like.dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=g) / 2)
    return module


def shapes_of(module):
    return [(name, tuple(parameter.shape)) for name, parameter in module.named_parameters()]


def outputs(module, x):
    """In both modes, with the gradients of the input and all parameters."""
    x = x.clone().requires_grad_()
    in_training = module.train()(x)
    result = module.eval()(x)
    gradients = torch.autograd.grad(result.square().sum(), [x, *module.parameters()])
    return [result, in_training, gradients]


def drawn_module(f, g, d_out, num_heads):
    """A module with random sizes, and an input as long as it may be or shorter."""
    x = randn(g, size(g), size(g), size(g))
    context_length = x.shape[1] + size(g, 0, 4)
    arguments = [x.shape[2], d_out, context_length, (0.0, 0.5)[size(g, 0, 2)], num_heads]
    arguments += [[], [True], [False]][size(g, 0, 3)]
    module = f(*arguments)
    return with_random_parameters(module, g, x), x, context_length


def stress_4_1(f, g):
    module, x, context_length = drawn_module(f, g, size(g), size(g))
    longer = torch.zeros(1, context_length + 1, x.shape[2], dtype=x.dtype)
    return [shapes_of(module), outputs(module, x), outcome(lambda: module(longer))]


def stress_4_2(f, g):
    return f()


def stress_4_3(answer, g):
    split, merge = answer
    b, h, t, d = (size(g) for _ in range(4))
    x, heads = randn(g, b, t, h * d), randn(g, b, h, t, d)
    turned = randn(g, h * d, b, t).movedim(0, -1)
    return [split(x, h), split(turned, h), merge(heads), merge(heads.transpose(0, 2)), merge(split(turned, h))]


def stress_4_4(f, g):
    num_heads = size(g, 1, 5)
    head_dim = size(g, 1, 5)
    module, x, context_length = drawn_module(f, g, num_heads * head_dim, num_heads)
    longer = torch.zeros(1, context_length + 1, x.shape[2], dtype=x.dtype)
    odd = num_heads * head_dim + 1
    return [
        shapes_of(module),
        outputs(module, x),
        [module.num_heads, module.head_dim, module.d_out, module.context_length],
        [name for name, _ in module.named_buffers() if name == "mask"],
        outcome(lambda: module(longer)),
        outcome(lambda: f(2, odd, 4, 0.0, num_heads + 1).head_dim),
        outcome(lambda: f(2, 1, 4, 0.0, 2).head_dim),
    ]


def stress_4_5(f, g):
    module = f()
    return [
        [(name, tuple(p.shape)) for name, p in module.named_parameters() if "weight" in name],
        [module.num_heads, module.head_dim, module.d_out, module.context_length],
        module(torch.zeros(1, 2, 768)).shape,
    ]


def stress_4_6(f, g):
    num_heads = size(g, 1, 5)
    module, x, _ = drawn_module(MultiHeadAttention, g, num_heads * size(g, 1, 5), num_heads)
    return outputs_of_function(lambda x: f(module.eval(), x), [x], list(module.parameters()))


def outputs_of_function(f, inputs, parameters):
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    result = f(*leaves)
    return [result, torch.autograd.grad(result.square().sum(), [*leaves, *parameters])]


def stress_4_7(f, g):
    b, t_x, t_context, d, d_context, d_out = (size(g) for _ in range(6))
    x = randn(g, b, t_x, d)
    others = [(b, t_context, d_context), (d, d_out), (d_context, d_out), (d_context, d_out)]
    return outputs_of_function(f, [x, *(torch.randn(s, generator=g, dtype=x.dtype) for s in others)], [])
