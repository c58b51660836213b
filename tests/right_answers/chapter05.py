"""Other right answers for chapter 5."""

import functools
import itertools
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# 5.1 ------------------------------------------------------------------------------------------------


class TwoDictionaries:
    def __init__(self, text):
        chars = sorted(set(text))
        self.vocab_size = len(chars)
        self.stoi = {ch: i for i, ch in enumerate(chars)}
        self.itos = dict(enumerate(chars))

    def encode(self, text):
        ids = []
        for ch in text:
            if ch not in self.stoi:
                raise ValueError(f"unknown character {ch!r}")
            ids.append(self.stoi[ch])
        return ids

    def decode(self, ids):
        return "".join(self.itos[int(i)] for i in ids)


class AssertsAndProperty:
    def __init__(self, text):
        self._chars = "".join(sorted(set(text)))

    @property
    def vocab_size(self):
        return len(self._chars)

    def encode(self, text):
        for ch in text:
            assert ch in self._chars, "no id for " + ch
        return [self._chars.index(ch) for ch in text]

    def decode(self, ids):
        return "".join([self._chars[i] for i in ids])


class ChainedError:
    def __init__(self, text):
        self.chars = sorted(Counter(text))
        self.lookup = {ch: i for i, ch in enumerate(self.chars)}
        self.vocab_size = len(self.chars)

    def encode(self, text):
        try:
            return list(map(self.lookup.__getitem__, text))
        except KeyError as error:
            raise ValueError(f"{error.args[0]} is not in the vocabulary") from error

    def decode(self, ids):
        ids = ids.tolist() if isinstance(ids, Tensor) else ids
        return "".join(map(self.chars.__getitem__, ids))


class UnknownCharacterError(ValueError):
    pass


class TokenizerModule(nn.Module):
    def __init__(self, text):
        super().__init__()
        self.chars = sorted(set(text))
        self.vocab_size = len(self.chars)

    def encode(self, text):
        strangers = sorted(set(text) - set(self.chars))
        if strangers:
            raise UnknownCharacterError(f"characters that I do not know: {strangers}")
        return [self.chars.index(ch) for ch in text]

    def decode(self, ids):
        text = ""
        for i in ids:
            text += self.chars[i]
        return text


class NumpyTokenizer:
    def __init__(self, text):
        self.chars = np.unique(np.array(list(text)))
        self.vocab_size = int(self.chars.size)

    def encode(self, text):
        for ch in text:
            if ch not in self.chars:
                raise ValueError(f"{ch} is unknown")
        return np.searchsorted(self.chars, np.array(list(text), dtype=self.chars.dtype)).tolist()

    def decode(self, ids):
        return "".join(str(self.chars[int(i)]) for i in ids)


# 5.2 ------------------------------------------------------------------------------------------------


def batch_by_fancy_index(data, block_size, batch_size, generator):
    starts = torch.randint(data.numel() - block_size, (batch_size, 1), generator=generator)
    positions = starts + torch.arange(block_size)
    return data[positions], data[positions + 1]


def batch_per_row(data, block_size, batch_size, generator):
    x, y = [], []
    for _ in range(batch_size):
        start = int(torch.randint(0, len(data) - block_size, (1,), generator=generator))
        piece = data[start : start + block_size + 1]
        x.append(piece[:-1])
        y.append(piece[1:])
    return torch.stack(x), torch.stack(y)


def batch_by_unfold(data, block_size, batch_size, generator):
    windows = data.unfold(0, block_size + 1, 1)
    chosen = windows[torch.randint(len(windows), (batch_size,), generator=generator)]
    return chosen[:, :-1], chosen[:, 1:]


def batch_by_random_floats(data, block_size, batch_size, generator):
    count = len(data) - block_size
    starts = (torch.rand(batch_size, generator=generator, dtype=torch.float64) * count).long()
    x = torch.stack([data[i : i + block_size] for i in starts])
    y = torch.stack([data[i + 1 : i + 1 + block_size] for i in starts])
    return [x, y]


def batch_by_multinomial(data, block_size, batch_size, generator):
    even = torch.ones(len(data) - block_size)
    starts = torch.multinomial(even, batch_size, replacement=True, generator=generator)
    pieces = torch.stack([data[i : i + block_size + 1] for i in starts.tolist()])
    return pieces[:, :block_size].clone(), pieces[:, 1:].clone()


def batch_drawn_at_random_places(data, block_size, batch_size, generator):
    starts = torch.empty(batch_size, dtype=torch.int64).random_(len(data) - block_size, generator=generator)
    index = starts.view(-1, 1) + torch.arange(block_size).view(1, -1)
    return torch.take(data, index), torch.take(data, index + 1)


def batch_last_row_first(data, block_size, batch_size, generator):
    starts = torch.randint(len(data) - block_size, (batch_size,), generator=generator).flip(0)
    x = torch.cat([data[i : i + block_size][None] for i in starts])
    return x, torch.cat([data[i + 1 : i + block_size + 1][None] for i in starts])


# 5.3 ------------------------------------------------------------------------------------------------


class ViewsBigram(nn.Module):
    def __init__(self, vocab_size):
        super().__init__()
        self.token_embedding_table = nn.Embedding(vocab_size, vocab_size)

    def forward(self, idx, targets=None):
        logits = self.token_embedding_table(idx)
        if targets is None:
            loss = None
        else:
            B, T, C = logits.shape
            loss = F.cross_entropy(logits.view(B * T, C), targets.view(B * T))
        return logits, loss


class ChannelsSecond(ViewsBigram):
    def forward(self, idx, targets=None):
        logits = F.embedding(idx, self.token_embedding_table.weight)
        loss = None if targets is None else F.cross_entropy(logits.permute(0, 2, 1), targets)
        return logits, loss


class IndexesTheTable(ViewsBigram):
    def __init__(self, vocab_size):
        super().__init__(vocab_size)
        nn.init.zeros_(self.token_embedding_table.weight)
        self.register_buffer("mask", torch.zeros(3, 4))

    def forward(self, idx, targets=None):
        logits = self.token_embedding_table.weight[idx]
        if targets is None:
            return logits, None
        log_probs = torch.log_softmax(logits, dim=-1)
        return logits, -log_probs.gather(-1, targets.unsqueeze(-1)).mean()


class OneHotBigram(ViewsBigram):
    def forward(self, idx, targets=None):
        table = self.token_embedding_table.weight
        one_hot = F.one_hot(idx, len(table)).to(table.dtype)
        logits = one_hot @ table
        if targets is None:
            return [logits, None]
        picked = torch.stack([row[t] for row, t in zip(logits.flatten(0, 1), targets.flatten(), strict=True)])
        return logits, (logits.logsumexp(-1).flatten() - picked).mean()


class LossModule(nn.Module):
    def __init__(self, vocab_size):
        super().__init__()
        self.token_embedding_table = nn.Embedding.from_pretrained(torch.randn(vocab_size, vocab_size), freeze=False)
        self.criterion = nn.CrossEntropyLoss()

    def loss(self, logits, targets):
        return self.criterion(logits.reshape(-1, logits.size(-1)), targets.reshape(-1))

    def forward(self, idx, targets=None):
        logits = self.token_embedding_table(idx)
        return logits, None if targets is None else self.loss(logits, targets)


class MeanOfRows(ViewsBigram):
    def forward(self, idx, targets=None):
        logits = torch.stack([self.token_embedding_table(row) for row in idx])
        if targets is None:
            return logits, None
        losses = [F.nll_loss(F.log_softmax(row, -1), t) for row, t in zip(logits, targets, strict=True)]
        return logits, torch.stack(losses).mean()


# 5.4 ------------------------------------------------------------------------------------------------


@torch.no_grad()
def generate_karpathy(model, idx, max_new_tokens, generator):
    for _ in range(max_new_tokens):
        logits, _loss = model(idx)
        logits = logits[:, -1, :]
        probs = F.softmax(logits, dim=-1)
        idx_next = torch.multinomial(probs, num_samples=1, generator=generator)
        idx = torch.cat((idx, idx_next), dim=1)
    return idx


def generate_unnormalised(model, idx, max_new_tokens, generator):
    """multinomial normalises by itself."""
    for _ in range(max_new_tokens):
        last = model(idx)[0][:, -1].detach()
        weights = (last - last.amax(-1, keepdim=True)).exp()
        idx = torch.hstack([idx, weights.multinomial(1, generator=generator)])
    return idx


def generate_in_float64(model, idx, max_new_tokens, generator):
    """Other draws, same distribution."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.inference_mode():
            for _ in range(max_new_tokens):
                probs = torch.softmax(model(idx)[0][:, -1].double(), dim=-1)
                idx = torch.cat([idx, torch.multinomial(probs, 1, generator=generator)], dim=-1)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return idx.clone()


def generate_preallocated(model, idx, max_new_tokens, generator):
    batch_size, length = idx.shape
    text = torch.zeros(batch_size, length + max_new_tokens, dtype=torch.long)
    text[:, :length] = idx
    with torch.no_grad():
        for t in range(length, length + max_new_tokens):
            logits = model(text[:, :t])[0][:, t - 1]
            text[:, t] = torch.multinomial(logits.softmax(-1), 1, True, generator=generator).squeeze(1)
    return text


def generate_recursively(model, idx, max_new_tokens, generator):
    if max_new_tokens == 0:
        return idx.clone()
    with torch.no_grad():
        probs = torch.exp(torch.log_softmax(model(idx)[0], dim=-1))[:, -1]
    next_id = torch.multinomial(probs, num_samples=1, generator=generator)
    return generate_recursively(model, torch.cat([idx, next_id], dim=1), max_new_tokens - 1, generator)


def generate_pieces(model, idx, max_new_tokens, generator):
    pieces = list(idx.T)
    while len(pieces) < idx.shape[1] + max_new_tokens:
        logits = model(torch.stack(pieces, dim=1))[0]
        pieces.append(torch.multinomial(logits[:, -1].softmax(1), 1, generator=generator)[:, 0])
    return torch.stack(pieces, dim=1)


# 5.5 ------------------------------------------------------------------------------------------------


def counts_by_loop(data, vocab_size):
    counts = torch.ones(vocab_size, vocab_size)
    for a, b in zip(data[:-1].tolist(), data[1:].tolist(), strict=True):
        counts[a, b] += 1
    return torch.log(counts / counts.sum(dim=1, keepdim=True))


def counts_by_index_put(data, vocab_size):
    counts = torch.zeros(vocab_size, vocab_size, dtype=torch.long)
    counts.index_put_((data[:-1], data[1:]), torch.tensor(1), accumulate=True)
    totals = counts.sum(1)
    return (counts + 1).log() - (totals + vocab_size).log()[:, None]


def counts_by_counter(data, vocab_size):
    ids = data.tolist()
    pairs, firsts = Counter(itertools.pairwise(ids)), Counter(ids[:-1])
    rows = [
        [math.log((pairs[a, b] + 1) / (firsts[a] + vocab_size)) for b in range(vocab_size)] for a in range(vocab_size)
    ]
    return torch.tensor(rows)


def counts_by_one_hot(data, vocab_size):
    hot = F.one_hot(data, vocab_size).float()
    counts = hot[:-1].T @ hot[1:] + 1
    return counts.log() - counts.sum(-1, keepdim=True).log()


def counts_by_numpy(data, vocab_size):
    ids = data.numpy()
    counts = np.ones((vocab_size, vocab_size))
    np.add.at(counts, (ids[:-1], ids[1:]), 1)
    return torch.from_numpy(np.log(counts / counts.sum(axis=1, keepdims=True))).float()


def counts_by_log_softmax(data, vocab_size):
    counts = torch.bincount(data[:-1] * vocab_size + data[1:], minlength=vocab_size * vocab_size)
    return torch.log_softmax((counts.reshape(vocab_size, vocab_size) + 1).double().log(), dim=-1).to(torch.float32)


# 5.6 ------------------------------------------------------------------------------------------------


def ratio_asserted(text, encoding):
    assert len(text) > 0
    return len(text) / len(encoding.encode_ordinary(text))


def ratio_by_counting(text, encoding):
    characters = sum(1 for _ in text)
    tokens = sum(1 for _ in encoding.encode_ordinary(text))
    if tokens == 0:
        raise ValueError("no text")
    return float(characters) / tokens


def ratio_by_reciprocal(text, encoding):
    if text == "":
        raise ValueError
    return 1 / (len(encoding.encode_ordinary(text)) / len(text))


def ratio_by_catching(text, encoding):
    ids = encoding.encode_ordinary(text)
    try:
        return float(Fraction(len(text), len(ids)))
    except ZeroDivisionError as error:
        raise ValueError("an empty text has no tokens") from error


def ratio_as_mean(text, encoding):
    if not len(text):
        raise ValueError("nothing to count")
    return np.float64(len(text)) / np.float64(len(encoding.encode_ordinary(text)))


def ratio_with_options(text, encoding, *, empty_message="empty"):
    if not text:
        raise ValueError(empty_message)
    return len(text) / len(encoding.encode_ordinary(text))


RIGHT_ANSWERS = {
    "5.1": [
        ("two dictionaries", TwoDictionaries),
        ("assertion and property", AssertsAndProperty),
        ("chained error", ChainedError),
        ("module", TokenizerModule),
        ("numpy", NumpyTokenizer),
    ],
    "5.2": [
        ("fancy index", batch_by_fancy_index),
        ("per row", batch_per_row),
        ("unfold", batch_by_unfold),
        ("random floats", batch_by_random_floats),
        ("multinomial", batch_by_multinomial),
        ("random_", batch_drawn_at_random_places),
        ("last row first", batch_last_row_first),
    ],
    "5.3": [
        ("views", ViewsBigram),
        ("channels second", ChannelsSecond),
        ("indexes the table", IndexesTheTable),
        ("one-hot", OneHotBigram),
        ("loss module", LossModule),
        ("mean of rows", MeanOfRows),
    ],
    "5.4": [
        ("no_grad only", generate_karpathy),
        ("unnormalised", generate_unnormalised),
        ("float64", generate_in_float64),
        ("preallocated", generate_preallocated),
        ("recursive", generate_recursively),
        ("pieces", generate_pieces),
    ],
    "5.5": [
        ("loop", counts_by_loop),
        ("index_put", counts_by_index_put),
        ("counter", counts_by_counter),
        ("one-hot", counts_by_one_hot),
        ("numpy", counts_by_numpy),
        ("log softmax", counts_by_log_softmax),
    ],
    "5.6": [
        ("asserted", ratio_asserted),
        ("by counting", ratio_by_counting),
        ("reciprocal", ratio_by_reciprocal),
        ("catching", ratio_by_catching),
        ("numpy float", ratio_as_mean),
        ("extra option", functools.partial(ratio_with_options, empty_message="no text at all")),
    ],
}
