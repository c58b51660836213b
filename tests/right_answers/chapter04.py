"""Other right answers for chapter 4."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from utils import attention
from utils.attention import CausalAttention, MultiHeadAttention, MultiHeadAttentionWrapper, merge_heads, split_heads

# 4.1 ------------------------------------------------------------------------------------------------


class WrapperByLoop(nn.Module):
    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        super().__init__()
        self.heads = nn.ModuleList()
        for _ in range(num_heads):
            self.heads.append(CausalAttention(d_in, d_out, context_length, dropout, qkv_bias=qkv_bias))

    def forward(self, x):
        outputs = []
        for head in self.heads:
            outputs.append(head(x))
        return torch.cat(outputs, dim=2)


class OwnCausalAttention(nn.Module):
    """As a learner's own, with an additive mask."""

    def __init__(self, d_in, d_out, context_length, dropout, qkv_bias=False):
        super().__init__()
        self.W_query = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_key = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_value = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.p = dropout
        self.register_buffer("mask", torch.full((context_length, context_length), float("-inf")).triu(1))

    def forward(self, x):
        t = x.shape[1]
        assert t <= len(self.mask), f"{t} tokens are too many"
        q, k, v = self.W_query(x), self.W_key(x), self.W_value(x)
        scores = torch.bmm(q, k.mT) / math.sqrt(q.shape[-1]) + self.mask[:t, :t]
        return F.dropout(scores.softmax(-1), self.p, self.training) @ v


class WrapperOfOwnHeads(nn.Module):
    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        super().__init__()
        self.heads = nn.ModuleList(
            [OwnCausalAttention(d_in, d_out, context_length, dropout, qkv_bias) for _ in range(num_heads)]
        )

    def forward(self, x):
        return torch.cat([head(x) for head in self.heads], -1)


class WrapperStacksAndFlattens(WrapperOfOwnHeads):
    def forward(self, x):
        return torch.stack([head(x) for head in self.heads], dim=-2).flatten(start_dim=-2)


class WrapperFillsATensor(WrapperOfOwnHeads):
    def forward(self, x):
        outputs = [head(x) for head in self.heads]
        d = outputs[0].shape[-1]
        result = x.new_empty(*x.shape[:-1], d * len(outputs))
        for h, output in enumerate(outputs):
            result[..., h * d : (h + 1) * d] = output
        return result


class WrapperInSequentialContainer(nn.Module):
    """The container is free as long as the names agree."""

    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        super().__init__()
        arguments = (d_in, d_out, context_length, dropout, qkv_bias)
        self.heads = nn.Sequential(*[CausalAttention(*arguments) for _ in range(num_heads)])

    def forward(self, x):
        result = self.heads[0](x)
        for head in list(self.heads)[1:]:
            result = torch.hstack([result.movedim(-1, 1), head(x).movedim(-1, 1)]).movedim(1, -1)
        return result


class WrapperSubclass(MultiHeadAttentionWrapper):
    def forward(self, x):
        return torch.concat(tuple(head.forward(x) for head in self.heads), dim=-1)


class WrapperByEinsum(nn.Module):
    """The heads only hold the weights; the steps are done for all of them at once."""

    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        super().__init__()
        self.heads = nn.ModuleList(
            CausalAttention(d_in, d_out, context_length, dropout, qkv_bias) for _ in range(num_heads)
        )
        self.dropout = nn.Dropout(dropout)
        self.context_length = context_length

    def project(self, name, x):
        return torch.stack([getattr(head, name)(x) for head in self.heads], dim=1)  # (B, H, T, d_out)

    def forward(self, x):
        t = x.size(1)
        if t > self.context_length:
            raise ValueError(f"{t} > {self.context_length}")
        q, k, v = (self.project(name, x) for name in ("W_query", "W_key", "W_value"))
        scores = torch.einsum("bhid,bhjd->bhij", q, k) / q.shape[-1] ** 0.5
        scores = scores.masked_fill(~torch.ones(t, t, dtype=torch.bool).tril(), -1e9)
        out = torch.einsum("bhij,bhjd->bihd", self.dropout(scores.softmax(-1)), v)
        return out.flatten(2)


# 4.2 ------------------------------------------------------------------------------------------------


def one():
    return 1


def one_by_division():
    d_out = 2 // 2
    return d_out


def one_by_trying():
    x = torch.zeros(1, 6, 3)
    for d_out in range(1, 9):
        if MultiHeadAttentionWrapper(3, d_out, 6, 0.0, num_heads=2)(x).shape[-1] == 2:
            return d_out
    return 0


class OneModule(nn.Module):
    def forward(self):
        return int(1.0)


# 4.3 ------------------------------------------------------------------------------------------------


def split_by_view(x, num_heads):
    b, t, c = x.shape
    return x.view(b, t, num_heads, c // num_heads).transpose(1, 2)


def merge_contiguous(x):
    b, h, t, d = x.shape
    return x.transpose(1, 2).contiguous().view(b, t, h * d)


def split_by_reshape(x, num_heads):
    return x.reshape(x.size(0), x.size(1), num_heads, -1).permute(0, 2, 1, 3).contiguous()


def merge_by_reshape(x):
    return x.permute(0, 2, 1, 3).reshape(x.size(0), x.size(2), -1)


def split_by_chunks(x, num_heads):
    return torch.stack(x.chunk(num_heads, dim=-1), dim=1)


def merge_by_cat(x):
    return torch.cat(x.unbind(dim=1), dim=-1)


def split_by_slices(x, num_heads):
    d = x.shape[2] // num_heads
    heads = []
    for h in range(num_heads):
        heads.append(x[:, :, h * d : (h + 1) * d])
    return torch.stack(heads, 1)


def merge_by_filling(x):
    b, h, t, d = x.shape
    merged = torch.empty(b, t, h * d, dtype=x.dtype)
    for head in range(h):
        merged[:, :, head * d : head * d + d] = x[:, head]
    return merged


def split_by_windows(x, num_heads):
    d = x.shape[-1] // num_heads
    return x.unfold(-1, d, d).movedim(2, 1)


def merge_by_hstack(x):
    return torch.concatenate([x[:, h] for h in range(x.shape[1])], axis=2)


def split_by_index(x, num_heads):
    channels = torch.arange(x.shape[-1]).reshape(num_heads, -1)  # (H, D)
    return x[:, :, channels].swapaxes(1, 2)


def merge_by_index(x):
    _, h, _, d = x.shape
    channels = torch.arange(h * d)
    return x[:, channels // d, :, channels % d].permute(1, 2, 0)


def split_by_einsum(x, num_heads):
    return torch.einsum("bthd->bhtd", x.unflatten(2, (num_heads, -1)))


def merge_by_selection(x):
    """A matrix product with ones and zeros: every head is put in its place."""
    _, h, _, d = x.shape
    places = torch.eye(h * d, dtype=x.dtype).reshape(h, d, h * d)
    return torch.einsum("bhtd,hdc->btc", x, places)


class SplitModule(nn.Module):
    def forward(self, x, num_heads):
        return nn.Unflatten(-1, (num_heads, x.shape[-1] // num_heads))(x).transpose(-3, -2)


class MergeModule(nn.Module):
    def forward(self, x):
        return nn.Flatten(2)(x.transpose(1, 2))


def split_in_a_loop_over_the_batch(x, num_heads):
    def one(sequence):
        return torch.stack(torch.tensor_split(sequence, num_heads, dim=-1))

    return torch.stack([one(sequence) for sequence in x])


def merge_in_a_loop_over_tokens(x):
    return torch.stack([x[:, :, t].flatten(1) for t in range(x.shape[2])], dim=1)


# 4.4 ------------------------------------------------------------------------------------------------


class Classic(nn.Module):
    """As in the book, with the mistakes mended."""

    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        super().__init__()
        assert d_out % num_heads == 0, f"d_out must be divisible by num_heads, got {d_out} and {num_heads}"
        self.d_out = d_out
        self.num_heads = num_heads
        self.head_dim = d_out // num_heads
        self.context_length = context_length
        self.W_query = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_key = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_value = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.out_proj = nn.Linear(d_out, d_out)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("mask", torch.triu(torch.ones(context_length, context_length), diagonal=1))

    def forward(self, x):
        b, num_tokens, _ = x.shape
        assert num_tokens <= self.context_length, f"{num_tokens} tokens, but only {self.context_length} fit"
        keys = self.W_key(x).view(b, num_tokens, self.num_heads, self.head_dim).transpose(1, 2)
        queries = self.W_query(x).view(b, num_tokens, self.num_heads, self.head_dim).transpose(1, 2)
        values = self.W_value(x).view(b, num_tokens, self.num_heads, self.head_dim).transpose(1, 2)
        attn_scores = queries @ keys.transpose(2, 3)
        attn_scores.masked_fill_(self.mask.bool()[:num_tokens, :num_tokens], -torch.inf)
        attn_weights = self.dropout(torch.softmax(attn_scores / keys.shape[-1] ** 0.5, dim=-1))
        context_vec = (attn_weights @ values).transpose(1, 2).contiguous().view(b, num_tokens, self.d_out)
        return self.out_proj(context_vec)


class Lecture(nn.Module):
    """As in the lecture: a buffer of ones (1, 1, T, T), einsum-free, scale in front."""

    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        super().__init__()
        if d_out % num_heads != 0:
            raise ValueError(f"cannot cut {d_out} into {num_heads} heads")
        self.num_heads, self.d_out, self.context_length = num_heads, d_out, context_length
        for name in ("W_query", "W_key", "W_value"):
            setattr(self, name, nn.Linear(d_in, d_out, bias=qkv_bias))
        self.out_proj = nn.Linear(d_out, d_out, bias=True)
        self.p = dropout
        lower = torch.tril(torch.ones(context_length, context_length))
        self.register_buffer("mask", lower.view(1, 1, context_length, context_length), persistent=False)

    @property
    def head_dim(self):
        return self.d_out // self.num_heads

    def forward(self, x):
        b, t, _ = x.size()
        if t > self.context_length:
            raise ValueError(f"sequence of {t} tokens is longer than {self.context_length}")
        q, k, v = (
            W(x).view(b, t, self.num_heads, -1).transpose(1, 2) for W in (self.W_query, self.W_key, self.W_value)
        )
        att = (q * self.head_dim**-0.5) @ k.transpose(-2, -1)
        att = att.masked_fill(self.mask[:, :, :t, :t] == 0, float("-inf"))
        att = F.dropout(F.softmax(att, dim=-1), p=self.p, training=self.training)
        y = att @ v
        return self.out_proj(y.transpose(1, 2).reshape(b, t, self.d_out))


class HeadByHead(Classic):
    """A loop over the heads, each with its rows of the weights."""

    def forward(self, x):
        num_tokens = x.shape[1]
        if num_tokens > self.context_length:
            raise ValueError(f"too long: {num_tokens}")
        hidden = self.mask[:num_tokens, :num_tokens].bool()
        outputs = []
        for h in range(self.num_heads):
            rows = slice(h * self.head_dim, (h + 1) * self.head_dim)
            q, k, v = (self.part_of(W, rows, x) for W in (self.W_query, self.W_key, self.W_value))
            scores = torch.bmm(q, k.transpose(1, 2)).div(math.sqrt(self.head_dim)).masked_fill(hidden, -1e9)
            outputs.append(self.dropout(scores.softmax(dim=2)) @ v)
        return self.out_proj(torch.cat(outputs, dim=-1))

    @staticmethod
    def part_of(linear, rows, x):
        return F.linear(x, linear.weight[rows], None if linear.bias is None else linear.bias[rows])


class ByEinsum(Classic):
    def forward(self, x):
        num_tokens = x.shape[1]
        if num_tokens > self.context_length:
            raise ValueError(num_tokens)
        shape = (*x.shape[:2], self.num_heads, self.head_dim)
        q, k, v = (W(x).reshape(shape) for W in (self.W_query, self.W_key, self.W_value))
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / self.head_dim**0.5
        scores = scores + self.mask[:num_tokens, :num_tokens].to(x.dtype) * torch.finfo(x.dtype).min / 2
        weights = self.dropout(nn.Softmax(dim=-1)(scores))
        return self.out_proj(torch.einsum("bhqk,bkhd->bqhd", weights, v).flatten(-2))


class HeadsInTheBatch(Classic):
    """Heads as more batch entries: (B * H, T, D), and the projections done as one."""

    def forward(self, x):
        b, t, _ = x.shape
        if t > self.context_length:
            raise ValueError(f"{t} tokens")
        weight = torch.cat([self.W_query.weight, self.W_key.weight, self.W_value.weight])
        qkv = x @ weight.T
        if self.W_query.bias is not None:
            qkv = qkv + torch.cat([self.W_query.bias, self.W_key.bias, self.W_value.bias])
        qkv = qkv.reshape(b, t, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.reshape(3, b * self.num_heads, t, self.head_dim).unbind(0)
        scores = torch.baddbmm(torch.zeros(1, 1, 1, dtype=x.dtype), q, k.mT, beta=0, alpha=1 / math.sqrt(self.head_dim))
        scores = torch.where(self.mask[:t, :t] > 0, torch.tensor(-torch.inf, dtype=x.dtype), scores)
        out = torch.bmm(self.dropout(scores.softmax(-1)), v)
        return self.out_proj(merge_heads(out.view(b, self.num_heads, t, self.head_dim)))


class ExpAndDivide(Lecture):
    """Softmax by hand, with the mask as a factor."""

    def forward(self, x):
        t = x.shape[-2]
        assert t <= self.context_length, f"{t}"
        q, k, v = (split_heads(W(x), self.num_heads) for W in (self.W_query, self.W_key, self.W_value))
        scores = q @ k.mT / np.sqrt(self.head_dim)
        exps = (scores - scores.amax(-1, keepdim=True)).exp() * self.mask[0, 0, :t, :t].to(x.dtype)
        weights = exps / exps.sum(-1, keepdim=True)
        self.weights = weights.detach()  # for looking at
        if self.training and self.p > 0:
            weights = weights * (torch.rand_like(weights) >= self.p) / (1 - self.p)
        return self.out_proj(merge_heads(weights @ v))


class MultiHeadSubclass(MultiHeadAttention):
    def forward(self, x):
        return super().forward(x)


class WithOneMoreBuffer(MultiHeadAttention):
    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        super().__init__(d_in, d_out, context_length, dropout, num_heads, qkv_bias)
        self.register_buffer("scale", torch.tensor(self.head_dim**-0.5))


class BuiltOnCausalAttention(CausalAttention):
    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        if d_out % num_heads:
            raise ValueError(f"{d_out=} is not divisible by {num_heads=}")
        super().__init__(d_in, d_out, context_length, dropout, qkv_bias)
        self.num_heads, self.d_out, self.head_dim = num_heads, d_out, int(d_out / num_heads)
        self.out_proj = nn.Linear(d_out, d_out)

    def forward(self, x):
        t = x.shape[-2]
        if t > self.context_length:
            raise ValueError(f"{t} tokens do not fit into {self.context_length}")
        q, k, v = (split_heads(W(x), self.num_heads) for W in (self.W_query, self.W_key, self.W_value))
        contexts = attention.attend(q, k, v, self.normalizer, self.mask[:t, :t], self.dropout)
        return self.out_proj(merge_heads(contexts))


class MaskOnFirstUse(Classic):
    """The buffer's content is free, also when it comes to be."""

    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        super().__init__(d_in, d_out, context_length, dropout, num_heads, qkv_bias)
        self.mask = None

    def forward(self, x):
        self.mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.int8).triu(1)
        return super().forward(x)


# 4.5 ------------------------------------------------------------------------------------------------


def gpt2_by_position():
    return MultiHeadAttention(768, 768, 1024, 0.0, 12)


def gpt2_without_bias():
    return attention.MultiHeadAttention(
        d_in=768, d_out=12 * 64, context_length=2**10, dropout=0.1, num_heads=12, qkv_bias=False
    )


def gpt2_of_ones_own():
    return Classic(768, 768, 1024, 0.1, 12, qkv_bias=True)


def gpt2_from_a_dictionary():
    config = {"d_in": 768, "d_out": 768, "context_length": 1024, "dropout": 0.0, "num_heads": 12}
    return Lecture(**config).eval()


def gpt2_initialised_as_published():
    module = MultiHeadAttention(768, 768, 1024, 0.1, 12, True)
    for name, parameter in module.named_parameters():
        if name.endswith("weight"):
            nn.init.normal_(parameter, std=0.02)
    return module


# 4.6 ------------------------------------------------------------------------------------------------


def fused_by_view(mha, x):
    b, t, _ = x.shape
    q, k, v = (
        W(x).view(b, t, mha.num_heads, mha.head_dim).transpose(1, 2) for W in (mha.W_query, mha.W_key, mha.W_value)
    )
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return mha.out_proj(out.transpose(1, 2).contiguous().view(b, t, mha.d_out))


def fused_with_bool_mask(mha, x):
    q, k, v = [split_heads(layer(x), mha.num_heads) for layer in (mha.W_query, mha.W_key, mha.W_value)]
    t = x.shape[1]
    visible = torch.ones(t, t, dtype=torch.bool).tril()
    out = nn.functional.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=visible, dropout_p=0.0)
    return mha.out_proj(merge_heads(out))


def fused_with_the_buffer(mha, x):
    t = x.shape[1]
    q, k, v = (split_heads(W(x), mha.num_heads) for W in (mha.W_query, mha.W_key, mha.W_value))
    return mha.out_proj(merge_heads(F.scaled_dot_product_attention(q, k, v, ~mha.mask[:t, :t])))


def fused_with_added_mask(mha, x):
    t = x.shape[1]
    q, k, v = (split_heads(W(x), mha.num_heads) for W in (mha.W_query, mha.W_key, mha.W_value))
    added = torch.zeros(t, t, dtype=x.dtype).masked_fill(torch.ones(t, t).triu(1) > 0, -1e9)
    return mha.out_proj(merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=added)))


def fused_head_by_head(mha, x):
    q, k, v = mha.W_query(x), mha.W_key(x), mha.W_value(x)
    d = mha.head_dim
    outputs = []
    for h in range(mha.num_heads):
        part = (..., slice(h * d, (h + 1) * d))
        outputs.append(F.scaled_dot_product_attention(q[part], k[part], v[part], is_causal=True))
    return mha.out_proj(torch.cat(outputs, dim=-1))


def fused_sequence_by_sequence(mha, x):
    def one(sequence):
        q, k, v = (W(sequence).unflatten(-1, (mha.num_heads, -1)).movedim(1, 0) for W in projections)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).movedim(0, 1).flatten(1)

    projections = mha.W_query, mha.W_key, mha.W_value
    return mha.out_proj(torch.stack([one(sequence) for sequence in x]))


def fused_with_own_scale(mha, x):
    b, t, _ = x.size()
    q, k, v = (F.linear(x, W.weight, W.bias) for W in (mha.W_query, mha.W_key, mha.W_value))
    q, k, v = (part.reshape(b, t, mha.num_heads, -1).permute(0, 2, 1, 3) for part in (q, k, v))
    y = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, dropout_p=mha.dropout.p if mha.training else 0, is_causal=True, scale=1 / math.sqrt(mha.head_dim)
    )
    y = y.swapaxes(1, 2).reshape(b, t, -1)
    return y @ mha.out_proj.weight.T + mha.out_proj.bias


def fused_heads_in_the_batch(mha, x):
    b, t, _ = x.shape
    weight = torch.cat([mha.W_query.weight, mha.W_key.weight, mha.W_value.weight])
    bias = None if mha.W_query.bias is None else torch.cat([mha.W_query.bias, mha.W_key.bias, mha.W_value.bias])
    qkv = F.linear(x, weight, bias).view(b, t, 3 * mha.num_heads, mha.head_dim).transpose(1, 2)
    q, k, v = (part.reshape(b * mha.num_heads, t, mha.head_dim) for part in qkv.chunk(3, dim=1))
    kernel = torch._C._nn.scaled_dot_product_attention
    out = kernel(q, k, v, is_causal=True).view(b, mha.num_heads, t, mha.head_dim)
    return mha.out_proj(out.transpose(1, 2).reshape(b, t, mha.d_out))


def fused_by_the_plain_backend(mha, x):
    from torch.nn.attention import SDPBackend, sdpa_kernel

    mha.eval()
    with sdpa_kernel(SDPBackend.MATH):
        q, k, v = (split_heads(W(x), mha.num_heads) for W in (mha.W_query, mha.W_key, mha.W_value))
        return mha.out_proj(merge_heads(F.scaled_dot_product_attention(q, k, v, is_causal=True)))


class FusedModule(nn.Module):
    def forward(self, mha, x):
        return fused_by_view(mha, x)


# 4.7 ------------------------------------------------------------------------------------------------


def cross_plain(x, context, W_query, W_key, W_value):
    queries = x @ W_query
    keys = context @ W_key
    values = context @ W_value
    weights = torch.softmax(queries @ keys.transpose(1, 2) / keys.shape[-1] ** 0.5, dim=-1)
    return weights @ values


def cross_by_einsum(x, context, W_query, W_key, W_value):
    scores = torch.einsum("bqi,id,bkj,jd->bqk", x, W_query, context, W_key) / math.sqrt(W_key.shape[1])
    return torch.einsum("bqk,bkj,jd->bqd", scores.softmax(2), context, W_value)


def cross_by_loops(x, context, W_query, W_key, W_value):
    results = []
    for own, other in zip(x, context, strict=True):
        rows = []
        for token in own:
            query = token @ W_query
            scores = torch.stack([(query * (entry @ W_key)).sum() for entry in other]) / len(query) ** 0.5
            weights = scores.softmax(dim=0)
            rows.append(sum(weight * (entry @ W_value) for weight, entry in zip(weights, other, strict=True)))
        results.append(torch.stack(rows))
    return torch.stack(results)


def cross_query_scaled_first(x, context, W_query, W_key, W_value):
    q = x.matmul(W_query) * W_query.size(-1) ** -0.5
    scores = torch.bmm(q, (context @ W_key).mT)
    return torch.bmm(F.softmax(scores, dim=-1), context @ W_value)


def cross_by_linear(x, context, W_query, W_key, W_value):
    q, k, v = F.linear(x, W_query.T), F.linear(context, W_key.T), F.linear(context, W_value.T)
    exps = (q @ k.mT / np.sqrt(q.shape[-1])).exp()
    return exps @ v / exps.sum(-1, keepdim=True)


def cross_by_attend(x, context, W_query, W_key, W_value):
    return attention.attend(x @ W_query, context @ W_key, context @ W_value, attention.SoftmaxNormalizer())


def cross_values_last(x, context, W_query, W_key, W_value):
    """The weighted sum first, then the projection of the values."""
    scores = attention.scaled_scores(x @ W_query, context @ W_key)
    return (scores.softmax(-1) @ context) @ W_value


def cross_in_float64(x, context, W_query, W_key, W_value):
    x64, context64, wq, wk, wv = (tensor.double() for tensor in (x, context, W_query, W_key, W_value))
    return cross_plain(x64, context64, wq, wk, wv).to(x.dtype)


def cross_turned(x, context, W_query, W_key, W_value):
    """Everything transposed: keys along the rows, softmax down the columns."""
    scores = (context @ W_key) @ (x @ W_query).mT / W_key.shape[-1] ** 0.5  # (B, Tk, Tq)
    return torch.softmax(scores, dim=1).mT @ (context @ W_value)


class CrossModule(nn.Module):
    def forward(self, x, context, W_query, W_key, W_value):
        return cross_query_scaled_first(x, context, W_query, W_key, W_value)


RIGHT_ANSWERS = {
    "4.1": [
        ("loop", WrapperByLoop),
        ("own heads", WrapperOfOwnHeads),
        ("stack and flatten", WrapperStacksAndFlattens),
        ("fills a tensor", WrapperFillsATensor),
        ("Sequential", WrapperInSequentialContainer),
        ("subclass", WrapperSubclass),
        ("einsum", WrapperByEinsum),
    ],
    "4.2": [
        ("one", one),
        ("division", one_by_division),
        ("by trying", one_by_trying),
        ("lambda", lambda: 1),
        ("module object", OneModule()),
    ],
    "4.3": [
        ("view", (split_by_view, merge_contiguous)),
        ("reshape", (split_by_reshape, merge_by_reshape)),
        ("chunk and cat", (split_by_chunks, merge_by_cat)),
        ("slices", (split_by_slices, merge_by_filling)),
        ("windows", (split_by_windows, merge_by_hstack)),
        ("index", (split_by_index, merge_by_index)),
        ("einsum", (split_by_einsum, merge_by_selection)),
        ("modules", (SplitModule(), MergeModule())),
        ("loops", (split_in_a_loop_over_the_batch, merge_in_a_loop_over_tokens)),
    ],
    "4.4": [
        ("classic", Classic),
        ("lecture", Lecture),
        ("head by head", HeadByHead),
        ("einsum", ByEinsum),
        ("heads in the batch", HeadsInTheBatch),
        ("exp and divide", ExpAndDivide),
        ("subclass", MultiHeadSubclass),
        ("one more buffer", WithOneMoreBuffer),
        ("built on CausalAttention", BuiltOnCausalAttention),
        ("mask on first use", MaskOnFirstUse),
    ],
    "4.5": [
        ("by position", gpt2_by_position),
        ("without bias", gpt2_without_bias),
        ("one's own", gpt2_of_ones_own),
        ("from a dictionary", gpt2_from_a_dictionary),
        ("initialised as published", gpt2_initialised_as_published),
        ("lambda", lambda: MultiHeadAttention(768, 768, 1024, 0.5, 12, True)),
    ],
    "4.6": [
        ("view", fused_by_view),
        ("bool mask", fused_with_bool_mask),
        ("the module's buffer", fused_with_the_buffer),
        ("added mask", fused_with_added_mask),
        ("head by head", fused_head_by_head),
        ("sequence by sequence", fused_sequence_by_sequence),
        ("own scale", fused_with_own_scale),
        ("heads in the batch", fused_heads_in_the_batch),
        ("plain backend", fused_by_the_plain_backend),
        ("module object", FusedModule()),
    ],
    "4.7": [
        ("plain", cross_plain),
        ("einsum", cross_by_einsum),
        ("loops", cross_by_loops),
        ("query scaled first", cross_query_scaled_first),
        ("linear", cross_by_linear),
        ("attend", cross_by_attend),
        ("values last", cross_values_last),
        ("float64 inside", cross_in_float64),
        ("turned", cross_turned),
        ("module object", CrossModule()),
    ],
}
