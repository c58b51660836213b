"""Stress cases for chapter 3."""

import torch
from torch import nn

from stress.draws import outcome, randn, size


def stress_3_1(f, g):
    return f(randn(g, size(g), size(g, 1, 30), size(g)))


def stress_3_2(f, g):
    n = size(g)
    x = randn(g, *(size(g, 1, 4) for _ in range(size(g, 0, 3))), n, n) * (1, 1000)[size(g, 0, 2)]
    weights = f(x)
    return weights, (weights.triu(1) == 0).all()


class Steps(nn.Module):
    """Looks one step back, or ahead where asked to; random in training."""

    def __init__(self, ahead):
        super().__init__()
        self.ahead = ahead
        self.inner = nn.Sequential(nn.Dropout(0.5))

    def forward(self, x):
        zero = torch.zeros_like(x[:, :1])
        other = torch.cat([x[:, 1:], zero] if self.ahead else [zero, x[:, :-1]], dim=1)
        return self.inner(x + other)


def leaking(pairs, scale):
    def attention(x):
        out = x.cumsum(1).tanh()
        for later, earlier in pairs:
            out[:, earlier] += 0.3 * torch.sin(50 * x[:, later])
        return scale * out

    return attention


def stress_3_3(f, g):
    n, d = size(g, 2), size(g, 3)
    pairs = [(later, earlier) for later in range(n) for earlier in range(later)]
    chosen = [pairs[size(g, 0, len(pairs))]] if size(g, 0, 2) else []
    scale = (1e-3, 1.0, 1e4)[size(g, 0, 3)]
    modules = [Steps(ahead).train(bool(size(g, 0, 2))) for ahead in (False, True)]
    before = [m.training for module in modules for m in module.modules()]
    verdicts = [f(leaking(chosen, scale), d, n), *(f(module, d, n) for module in modules), f(nn.Identity(), d, 1)]
    return verdicts, before == [m.training for module in modules for m in module.modules()]


def stress_3_4(f, g):
    x = randn(g, *(size(g) for _ in range(size(g, 1, 5))))
    return f(x, torch.rand(x.shape, generator=g) > 0.3, float(torch.rand((), generator=g)) * 0.95)


def stress_3_5(f, g):
    d_in, d_out, context_length = size(g), size(g), size(g, 2)
    bias, p = bool(size(g, 0, 2)), (0.0, 0.4)[size(g, 0, 2)]
    module = f(d_in, d_out, context_length, p, bias)
    with torch.no_grad():
        for name in ("W_query", "W_key", "W_value"):
            layer = getattr(module, name)
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=g))
            if bias:
                layer.bias.copy_(torch.randn(layer.bias.shape, generator=g))
    x = torch.randn(size(g), size(g, 1, context_length + 1), d_in, generator=g)
    too_long = torch.randn(2, context_length + size(g), d_in, generator=g)
    seen = [module.eval()(x), module(x[:, :1]), outcome(lambda: module(too_long))]
    module.train()
    draws = torch.stack([module(x[:1]) for _ in range(30 if p else 1)])
    return [*seen, draws, sorted(name for name, _ in module.named_parameters()), "mask" in dict(module.named_buffers())]
