"""Other right answers for chapter 3."""

import copy
import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.attention import CausalAttention
from utils.masking import causal_mask, causal_softmax

# 3.1 ------------------------------------------------------------------------------------------------


def mean_by_count(x):
    T = x.shape[1]
    counts = torch.arange(1, T + 1, dtype=x.dtype)
    return torch.tril(torch.ones(T, T, dtype=x.dtype)) @ x / counts[:, None]


def mean_by_softmax(x):
    T = x.size(1)
    weights = torch.zeros(T, T, dtype=x.dtype).masked_fill(torch.tril(torch.ones(T, T)) == 0, float("-inf"))
    return F.softmax(weights, dim=-1) @ x


def mean_by_einsum(x):
    position = torch.arange(x.shape[1])
    past = (position[:, None] >= position).to(x.dtype)
    return torch.einsum("ts,bsc->btc", past / past.sum(1, keepdim=True), x)


def mean_by_broadcast(x):
    past = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
    seen = torch.where(past[None, :, :, None], x[:, None], torch.zeros_like(x[:, None]))  # (B, T, T, C)
    return seen.sum(dim=2) / past.sum(dim=1)[:, None]


def mean_by_right_multiplication(x):
    T = x.shape[-2]
    weights = torch.triu(x.new_ones(T, T))
    return (x.transpose(1, 2) @ (weights / weights.sum(0))).transpose(1, 2)


def mean_by_bmm(x):
    B, T, _ = x.shape
    weights = torch.ones(T, T).tril_().to(x)
    weights /= weights.sum(1, keepdim=True)
    return torch.bmm(weights.expand(B, T, T), x)


def mean_by_convolution(x):
    B, T, C = x.shape
    padded = F.pad(x.transpose(1, 2).reshape(B * C, 1, T), (T - 1, 0))
    sums = F.conv1d(padded, x.new_ones(1, 1, T))
    return sums.reshape(B, C, T).transpose(1, 2) / torch.arange(1, T + 1)[:, None].to(x.dtype)


def mean_by_windows(x):
    T = x.shape[1]
    windows = F.pad(x, (0, 0, T - 1, 0)).unfold(1, T, 1)  # (B, T, C, T)
    return windows.sum(-1) / torch.arange(1, T + 1, dtype=x.dtype).view(-1, 1)


def mean_by_attention(x):
    """Queries of zeros look at all they may see alike."""
    return F.scaled_dot_product_attention(torch.zeros_like(x), x, x, is_causal=True)


def mean_by_solving(x):
    """The sums are what has ``x`` as its differences."""
    T = x.shape[1]
    differences = torch.eye(T, dtype=x.dtype) - torch.diag(torch.ones(T - 1, dtype=x.dtype), -1)
    return torch.linalg.solve_triangular(differences, x, upper=False) / (1.0 + torch.arange(T).to(x.dtype))[:, None]


def mean_by_vmap(x):
    positions = torch.arange(x.shape[1])

    def at(t):
        past = (positions <= t).to(x.dtype)
        return past @ x / (t + 1)

    return torch.vmap(at, out_dims=1)(positions)


def mean_in_float64(x):
    lower = torch.tril(torch.ones(x.shape[1], x.shape[1], dtype=torch.float64))
    return (lower.div(lower.sum(-1, keepdim=True)) @ x.double()).to(x.dtype)


def mean_by_tensordot(x):
    weights = torch.tril(torch.full((x.shape[1],) * 2, 1.0, dtype=x.dtype))
    weights = F.normalize(weights, p=1, dim=1)
    return torch.tensordot(weights, x, dims=([1], [1])).movedim(0, 1)


class MeanModule(nn.Module):
    """Keeps a table that is large enough, and cuts it."""

    def __init__(self):
        super().__init__()
        lower = torch.ones(600, 600, dtype=torch.float64).tril()
        self.register_buffer("weights", lower / lower.sum(1, keepdim=True))

    def forward(self, x):
        T = x.shape[1]
        return self.weights[:T, :T].to(x.dtype) @ x


# 3.2 ------------------------------------------------------------------------------------------------


def causal_by_where(scores):
    T = scores.shape[-1]
    visible = torch.ones(T, T, dtype=torch.bool).tril()
    return F.softmax(torch.where(visible, scores, torch.tensor(-torch.inf, dtype=scores.dtype)), dim=-1)


def causal_by_adding(scores):
    T = scores.size(-1)
    return torch.softmax(scores + torch.full((T, T), -torch.inf, dtype=scores.dtype).triu(1), -1)


def causal_by_large_number(scores):
    hidden = torch.triu(torch.ones(scores.shape[-2:]), diagonal=1).bool()
    return nn.Softmax(dim=-1)(scores.masked_fill(hidden, -1e9))


def causal_by_smallest_number(scores):
    position = torch.arange(scores.shape[-1])
    return scores.masked_fill(position[:, None] < position, torch.finfo(scores.dtype).min).softmax(dim=-1)


def causal_by_log_of_mask(scores):
    return torch.softmax(scores + torch.ones_like(scores).tril().log(), dim=-1)


def causal_in_log_space(scores):
    masked = scores.masked_fill(torch.ones_like(scores).tril() == 0, float("-inf"))
    return torch.log_softmax(masked, dim=-1).exp()


def causal_by_hand(scores):
    hidden = torch.ones_like(scores, dtype=torch.bool).triu(1)
    masked = scores.masked_fill(hidden, -math.inf)
    exponentials = (masked - masked.max(dim=-1, keepdim=True).values).exp()
    return exponentials / exponentials.sum(-1, keepdim=True)


def causal_row_by_row(scores):
    T = scores.shape[-1]
    rows = [F.pad(scores[..., t, : t + 1].softmax(-1), (0, T - 1 - t)) for t in range(T)]
    return torch.stack(rows, dim=-2)


def causal_into_zeros(scores):
    weights = torch.zeros_like(scores)
    for t in range(scores.shape[-2]):
        weights[..., t, : t + 1] = torch.softmax(scores[..., t, : t + 1], dim=-1)
    return weights


def causal_on_a_copy(scores):
    masked = scores.clone()
    masked[..., torch.ones(scores.shape[-2:]).triu(1) > 0] = -torch.inf
    return masked.softmax(-1)


def causal_zeroed_again(scores):
    hidden = causal_mask(scores.shape[-1])
    return torch.softmax(scores.masked_fill(hidden, -1e30), dim=-1).masked_fill(hidden, 0.0).tril()


def causal_in_float64(scores):
    return causal_by_where(scores.double()).to(scores.dtype)


def causal_turned(scores):
    hidden = torch.ones_like(scores).tril(-1).bool()  # of the transposed scores
    return scores.mT.masked_fill(hidden, -torch.inf).softmax(dim=-2).mT


def causal_flattened(scores):
    T = scores.shape[-1]
    flat = scores.reshape(-1, T, T)
    return torch.stack([causal_by_adding(table) for table in flat]).reshape(scores.shape)


class CausalSoftmaxModule(nn.Module):
    def forward(self, scores):
        return causal_by_where(scores)


# 3.3 ------------------------------------------------------------------------------------------------


def in_eval_mode(function):
    """For answers that deal with the mode in one place."""

    @functools.wraps(function)
    def wrapped(attention, d_in, context_length):
        was_training = getattr(attention, "training", False)
        if isinstance(attention, nn.Module):
            attention.eval()
        try:
            with torch.no_grad():
                return function(attention, d_in, context_length)
        finally:
            if isinstance(attention, nn.Module):
                attention.train(was_training)

    return wrapped


@in_eval_mode
def leak_one_input_at_a_time(attention, d_in, context_length):
    x = torch.randn(1, context_length, d_in)
    before = attention(x)
    tolerance = 1e-4 * before.abs().max()
    for t in range(1, context_length):
        changed = x.clone()
        changed[0, t] = torch.randn(d_in)
        if torch.any(torch.abs(attention(changed) - before)[0, :t] > tolerance):
            return False
    return True


@in_eval_mode
def leak_two_futures(attention, d_in, context_length):
    """One past and two futures at every t."""
    for t in range(context_length):
        past = torch.randn(1, t + 1, d_in)
        one, two = (torch.cat([past, torch.randn(1, context_length - t - 1, d_in)], dim=1) for _ in range(2))
        first, second = attention(one), attention(two)
        largest = max(first.abs().max(), second.abs().max())
        if not torch.allclose(first[:, : t + 1], second[:, : t + 1], rtol=0, atol=float(largest) * 5e-5):
            return False
    return True


@in_eval_mode
def leak_table(attention, d_in, context_length):
    """How much every output depends on every input; the upper triangle has to be empty."""
    x = torch.rand(1, context_length, d_in)
    before = attention(x)
    changes = []
    for t in range(context_length):
        changed = x.clone()
        changed[:, t, :] += 1.0
        changes.append((attention(changed) - before).abs().amax(dim=-1)[0])
    table = torch.stack(changes, dim=1)  # (output, input)
    return bool((table.triu(diagonal=1) <= 1e-5 * before.abs().max()).all())


def leak_in_a_copy(attention, d_in, context_length):
    if isinstance(attention, nn.Module):
        attention = copy.deepcopy(attention).eval()
    x = torch.randn(1, context_length, d_in)
    y = attention(x.clone()).detach().numpy()
    for t in range(context_length - 1):
        other = x.clone()
        other[:, t + 1 :] = -3 * other[:, t + 1 :] + 1
        z = attention(other).detach().numpy()
        if np.abs(y - z)[:, : t + 1].max() / np.abs(y).max() > 3e-4:
            return False
    return True


@in_eval_mode
def leak_many_trials(attention, d_in, context_length):
    largest = leak = 0.0
    for _ in range(4):
        x = torch.randn(1, context_length, d_in)
        for t in range(context_length, 1, -1):
            changed = x.clone()
            changed[:, t - 1 :] = 10 * torch.rand(1, context_length - t + 1, d_in)
            before, after = attention(x), attention(changed)
            largest = max(largest, before.abs().max().item())
            leak = max(leak, (before - after)[:, : t - 1].abs().max().item())
    return leak <= 1e-4 * largest


@in_eval_mode
def leak_by_zeroing(attention, d_in, context_length):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, context_length, d_in, generator=generator) + 2
    before = attention(x.clone())
    scale = torch.max(torch.abs(before))
    verdicts = [True]
    for t in range(1, context_length):
        zeroed = torch.cat((x[:, :t], torch.zeros_like(x[:, t:])), dim=1)
        verdicts.append(torch.equal(torch.round((attention(zeroed) - before)[:, :t] / scale * 2000), 0 * before[:, :t]))
    return all(verdicts)


@in_eval_mode
def leak_in_one_batch(attention, d_in, context_length):
    """All changes at once, as a batch of sequences: every other function here takes one."""
    T = context_length
    x = torch.randn(1, T, d_in)
    before = attention(x)
    worst = torch.zeros(())
    for _ in range(2):
        other = torch.randn(1, T, d_in)
        for t in range(1, T):
            keep = (torch.arange(T) < t)[None, :, None]
            worst = torch.maximum(worst, ((attention(torch.where(keep, x, other)) - before) * keep).abs().max())
    return (worst <= before.abs().max() * 2e-4).item()


@in_eval_mode
def leak_feature_by_feature(attention, d_in, context_length):
    x = torch.zeros(1, context_length, d_in)
    x += 0.5
    for later in range(1, context_length):
        for feature in range(d_in):
            y = x.clone()
            y[0, later, feature] = -1.25
            a, b = attention(x), attention(y)
            if ((a - b)[0, :later].abs() >= 5e-4 * a.abs().max()).any().item():
                return False
    return True


# 3.4 ------------------------------------------------------------------------------------------------


def drop_by_where(weights, keep_mask, p):
    return torch.where(keep_mask, weights / (1 - p), torch.zeros_like(weights))


def drop_by_masked_fill(weights, keep_mask, p):
    return weights.masked_fill(~keep_mask, 0) * (1 / (1 - p))


def drop_by_float_mask(weights, keep_mask, p):
    mask = keep_mask.type_as(weights)
    return torch.mul(weights, mask).div(1.0 - p)


def drop_by_indexing(weights, keep_mask, p):
    result = torch.zeros_like(weights)
    result[keep_mask] = weights[keep_mask] / (1 - p)
    return result


def drop_on_a_copy(weights, keep_mask, p):
    result = weights.clone()
    result[torch.logical_not(keep_mask)] = 0.0
    result /= 1 - p
    return result


def drop_by_scale_table(weights, keep_mask, p):
    scale = torch.zeros(weights.shape, dtype=weights.dtype).masked_fill_(keep_mask, 1 / (1 - p))
    return scale * weights


def drop_in_float64(weights, keep_mask, p):
    return (weights.double() * keep_mask.double() / (1 - p)).to(weights.dtype)


def drop_entry_by_entry(weights, keep_mask, p):
    pairs = zip(weights.flatten(), keep_mask.flatten().tolist(), strict=True)
    return torch.stack([w / (1 - p) if keep else w * 0 for w, keep in pairs]).reshape(weights.shape)


def drop_by_subtraction(weights, keep_mask, p):
    scaled = weights / (1 - p)
    return scaled - scaled * keep_mask.logical_not()


class DropModule(nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout = drop_by_where  # a name of one's own

    def forward(self, weights, keep_mask, p):
        return self.dropout(weights, keep_mask, p)


# 3.5 ------------------------------------------------------------------------------------------------


class Layers(nn.Module):
    """What the classes below share: the three layers and the length."""

    def __init__(self, d_in, d_out, context_length, dropout, qkv_bias=False):
        super().__init__()
        self.d_out = d_out
        self.context_length = context_length
        self.W_query = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_key = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_value = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.dropout = nn.Dropout(dropout)


class AsInBooks(Layers):
    def __init__(self, d_in, d_out, context_length, dropout, qkv_bias=False):
        super().__init__(d_in, d_out, context_length, dropout, qkv_bias)
        self.register_buffer("mask", torch.triu(torch.ones(context_length, context_length), diagonal=1))

    def forward(self, x):
        _, num_tokens, _ = x.shape
        if num_tokens > self.context_length:
            raise ValueError(f"Got {num_tokens} tokens, at most {self.context_length} fit.")
        keys, queries, values = self.W_key(x), self.W_query(x), self.W_value(x)
        attn_scores = queries @ keys.transpose(1, 2)
        attn_scores.masked_fill_(self.mask.bool()[:num_tokens, :num_tokens], -torch.inf)
        attn_weights = self.dropout(torch.softmax(attn_scores / keys.shape[-1] ** 0.5, dim=-1))
        return attn_weights @ values


class AsInLectures(Layers):
    """The lower triangle, as floats, and an assertion."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        T = self.context_length
        self.register_buffer("mask", torch.tril(torch.ones(T, T)), persistent=False)

    def forward(self, x):
        _, T, _ = x.shape
        assert self.context_length >= T, f"cannot forward a sequence of length {T}"
        k, q, v = self.W_key(x), self.W_query(x), self.W_value(x)
        wei = q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5
        wei = wei.masked_fill(self.mask[:T, :T] == 0, float("-inf"))
        wei = F.dropout(F.softmax(wei, dim=-1), self.dropout.p, training=self.training)
        return wei @ v


class AdditiveMask(Layers):
    """A mask of four dimensions that is added."""

    def __init__(self, d_in, d_out, context_length, dropout, qkv_bias=False):
        super().__init__(d_in, d_out, context_length, dropout, qkv_bias)
        self.register_buffer("mask", torch.full((1, 1, context_length, context_length), -1e9).triu(1))

    def forward(self, x):
        T = x.size(1)
        if self.mask.size(-1) < T:
            raise ValueError("sequence length " + str(T))
        scores = torch.einsum("bid,bjd->bij", self.W_query(x), self.W_key(x)) / math.sqrt(self.d_out)
        weights = self.dropout((scores + self.mask[0, 0, :T, :T]).softmax(2))
        return torch.einsum("bij,bjd->bid", weights, self.W_value(x))


class Renormalises(Layers):
    def __init__(self, d_in, d_out, context_length, dropout, qkv_bias=False):
        super().__init__(d_in, d_out, context_length, dropout, qkv_bias)
        self.register_buffer("mask", torch.tril(torch.ones(context_length + 3, context_length + 3, dtype=torch.uint8)))

    def forward(self, x):
        T = x.shape[-2]
        if self.context_length < T:
            raise AssertionError(f"{T} > {self.context_length}")
        scores = self.W_query(x) @ self.W_key(x).mT / self.d_out**0.5
        weights = torch.softmax(scores, dim=-1) * self.mask[:T, :T]
        weights = weights / weights.sum(dim=-1, keepdim=True)
        return self.dropout(weights) @ self.W_value(x)


class OneProjection(Layers):
    """The three layers joined into one multiplication, scaled queries, and the course's own softmax."""

    def __init__(self, d_in, d_out, context_length, dropout, qkv_bias=False):
        super().__init__(d_in, d_out, context_length, dropout, qkv_bias=qkv_bias)
        self.register_buffer("mask", torch.zeros(0))

    def forward(self, x):
        if (length := x.shape[1]) > self.context_length:
            raise ValueError(f"length {length}")
        layers = (self.W_query, self.W_key, self.W_value)
        weight = torch.cat([layer.weight for layer in layers])
        bias = None if self.W_query.bias is None else torch.cat([layer.bias for layer in layers])
        queries, keys, values = F.linear(x, weight, bias).split(self.d_out, dim=-1)
        return self.dropout(causal_softmax((queries / math.sqrt(self.d_out)) @ keys.mT)) @ values


class SequenceBySequence(Layers):
    """No batches inside, rows one by one, and dropout drawn by hand."""

    def __init__(self, d_in, d_out, context_length, dropout, qkv_bias=False):
        super().__init__(d_in, d_out, context_length, dropout, qkv_bias)
        self.register_buffer("mask", causal_mask(context_length).to(torch.int64))

    def one(self, x):
        queries, keys, values = self.W_query(x), self.W_key(x), self.W_value(x)
        rows = []
        for t, query in enumerate(queries):
            weights = torch.softmax(keys[: t + 1] @ query * self.d_out**-0.5, dim=0)
            if self.training and self.dropout.p > 0:
                keep = torch.rand(t + 1) >= self.dropout.p
                weights = weights * keep / (1 - self.dropout.p)
            rows.append(weights @ values[: t + 1])
        return torch.stack(rows)

    def forward(self, x):
        if len(x[0]) > self.context_length:
            raise ValueError(f"{len(x[0])} tokens")
        return torch.stack([self.one(sequence) for sequence in x])


class KeysFirst(Layers):
    """Scores with a row for each key; the softmax runs down the columns, which are the queries."""

    def __init__(self, d_in, d_out, context_length, dropout, qkv_bias=False):
        super().__init__(d_in, d_out, context_length, dropout, qkv_bias)
        self.register_buffer("mask", torch.ones(context_length, context_length).tril(-1).bool())

    def forward(self, x: Tensor) -> Tensor:
        T = x.shape[1]
        if T not in range(self.context_length + 1):
            raise ValueError(f"{T} is not a length this module was made for")
        scores = self.W_key(x) @ self.W_query(x).transpose(1, 2) / self.d_out**0.5
        weights = scores.masked_fill(self.mask[:T, :T], torch.finfo(x.dtype).min).softmax(dim=1)
        return self.dropout(weights).transpose(1, 2) @ self.W_value(x)


class OwnLinear(nn.Linear):
    pass


class ParentsForward(CausalAttention):
    """The library's class with layers of another class and a mask of other numbers."""

    def __init__(self, d_in, d_out, context_length, dropout, qkv_bias=False):
        super().__init__(d_in, d_out, context_length, dropout, qkv_bias)
        self.W_query = OwnLinear(d_in, d_out, qkv_bias)
        self.W_key = OwnLinear(d_in, d_out, qkv_bias)
        self.W_value = OwnLinear(d_in, d_out, qkv_bias)
        self.last_weights = None


class ManualSoftmax(Layers):
    """Float64 inside, exponentials by hand, dropout by ``torch.bernoulli``, and the weights kept to look at."""

    def __init__(self, d_in, d_out, context_length, dropout, qkv_bias=False):
        super().__init__(d_in, d_out, context_length, dropout, qkv_bias)
        self.p = dropout
        self.register_buffer("mask", torch.ones(context_length, context_length, dtype=torch.float64).tril())

    def forward(self, x):
        T = x.shape[1]
        if self.context_length < T:
            raise ValueError(T)
        scores = (self.W_query(x) @ self.W_key(x).mT).double() / self.d_out**0.5
        visible = self.mask[:T, :T].bool()
        scores = scores.masked_fill(~visible, -math.inf)
        exponentials = (scores - scores.amax(-1, keepdim=True)).exp()
        weights = (exponentials / exponentials.sum(-1, keepdim=True)).to(x.dtype)
        if self.training:
            weights = weights * torch.bernoulli(torch.full_like(weights, 1 - self.p)) / (1 - self.p)
        self.weights = weights.detach()
        return weights @ self.W_value(x)


RIGHT_ANSWERS = {
    "3.1": [
        ("count", mean_by_count),
        ("softmax", mean_by_softmax),
        ("einsum", mean_by_einsum),
        ("broadcast", mean_by_broadcast),
        ("from the right", mean_by_right_multiplication),
        ("bmm", mean_by_bmm),
        ("convolution", mean_by_convolution),
        ("windows", mean_by_windows),
        ("attention", mean_by_attention),
        ("solving", mean_by_solving),
        ("vmap", mean_by_vmap),
        ("float64 inside", mean_in_float64),
        ("tensordot", mean_by_tensordot),
        ("module object", MeanModule()),
        ("lambda", lambda x: torch.tril(x.new_ones(x.shape[1], x.shape[1])).softmax(-1) * 0 @ x + mean_by_count(x)),
    ],
    "3.2": [
        ("where", causal_by_where),
        ("adding", causal_by_adding),
        ("large number", causal_by_large_number),
        ("smallest number", causal_by_smallest_number),
        ("log of mask", causal_by_log_of_mask),
        ("log space", causal_in_log_space),
        ("by hand", causal_by_hand),
        ("row by row", causal_row_by_row),
        ("into zeros", causal_into_zeros),
        ("on a copy", causal_on_a_copy),
        ("zeroed again", causal_zeroed_again),
        ("float64 inside", causal_in_float64),
        ("turned", causal_turned),
        ("flattened", causal_flattened),
        ("module object", CausalSoftmaxModule()),
    ],
    "3.3": [
        ("one input at a time", leak_one_input_at_a_time),
        ("two futures", leak_two_futures),
        ("table", leak_table),
        ("in a copy", leak_in_a_copy),
        ("many trials", leak_many_trials),
        ("by zeroing", leak_by_zeroing),
        ("where", leak_in_one_batch),
        ("feature by feature", leak_feature_by_feature),
    ],
    "3.4": [
        ("where", drop_by_where),
        ("masked_fill", drop_by_masked_fill),
        ("float mask", drop_by_float_mask),
        ("indexing", drop_by_indexing),
        ("on a copy", drop_on_a_copy),
        ("scale table", drop_by_scale_table),
        ("float64 inside", drop_in_float64),
        ("entry by entry", drop_entry_by_entry),
        ("subtraction", drop_by_subtraction),
        ("module object", DropModule()),
        ("lambda", lambda weights, keep_mask, p: keep_mask * weights / (1 - p)),
    ],
    "3.5": [
        ("as in books", AsInBooks),
        ("as in lectures", AsInLectures),
        ("additive mask", AdditiveMask),
        ("renormalises", Renormalises),
        ("one projection", OneProjection),
        ("sequence by sequence", SequenceBySequence),
        ("keys first", KeysFirst),
        ("parent's forward", ParentsForward),
        ("manual softmax", ManualSoftmax),
    ],
}
