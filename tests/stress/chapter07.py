"""Stress cases for chapter 7."""

import tempfile
from pathlib import Path

import torch
from torch import nn

from stress.draws import outcome, randn, size


def stress_7_1(f, g):
    shape = [size(g, 1, 5) for _ in range(size(g, 0, 4))]
    v = size(g, 1, 9)
    logits = (randn(g, *shape, v) * 10.0 ** size(g, 0, 4)).requires_grad_()
    loss = f(logits, torch.randint(v, shape, generator=g))
    loss.backward()
    return [loss, logits.grad.isfinite().all()]


def stress_7_2(f, g):
    loss = (randn(g, size(g)).abs() * 3).requires_grad_()
    result = f(loss)
    result.sum().backward()
    return [result, loss.grad, f(loss[0].item()), f(loss[0])]


class Grumbling(nn.Module):
    """A loss for every pair of tokens; what it was called with goes into ``seen``."""

    def __init__(self, table):
        super().__init__()
        self.table = nn.Parameter(table)
        self.parts = nn.ModuleList([nn.Dropout(), nn.Sequential(nn.Dropout())])
        self.seen = []

    def forward(self, x, y):
        loss = (self.table[x] - self.table.T[y]).square().mean()
        self.seen.append([loss.requires_grad, [m.training for m in self.modules()]])
        if len(self.seen) == 4:
            raise RuntimeError("enough")
        return None, loss


@torch.enable_grad()  # an answer may switch gradients off and leave it so; the next case starts afresh
def stress_7_3(f, g):
    model = Grumbling(randn(g, 5, 5))
    for module in model.modules():
        module.training = bool(size(g, 0, 2))
    before = [module.training for module in model.modules()]
    shapes = [(size(g, 1, 4), size(g, 1, 5)) for _ in range(size(g, 0, 5))]
    batches = [(torch.randint(5, shape, generator=g), torch.randint(5, shape, generator=g)) for shape in shapes]
    result = outcome(lambda: f(model, (batch for batch in batches)))
    return [result, model.seen, before == [module.training for module in model.modules()], torch.is_grad_enabled()]


def stress_7_4(f, g):
    """In units of 1e-4 of the highest rate."""
    max_lr = 10.0 ** -size(g, 0, 5)
    warmup = size(g, 0, 30)
    total = warmup + size(g, 1, 60)
    rates = [f(step, max_lr, max_lr / size(g, 1, 20), warmup, total) for step in range(0, total + 20, 3)]
    return [rate / max_lr for rate in rates]


def stress_7_5(f, g):
    names = [f"p{i}" for i in range(size(g, 3, 9))]
    model = nn.Module()
    for name in names:
        shape = [size(g, 1, 3) for _ in range(size(g, 0, 4))]
        model.register_parameter(name, nn.Parameter(torch.zeros(shape), requires_grad=bool(size(g, 0, 4))))
    model.inner = nn.LayerNorm(2)
    model.tied, model.again = model.inner, nn.Module()
    model.again.p = getattr(model, names[0])
    by_id = {id(p): name for name, p in model.named_parameters()}
    groups = list(f(model, 0.25))
    found = sorted([group["weight_decay"], sorted(by_id[id(p)] for p in group["params"])] for group in groups)
    return [len(groups), found, len(torch.optim.AdamW(groups).param_groups)]


def stress_7_6(f, g):
    b, v = size(g), size(g, 1, 9)
    logits = randn(g, b, v) * 3
    temperature = (0, 0.0, 0.1, 0.5, 1.0, 2, 5.0)[size(g, 0, 7)]
    k = (None, 1, 2, 3, 5, 40)[size(g, 0, 6)]
    draws = torch.Generator().manual_seed(size(g, 0, 10**6))
    kept = logits.clone()
    ids = [f(logits, temperature, k, draws) for _ in range(5)]
    wrong = [(-0.1, None), (-2, 3), (1.0, 0), (1.0, -1)]
    errors = [outcome(lambda t=t, k=k: f(logits, t, k, draws)) for t, k in wrong]
    return [ids, errors, torch.equal(logits, kept)]


def steps(model, optimizer, x, count):
    for _ in range(count):
        optimizer.zero_grad()
        (model(x).square().sum() / 10).backward()
        optimizer.step()


def stress_7_7(answers, g):
    """Two checkpoints of one run, loaded into new objects, and the run from there."""
    save, load = answers
    x = torch.randn(4, 2, generator=g)
    first_weights, other_weights = torch.randn(2, 2, 2, generator=g)
    kind = (torch.optim.AdamW, torch.optim.Adam, torch.optim.RMSprop)[size(g, 0, 3)]
    at = [size(g, 0, 4), size(g, 1, 4)]

    def fresh(weights):
        model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        with torch.no_grad():
            model[0].weight.copy_(weights)
            model[0].bias.fill_(0.5)
        return model, kind(model.parameters(), lr=0.1)

    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/one.pt", Path(folder) / "two"]
        model, optimizer = fresh(first_weights)
        for path, count in zip(paths, at, strict=True):
            steps(model, optimizer, x, count)
            save(path, model, optimizer, count)
        steps(model, optimizer, x, 3)
        seen = [list(model.state_dict().values())]
        for path in reversed(paths):
            model, optimizer = fresh(other_weights)
            seen.append(load(path, model, optimizer))
            steps(model, optimizer, x, 3)
            seen.append(list(model.state_dict().values()))
            torch.load(path, weights_only=True)
    return seen
