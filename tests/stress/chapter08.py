"""Stress cases for chapter 8."""

import copy

import torch
from torch import nn

from stress.draws import outcome, randn, size
from utils.attention import MultiHeadAttention
from utils.gpt_config import GPTConfig


@torch.no_grad()
def stress_8_1(f, g):
    d_in, heads, t = size(g, 2), size(g, 1, 5), size(g, 1, 9)
    mha = MultiHeadAttention(d_in, heads * size(g, 1, 5), t, 0.3, heads, bool(size(g, 0, 2))).double().eval()
    for _, parameter in sorted(mha.named_parameters()):
        parameter.copy_(torch.randn(parameter.shape, generator=g))
    other = copy.deepcopy(mha)
    other.W_key.weight.mul_(-1)
    cached, neighbour, stranger = f(mha), f(mha), f(other)
    seen = []
    for _ in range(3):
        x = torch.randn(size(g), t + 1, d_in, generator=g, dtype=torch.float64)
        for i in range(size(g, 1, t + 2)):  # sometimes one token too many
            token = x[:, i : i + 1]
            seen += [outcome(lambda o=o, token=token: o.step(token)) for o in (cached, neighbour, stranger)]
        for o in (cached, neighbour, stranger):
            o.reset()
    return seen


def config(g):
    n_heads = size(g, 1, 6)
    return GPTConfig(
        vocab_size=size(g, 1, 500),
        context_length=size(g, 1, 40),
        emb_dim=n_heads * size(g, 1, 30),
        n_heads=n_heads,
        n_layers=size(g, 1, 9),
        qkv_bias=size(g, 0, 2) == 1,
        tied=size(g, 0, 2) == 1,
    )


def stress_8_2(f, g):
    cfg = config(g)
    length = cfg.context_length + size(g, -3, 3)
    return [outcome(lambda n=n: f(cfg, size(g, 1, 9), n, size(g, 1, 9))) for n in (1, max(length, 1), 1000)]


class Rows(nn.Module):
    """A model whose loss is a mean over rows of something that takes the whole row."""

    def __init__(self, vocab_size, width):
        super().__init__()
        self.inner = nn.Sequential(nn.Embedding(vocab_size, width), nn.Tanh(), nn.Linear(width, vocab_size))
        self.largest = 0

    def forward(self, x, y):
        self.largest = max(self.largest, len(x))
        scores = self.inner(x)
        loss = (scores.gather(-1, y[..., None]).squeeze(-1).cumsum(1).exp().mean(1) - scores.mean((1, 2))).square()
        return scores, loss.mean()


def stress_8_3(f, g):
    v, b, t, rows = size(g, 2, 9), size(g, 1, 9), size(g), size(g, 1, 10)
    model = Rows(v, size(g)).double()
    for i, (_, parameter) in enumerate(sorted(model.named_parameters())):
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=g) / 2)
        if i != 1:
            parameter.grad = torch.randn(parameter.shape, generator=g, dtype=torch.float64)
    x, y = torch.randint(v, (2, b, t), generator=g)
    kept = randn(g, 1)
    loss = outcome(lambda: f(model, x, y, rows))
    gradients = [kept if p.grad is None else p.grad.clone() for p in model.parameters()]
    return [loss, gradients, [p.detach().clone() for p in model.parameters()], model.largest <= rows, model.training]


def stress_8_4(f, g):
    return f(config(g))
