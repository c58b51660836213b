"""Stress cases for chapter 5."""

import torch

from stress.draws import letters, outcome, size


def stress_5_1(f, g):
    text = letters(g, size(g, 5, 30)) + "\n B"
    t = f(text)
    ids = t.encode(text)
    back = t.decode(ids), t.decode(torch.as_tensor(ids)), t.decode([]), t.encode("")
    errors = [outcome(lambda s=s: t.encode(s)) for s in ("Z", "aZ", "a€", "\t")]
    return [t.vocab_size, ids, *back, *errors]


def stress_5_2(f, g):
    n, block_size = size(g, 12, 30), size(g, 1, 9)
    draws = torch.Generator().manual_seed(size(g, 0, 10**6))
    data = torch.randint(1000, (n,), generator=g)
    large = f(torch.arange(9), 4, 3000, draws)[0][:, 0]
    shares = torch.bincount(large, minlength=9) / 3000
    x, y = f(data, block_size, 5, draws)
    windows = {tuple(row) for row in data.unfold(0, block_size + 1, 1).tolist()}
    right = all((*a, b[-1]) in windows and a[1:] == b[:-1] for a, b in zip(x.tolist(), y.tolist(), strict=True))
    return [x.shape, y.shape, x.dtype, y.dtype, right, [round(share / 0.06) for share in shares.tolist()]]


def stress_5_3(f, g):
    v, b, t = size(g, 2), size(g), size(g)
    model = f(v)
    with torch.no_grad():
        model.token_embedding_table.weight.copy_(torch.randn(v, v, generator=g))
    idx, targets = torch.randint(v, (2, b, t), generator=g)
    logits, loss = model(idx, targets)
    loss.backward()
    names = [name for name, _ in model.named_parameters()]
    return [logits, loss, model(idx), names, model.token_embedding_table.weight.grad]


class Remembering(torch.nn.Module):
    """Logits that depend on the position, the last token and the sum of all; a dropout that shows the mode."""

    def __init__(self, table):
        super().__init__()
        self.register_buffer("table", table)
        self.inner = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.ReLU())

    def forward(self, idx, targets=None):
        return self.table[(idx.cumsum(1) + 3 * idx + idx.shape[1]) % len(self.table)], None


def stress_5_4(f, g):
    v = size(g, 3, 9)
    model = Remembering(2 * torch.randn(v, v, generator=g))
    model.inner.train(bool(size(g, 0, 2)))
    before = [m.training for m in model.modules()]
    idx = torch.randint(v, (size(g), size(g)), generator=g)
    kept = idx.clone()
    text = f(model, idx, size(g, 0, 12), torch.Generator().manual_seed(size(g, 0, 10**6)))
    return [text, torch.equal(idx, kept), before == [m.training for m in model.modules()], text.requires_grad]


def stress_5_5(f, g):
    v = size(g, 1, 12)
    return f(torch.randint(v, (size(g, 2, 900),), generator=g), v)


class Pieces:
    def __init__(self, length):
        self.length = length

    def encode_ordinary(self, text):
        return [7] * -(-len(text) // self.length)


def stress_5_6(f, g):
    return [f(letters(g, size(g, 1, 40)), Pieces(size(g))), outcome(lambda: f("", Pieces(2)))]
