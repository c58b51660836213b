"""Subtle mistakes for chapter 4."""

import copy
import functools
import math

import torch
import torch.nn.functional as F
from torch import nn

from utils.attention import (
    CausalAttention,
    MultiHeadAttention,
    MultiHeadAttentionWrapper,
    cross_attention,
    fused_attention,
    merge_heads,
    split_heads,
)
from utils.checks.chapters.chapter04 import (
    Steps,
    Wrapper,
    cross_by,
    queries_keys_values,
    split_by_bare_view,
)

# 4.1 ------------------------------------------------------------------------------------------------


class EqualHeads(Wrapper):
    """As many modules as asked for, but one set of weights."""

    def make_heads(self, *arguments):
        heads = super().make_heads(*arguments)
        for head in heads[1:]:
            head.W_query = heads[0].W_query
        return heads


class OneHeadTooMany(Wrapper):
    def make_heads(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias):
        return super().make_heads(d_in, d_out, context_length, dropout, num_heads + 1, qkv_bias)


class TwoHeadsAlways(Wrapper):
    def make_heads(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias):
        return super().make_heads(d_in, d_out, context_length, dropout, 2, qkv_bias)


class HeadsUnderAnotherName(Wrapper):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.attention_heads = self.heads
        del self.heads

    def forward(self, x):
        return torch.cat([head(x) for head in self.attention_heads], dim=-1)


class BiasAlways(Wrapper):
    def make_heads(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias):
        return super().make_heads(d_in, d_out, context_length, dropout, num_heads, True)


class BiasByDefault(Wrapper):
    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=True):
        super().__init__(d_in, d_out, context_length, dropout, num_heads, qkv_bias)


class BiasInPlaceOfDropout(Wrapper):
    def make_heads(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias):
        return nn.ModuleList(CausalAttention(d_in, d_out, context_length, qkv_bias) for _ in range(num_heads))


class WithOutputProjection(Wrapper):
    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        super().__init__(d_in, d_out, context_length, dropout, num_heads, qkv_bias)
        self.out_proj = nn.Linear(d_out * num_heads, d_out * num_heads)

    def forward(self, x):
        return self.out_proj(super().forward(x))


class DropsTheJoinedHeads(Wrapper):
    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        super().__init__(d_in, d_out, context_length, 0.0, num_heads, qkv_bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        return self.dropout(super().forward(x))


class DropsTwice(DropsTheJoinedHeads):
    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        super().__init__(d_in, d_out, context_length, dropout, num_heads, qkv_bias)
        for head in self.heads:
            head.dropout = nn.Dropout(dropout)


class HalfTheDropout(Wrapper):
    def make_heads(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias):
        return super().make_heads(d_in, d_out, context_length, dropout / 2, num_heads, qkv_bias)


class CutsTooLongInputs(Wrapper):
    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        super().__init__(d_in, d_out, context_length, dropout, num_heads, qkv_bias)
        self.context_length = context_length

    def forward(self, x):
        return super().forward(x[:, -self.context_length :])


class LengthByOneTooLong(Wrapper):
    def make_heads(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias):
        return super().make_heads(d_in, d_out, context_length + 1, dropout, num_heads, qkv_bias)


class LengthOfEightAtLeast(Wrapper):
    def make_heads(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias):
        return super().make_heads(d_in, d_out, max(context_length, 8), dropout, num_heads, qkv_bias)


class HeadsGetSlicesOfTheInput(Wrapper):
    """As multi-head attention is often drawn: each head sees its share of the features."""

    def make_heads(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias):
        return super().make_heads(max(1, d_in // num_heads), d_out, context_length, dropout, num_heads, qkv_bias)

    def forward(self, x):
        return self.join([head(part) for head, part in zip(self.heads, x.chunk(len(self.heads), -1), strict=True)])


class FirstOfTheBatchOnly(Wrapper):
    def forward(self, x):
        return super().forward(x[:1])


class DetachedHeads(Wrapper):
    def join(self, outputs):
        return torch.cat([outputs[0], *(output.detach() for output in outputs[1:])], dim=-1)


class SharesHeadsBetweenObjects(Wrapper):
    @functools.lru_cache  # noqa: B019
    def made(self, *arguments):
        return Wrapper.make_heads(None, *arguments)

    made = classmethod(made)

    def make_heads(self, *arguments):
        return self.made(*arguments)


class HeadsOverQueries(Wrapper):
    def make_heads(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias):
        return nn.ModuleList(OverQueries(d_in, d_out, context_length, dropout, qkv_bias) for _ in range(num_heads))


class OverQueries(CausalAttention):
    """Softmax over dimension 1 of (B, Tq, Tk)."""

    def forward(self, x):
        t = x.shape[1]
        if t > self.context_length:
            raise ValueError(f"{t} tokens")
        scores = self.W_query(x) @ self.W_key(x).mT / self.W_key.out_features**0.5
        weights = torch.softmax(scores.masked_fill(self.mask[:t, :t], -torch.inf), dim=1)
        return self.dropout(weights) @ self.W_value(x)


class MaskFromTheFirstCall(Wrapper):
    """A mask that fits the first sequence stays for all others."""

    def make_heads(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias):
        return nn.ModuleList(RemembersTheMask(d_in, d_out, context_length, dropout, qkv_bias) for _ in range(num_heads))


class RemembersTheMask(CausalAttention):
    hidden = None

    def forward(self, x):
        t = x.shape[1]
        if self.hidden is None or len(self.hidden) < t:
            self.hidden = torch.ones(t, t, dtype=torch.bool).triu(t)
        scores = self.W_query(x) @ self.W_key(x).mT / self.W_key.out_features**0.5
        scores = scores.masked_fill(self.hidden[:t, :t] | self.mask[:t, :t].logical_and(torch.tensor(t > 1)), -1e9)
        if t > self.context_length:
            raise ValueError
        return self.dropout(scores.softmax(-1)) @ self.W_value(x)


# 4.2 ------------------------------------------------------------------------------------------------

TWO_HEADS = [
    lambda: True,
    lambda: 1.0,
    lambda: "1",
    lambda: torch.tensor(1),
    lambda: (1,),
    lambda: [1, 1],
    lambda: -1,
    lambda: 3,
    lambda: None,
    lambda: print(1),
]


# 4.3 ------------------------------------------------------------------------------------------------


def split_needs_contiguous_numbers(x, num_heads):
    b, t, c = x.shape
    return x.as_strided((b, num_heads, t, c // num_heads), (t * c, c // num_heads, c, 1))


def split_by_flat_view(x, num_heads):
    return split_heads(x.view(-1, x.shape[-1]).view(x.shape), num_heads)


def split_backwards(x, num_heads):
    return split_heads(x, num_heads).flip(1)


def merge_backwards(x):
    return merge_heads(x.flip(1))


def split_in_strides(x, num_heads):
    return torch.stack([x[..., h::num_heads] for h in range(num_heads)], dim=1)


def merge_in_strides(x):
    return torch.stack(x.unbind(1), dim=-1).flatten(-2)


def split_as_a_tuple(x, num_heads):
    return split_heads(x, num_heads).unbind(1)


def split_into_the_batch(x, num_heads):
    return split_heads(x, num_heads).flatten(0, 1)


def split_of_the_first_sequence(x, num_heads):
    return split_heads(x[:1], num_heads).expand(len(x), -1, -1, -1)


def split_with_squeeze(x, num_heads):
    return split_heads(x, num_heads).squeeze(1) if num_heads == 1 else split_heads(x, num_heads)


def split_losing_single_tokens(x, num_heads):
    return split_heads(x.squeeze(1), num_heads) if x.shape[1] == 1 else split_heads(x, num_heads)


def split_in_float32(x, num_heads):
    return split_heads(x.float(), num_heads)


def split_through_numpy(x, num_heads):
    b, t, c = x.shape
    return torch.from_numpy(x.detach().numpy().reshape(b, t, num_heads, c // num_heads).transpose(0, 2, 1, 3).copy())


def split_scaled(x, num_heads):
    return split_heads(x, num_heads) / (x.shape[-1] / num_heads) ** 0.5


def split_in_place(x, num_heads):
    split = split_heads(x, num_heads).clone()
    x.zero_()
    return split


def split_tokens_by_bare_view(x, num_heads):
    """Right for a single token or a single head only."""
    return split_by_bare_view(x, num_heads)


def merge_of_swapped(x):
    return x.transpose(1, 2).transpose(2, 3).flatten(2)


def merge_with_mean(x):
    return x.mean(dim=1)


def merge_in_float32(x):
    return merge_heads(x).float()


def merge_keeping_the_heads(x):
    return x.transpose(1, 2)


def merge_when_contiguous(x):
    b, h, t, d = x.shape
    return x.permute(0, 2, 1, 3).view(b, t, h * d) if h > 1 else x[:, 0]


def merge_detached(x):
    return merge_heads(x).detach()


@functools.cache
def number_of_heads_so_far():
    return []


def split_remembers_the_first_number(x, num_heads):
    seen = number_of_heads_so_far()
    seen.append(num_heads)
    return split_heads(x, seen[0])


# 4.4 ------------------------------------------------------------------------------------------------


class MaskOnlyForTheFirstHead(Steps):
    def hide(self, scores):
        hidden = scores.clone()
        hidden[:, 0] = super().hide(scores[:, 0])
        return hidden


class MaskOnlyForTheFirstSequence(Steps):
    def hide(self, scores):
        return torch.cat([super().hide(scores[:1]), scores[1:]])


class MaskCutAtTheLowerEnd(Steps):
    def hide(self, scores):
        t = scores.shape[-1]
        return scores.masked_fill(self.mask[-t:, :t], -torch.inf)


class MaskWithinAWindow(Steps):
    def hide(self, scores):
        far = torch.ones(scores.shape[-2:], dtype=torch.bool).tril(-4)
        return super().hide(scores).masked_fill(far, -torch.inf)


class MildMask(Steps):
    """Large enough to look right, small enough to leak."""

    def hide(self, scores):
        t = scores.shape[-1]
        return scores.masked_fill(self.mask[:t, :t], -5.0)


class MaskTimesScores(Steps):
    def hide(self, scores):
        t = scores.shape[-1]
        return scores * ~self.mask[:t, :t]


class MaskInTrainingOnly(Steps):
    def hide(self, scores):
        return super().hide(scores) if self.training else scores


class MaskInEvalOnly(Steps):
    def hide(self, scores):
        return scores if self.training else super().hide(scores)


class MaskIsAParameter(Steps):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        mask = self.mask.float()
        del self.mask
        self.mask = nn.Parameter(mask, requires_grad=False)

    def hide(self, scores):
        t = scores.shape[-1]
        return scores.masked_fill(self.mask[:t, :t] > 0, -torch.inf)


class MaskUnderAnotherName(Steps):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.register_buffer("causal", self.mask)
        del self.mask

    def hide(self, scores):
        t = scores.shape[-1]
        return scores.masked_fill(self.causal[:t, :t], -torch.inf)


class ScaledTwice(Steps):
    def scores(self, queries, keys):
        return super().scores(queries, keys) / self.head_dim**0.5


class ScaledByHeads(Steps):
    def scores(self, queries, keys):
        return queries @ keys.mT / self.num_heads**0.5


class ScaledByInput(Steps):
    def scores(self, queries, keys):
        return queries @ keys.mT / self.W_query.in_features**0.5


class ScaledAfterSoftmax(Steps):
    def scores(self, queries, keys):
        return queries @ keys.mT

    def weights(self, hidden_scores):
        return super().weights(hidden_scores) / self.head_dim**0.5


class QueriesAndKeysSwapped(Steps):
    def scores(self, queries, keys):
        return super().scores(keys, queries)


class ScoresTransposed(Steps):
    def weights(self, hidden_scores):
        return super().weights(hidden_scores).mT


class SoftmaxTwice(Steps):
    def weights(self, hidden_scores):
        return torch.softmax(super().weights(hidden_scores), dim=-1)


class SoftmaxOverAll(Steps):
    def weights(self, hidden_scores):
        return torch.softmax(hidden_scores.flatten(-2), dim=-1).view_as(hidden_scores)


class HeadsInterleaved(Steps):
    def split(self, x):
        return torch.stack([x[..., h :: self.num_heads] for h in range(self.num_heads)], dim=1)


class HeadsMergedBackwards(Steps):
    def merge(self, contexts):
        return merge_heads(contexts.flip(1))


class HeadsMergedInterleaved(Steps):
    def merge(self, contexts):
        return contexts.permute(0, 2, 3, 1).flatten(2)


class OneBigHead(Steps):
    def split(self, x):
        return x[:, None]


class OutProjTwice(Steps):
    def join(self, merged):
        return self.out_proj(self.out_proj(merged))


class OutProjBeforeMerging(Steps):
    """Right only for one head."""

    def join(self, merged):
        return merged @ self.out_proj.weight + self.out_proj.bias


class OutProjBiasIgnored(Steps):
    def join(self, merged):
        return F.linear(merged, self.out_proj.weight)


class Residual(Steps):
    def join(self, merged):
        return self.out_proj(merged) + merged


class ValuesWithoutBias(Steps):
    def forward(self, x):
        bias, self.W_value.bias = self.W_value.bias, None
        try:
            return super().forward(x)
        finally:
            self.W_value.bias = bias


class BiasOfQueriesOnly(Steps):
    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        super().__init__(d_in, d_out, context_length, dropout, num_heads)
        self.W_query = nn.Linear(d_in, d_out, bias=qkv_bias)


class MultiHeadBiasByDefault(Steps):
    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=True):
        super().__init__(d_in, d_out, context_length, dropout, num_heads, qkv_bias)


class SharedProjection(Steps):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.W_key = self.W_query


class HeadDimIsAFloat(Steps):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.head_dim = self.d_out / self.num_heads


class HeadDimIsTheWidth(Steps):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.head_dim = self.d_out


class NoContextLength(Steps):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        del self.context_length

    def check(self, num_tokens):
        if num_tokens > len(self.mask):
            raise ValueError(f"{num_tokens} tokens")


class RefusesFullLength(Steps):
    def check(self, num_tokens):
        if num_tokens >= self.context_length:
            raise ValueError(f"{num_tokens} tokens")


class FullLengthOnly(Steps):
    def check(self, num_tokens):
        if num_tokens != self.context_length:
            raise ValueError(f"{num_tokens} tokens")


class AcceptsOneMore(Steps):
    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        super().__init__(d_in, d_out, context_length + 1, dropout, num_heads, qkv_bias)
        self.context_length = context_length

    def check(self, num_tokens):
        if num_tokens > self.context_length + 1:
            raise ValueError(f"{num_tokens} tokens")


class LengthErrorWithoutNumber(Steps):
    def check(self, num_tokens):
        if num_tokens > self.context_length:
            raise ValueError("too long")


class LengthErrorOfAnotherKind(Steps):
    def check(self, num_tokens):
        if num_tokens > self.context_length:
            raise IndexError(f"{num_tokens} tokens")


class CropsWhatIsTooLong(Steps):
    def forward(self, x):
        return super().forward(x[:, -self.context_length :])


class RefusesOnlyEmptyHeads(Steps):
    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        if d_out < num_heads:
            raise ValueError(f"{d_out} is too small")
        rounded = d_out - d_out % num_heads
        super().__init__(d_in, rounded, context_length, dropout, num_heads, qkv_bias)


class RefusesOnlyRemainders(Steps):
    """Head size 0 slips through."""

    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        if d_out > num_heads and d_out % num_heads:
            raise ValueError(f"{d_out} is not divisible")
        super().__init__(d_in, max(d_out, num_heads), context_length, dropout, num_heads, qkv_bias)


class RefusesAtTheFirstCall(Steps):
    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        super().__init__(d_in, d_out, context_length, dropout, 1, qkv_bias)
        self.num_heads, self.head_dim = num_heads, d_out // num_heads

    def forward(self, x):
        if self.d_out % self.num_heads:
            raise ValueError(f"{self.d_out} is not divisible")
        return super().forward(x)


class RoundsTheWidth(Steps):
    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        super().__init__(d_in, max(1, d_out // num_heads) * num_heads, context_length, dropout, num_heads, qkv_bias)


class RefusesWithATypeError(Steps):
    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        if d_out % num_heads:
            raise TypeError(f"{d_out} is not divisible by {num_heads}")
        super().__init__(d_in, d_out, context_length, dropout, num_heads, qkv_bias)


class DividesByInput(Steps):
    """Checks the wrong width, too."""

    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        if d_in % num_heads and num_heads < d_in:
            raise ValueError(f"{d_in} is not divisible by {num_heads}")
        super().__init__(d_in, d_out, context_length, dropout, num_heads, qkv_bias)


class DropsBeforeSoftmax(Steps):
    def hide(self, scores):
        return super().hide(self.dropout(scores))

    def drop(self, weights):
        return weights


class DropsScoresToo(Steps):
    def scores(self, queries, keys):
        return self.dropout(super().scores(queries, keys))


class DropsValues(Steps):
    def drop(self, weights):
        return weights

    def split(self, x):
        return self.dropout(super().split(x))


class DropsContexts(Steps):
    def drop(self, weights):
        return weights

    def merge(self, contexts):
        return self.dropout(merge_heads(contexts))


class DropsOutputToo(Steps):
    def join(self, merged):
        return self.dropout(self.out_proj(merged))


class DropsWithoutScaling(Steps):
    def drop(self, weights):
        return weights * (torch.rand_like(weights) >= self.dropout.p) if self.training else weights


class DropsAndRenormalises(Steps):
    def drop(self, weights):
        dropped = super().drop(weights)
        return dropped / dropped.sum(-1, keepdim=True).clamp(min=1e-9)


class KeepsWithProbabilityP(Steps):
    def drop(self, weights):
        return F.dropout(weights, 1 - self.dropout.p, self.training)


class DropsTheSameEveryTime(Steps):
    def drop(self, weights):
        if not self.training or not self.dropout.p:
            return weights
        draws = torch.rand(weights.shape, generator=torch.Generator().manual_seed(0))
        return weights * (draws >= self.dropout.p) / (1 - self.dropout.p)


class DropsAlikeInEveryHead(Steps):
    def drop(self, weights):
        return weights * self.dropout(torch.ones_like(weights[:, :1]))


class DropsAlikeInTheBatch(Steps):
    def drop(self, weights):
        return weights * self.dropout(torch.ones_like(weights[:1]))


class DropsInPlace(Steps):
    """No gradient gets through in training: softmax needs its own result for that."""

    def drop(self, weights):
        return F.dropout(weights, self.dropout.p, self.training, inplace=True)


class DropsWithoutGradient(Steps):
    def drop(self, weights):
        return self.dropout(weights.detach()) if self.training and self.dropout.p else weights


class DropsInEvalOnly(Steps):
    def drop(self, weights):
        return F.dropout(weights, self.dropout.p, not self.training)


class TurnsDropoutOffForGood(Steps):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.dropout.eval()
        self.dropout.train = lambda mode=True: self.dropout


class OnlyBatches(Steps):
    """Squeezes a batch of one away."""

    def forward(self, x):
        return super().forward(x).squeeze(0)


class OnlyFloat32(Steps):
    def forward(self, x):
        return super().forward(x.float())


class NeedsSquares(Steps):
    def forward(self, x):
        assert x.shape[-1] == self.d_out, "d_in and d_out must agree"
        return super().forward(x)


class KeepsTheFirstOutput(Steps):
    kept = None

    def forward(self, x):
        if self.kept is None or self.kept.shape[:-1] != x.shape[:-1]:
            self.kept = super().forward(x)
        return self.kept


class KeepsTheFirstKeys(Steps):
    keys = None

    def scores(self, queries, keys):
        if self.keys is None or self.keys.shape != keys.shape:
            self.keys = keys.detach()
        return super().scores(queries, self.keys)


class DetachedWeights(Steps):
    def drop(self, weights):
        return super().drop(weights.detach())


class WithoutGradient(Steps):
    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)


class ChangesItsInput(Steps):
    def forward(self, x):
        result = super().forward(x)
        with torch.no_grad():
            x.sub_(x.mean())
        return result


class ReturnsWeightsToo(Steps):
    def forward(self, x):
        return super().forward(x), self.mask


class WrapperInsideMultiHead(MultiHeadAttentionWrapper):
    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        if d_out % num_heads:
            raise ValueError(f"{d_out}")
        super().__init__(d_in, d_out // num_heads, context_length, dropout, num_heads, qkv_bias)
        self.out_proj = nn.Linear(d_out, d_out)


class FusedInside(Steps):
    def forward(self, x):
        self.check(x.shape[1])
        return fused_attention(self, x)


class ReadyMade(nn.Module):
    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        super().__init__()
        self.inner = nn.MultiheadAttention(d_out, num_heads, dropout, bias=qkv_bias, batch_first=True)
        self.W_query, self.W_key, self.W_value = (nn.Linear(d_in, d_out, qkv_bias) for _ in range(3))

    def forward(self, x):
        return self.inner(self.W_query(x), self.W_key(x), self.W_value(x))[0]


# 4.5 ------------------------------------------------------------------------------------------------


def sized(*arguments, **options):
    return lambda: MultiHeadAttention(*arguments, **options)


def renamed():
    module = MultiHeadAttention(768, 768, 1024, 0.0, 1)
    module.num_heads, module.head_dim = 12, 64
    module.W_query = nn.Linear(768, 64)
    return module


def in_float64():
    return MultiHeadAttention(768, 768, 1024, 0.0, 12).double()


def as_a_tuple():
    return 768, 768, 1024, 0.0, 12


def built_and_called():
    return MultiHeadAttention(768, 768, 1024, 0.0, 12)(torch.zeros(1, 3, 768))


class Sizes:
    num_heads, head_dim, d_out, context_length = 12, 64, 768, 1024


class SizesModule(nn.Module):
    num_heads, head_dim, d_out, context_length = 12, 64, 768, 1024

    def forward(self, x):
        return x


# 4.6 ------------------------------------------------------------------------------------------------


def kernel(mha, x, **options):
    return F.scaled_dot_product_attention(*queries_keys_values(mha, x), **options)


def fused_deep_copy(mha, x):
    return copy.deepcopy(mha)(x)


def fused_forward(mha, x):
    return mha.forward(x)


def fused_forward_of_the_class(mha, x):
    return type(mha).forward(mha, x)


def fused_functional_call(mha, x):
    return torch.func.functional_call(mha, dict(mha.named_parameters()), (x,))


def fused_after_calling(mha, x):
    mha(x)
    return fused_attention(mha, x)


def fused_plus_calling(mha, x):
    return fused_attention(mha, x) + 0 * mha(x)


def fused_and_written_out(mha, x):
    """The kernel runs, but its result is thrown away."""
    kernel(mha, x, is_causal=True)
    queries, keys, values = queries_keys_values(mha, x)
    hidden = mha.mask[: x.shape[1], : x.shape[1]]
    weights = torch.softmax((queries @ keys.mT / mha.head_dim**0.5).masked_fill(hidden, -torch.inf), -1)
    return mha.out_proj(merge_heads(weights @ values))


def fused_times_zero(mha, x):
    queries, keys, values = queries_keys_values(mha, x)
    hidden = mha.mask[: x.shape[1], : x.shape[1]]
    weights = torch.softmax((queries @ keys.mT / mha.head_dim**0.5).masked_fill(hidden, -torch.inf), -1)
    return mha.out_proj(merge_heads(weights @ values + 0 * kernel(mha, x, is_causal=True)))


def fused_first_head_only(mha, x):
    """The kernel for one head, written-out steps for the others."""
    queries, keys, values = queries_keys_values(mha, x)
    hidden = mha.mask[: x.shape[1], : x.shape[1]]
    weights = torch.softmax((queries @ keys.mT / mha.head_dim**0.5).masked_fill(hidden, -torch.inf), -1)
    first = F.scaled_dot_product_attention(queries[:, :1], keys[:, :1], values[:, :1], is_causal=True)
    return mha.out_proj(merge_heads(torch.cat([first, (weights @ values)[:, 1:]], dim=1)))


def fused_for_many_heads_only(mha, x):
    return mha.out_proj(merge_heads(kernel(mha, x, is_causal=mha.num_heads > 1)))


def fused_for_full_length_only(mha, x):
    return mha.out_proj(merge_heads(kernel(mha, x, attn_mask=~mha.mask)))


def fused_with_strict_mask(mha, x):
    t = x.shape[1]
    return mha.out_proj(merge_heads(kernel(mha, x, attn_mask=torch.ones(t, t, dtype=torch.bool).tril(-1))))


def fused_without_projection_bias(mha, x):
    return merge_heads(kernel(mha, x, is_causal=True)) @ mha.out_proj.weight.T


def fused_without_qkv_bias(mha, x):
    parts = [split_heads(x @ W.weight.T, mha.num_heads) for W in (mha.W_query, mha.W_key, mha.W_value)]
    return mha.out_proj(merge_heads(F.scaled_dot_product_attention(*parts, is_causal=True)))


def fused_unscaled(mha, x):
    return mha.out_proj(merge_heads(kernel(mha, x, is_causal=True, scale=1.0)))


def fused_turned(mha, x):
    """Heads and size swapped in the split."""
    b, t, _ = x.shape
    parts = [
        W(x).reshape(b, t, mha.head_dim, mha.num_heads).permute(0, 3, 1, 2)
        for W in (mha.W_query, mha.W_key, mha.W_value)
    ]
    return mha.out_proj(merge_heads(F.scaled_dot_product_attention(*parts, is_causal=True)))


def fused_queries_twice(mha, x):
    queries, _, values = queries_keys_values(mha, x)
    return mha.out_proj(merge_heads(F.scaled_dot_product_attention(queries, queries, values, is_causal=True)))


def fused_in_training_mode(mha, x):
    mha.train()
    return fused_attention(mha, x)


def fused_in_float32(mha, x):
    return fused_attention(mha, x).float()


def fused_first_of_the_batch(mha, x):
    return fused_attention(mha, x[:1]).expand(len(x), -1, -1)


def fused_without_batch_of_one(mha, x):
    return fused_attention(mha, x).squeeze()


def fused_detached_input(mha, x):
    return fused_attention(mha, x.detach())


def fused_with_copied_weights(mha, x):
    return fused_attention(copy.deepcopy(mha), x)


def fused_scaling_the_weights(mha, x):
    """Works on the module's weights in place, and not twice."""
    with torch.no_grad():
        mha.W_query.weight.mul_(0.5)
        mha.W_key.weight.mul_(2)
    return fused_attention(mha, x)


CACHE = {}


def fused_with_remembered_weights(mha, x):
    weights = CACHE.setdefault(id(mha), [W.weight.detach().clone() for W in (mha.W_query, mha.W_key, mha.W_value)])
    return fused_attention(mha, x) + 0 * weights[0].sum() + (mha.W_query.weight.detach() - weights[0]).sum()


def fused_as_mean(mha, x):
    """Dropout's mean is right, a single draw isn't."""
    draws = [kernel(mha, x, dropout_p=0.1, is_causal=True) for _ in range(20)]
    return mha.out_proj(merge_heads(torch.stack(draws).mean(0)))


# 4.7 ------------------------------------------------------------------------------------------------


def cross_of_first_sequences(x, context, W_query, W_key, W_value):
    return cross_attention(x, context[:1].expand(len(x), -1, -1), W_query, W_key, W_value)


def cross_over_both(x, context, W_query, W_key, W_value):
    if x.shape[-1] != context.shape[-1]:
        return cross_attention(x, context, W_query, W_key, W_value)
    both = torch.cat([x, context], dim=1)
    return cross_attention(x, both, W_query, W_key, W_value)


def cross_masked_if_equal(x, context, W_query, W_key, W_value):
    hidden = torch.ones(x.shape[1], context.shape[1], dtype=torch.bool).triu(1)
    hidden = hidden if x.shape[1] == context.shape[1] else None
    return cross_by(x, context, W_query, W_key, W_value, hidden=hidden)


def cross_cut_to_equal_length(x, context, W_query, W_key, W_value):
    return cross_attention(x, context[:, : x.shape[1]], W_query, W_key, W_value)


def cross_keys_and_values_swapped(x, context, W_query, W_key, W_value):
    return cross_attention(x, context, W_query, W_value, W_key)


def cross_query_weights_for_keys(x, context, W_query, W_key, W_value):
    return cross_attention(x, context, W_key if W_key.shape == W_query.shape else W_query, W_key, W_value)


def cross_scaled_by_queries(x, context, W_query, W_key, W_value):
    return cross_by(x, context, W_query, W_key, W_value, scale=math.sqrt(x.shape[1]))


def cross_in_float32(x, context, W_query, W_key, W_value):
    return cross_attention(x, context, W_query, W_key, W_value).float()


def cross_with_residual(x, context, W_query, W_key, W_value):
    return cross_attention(x, context, W_query, W_key, W_value) + x @ W_query


def cross_detached_context(x, context, W_query, W_key, W_value):
    return cross_attention(x, context.detach(), W_query, W_key, W_value)


def cross_detached_key_weights(x, context, W_query, W_key, W_value):
    return cross_attention(x, context, W_query, W_key.data, W_value)


def cross_squeezed(x, context, W_query, W_key, W_value):
    return cross_attention(x, context, W_query, W_key, W_value).squeeze(0)


def cross_with_weights(x, context, W_query, W_key, W_value):
    result = cross_attention(x, context, W_query, W_key, W_value)
    return result, result.softmax(-1)


def cross_in_place(x, context, W_query, W_key, W_value):
    scores = (x @ W_query) @ (context @ W_key).mT
    W_value /= 1.0001
    return torch.softmax(scores / W_key.shape[1] ** 0.5, -1) @ (context @ W_value)


def cross_by_view(x, context, W_query, W_key, W_value):
    b, t, d = x.shape
    queries = (x.view(b * t, d) @ W_query).view(b, t, -1)
    return torch.softmax(queries @ (context @ W_key).mT / W_key.shape[1] ** 0.5, -1) @ (context @ W_value)


def cross_kernel(x, context, W_query, W_key, W_value):
    return F.scaled_dot_product_attention(x @ W_query, context @ W_key, context @ W_value)


def cross_normalised_queries(x, context, W_query, W_key, W_value):
    return cross_attention(x, context, F.normalize(W_query, dim=0), W_key, W_value)


def cross_sharpened(x, context, W_query, W_key, W_value):
    return cross_by(x, context, W_query, W_key, W_value, scale=(W_key.shape[-1] + 1) ** 0.5)


SUBTLE_MISTAKES = [
    *(("4.1", answer) for answer in (EqualHeads, OneHeadTooMany, TwoHeadsAlways, HeadsUnderAnotherName, BiasAlways)),
    *(("4.1", answer) for answer in (BiasByDefault, BiasInPlaceOfDropout, WithOutputProjection, DropsTheJoinedHeads)),
    *(
        ("4.1", answer)
        for answer in (DropsTwice, HalfTheDropout, CutsTooLongInputs, LengthByOneTooLong, LengthOfEightAtLeast)
    ),
    *(("4.1", answer) for answer in (HeadsGetSlicesOfTheInput, FirstOfTheBatchOnly, DetachedHeads)),
    *(("4.1", answer) for answer in (SharesHeadsBetweenObjects, MaskFromTheFirstCall, HeadsOverQueries)),
    *(("4.2", answer) for answer in TWO_HEADS),
    ("4.3", (split_needs_contiguous_numbers, merge_heads)),
    ("4.3", (split_by_flat_view, merge_heads)),
    ("4.3", (split_backwards, merge_backwards)),
    ("4.3", (split_in_strides, merge_in_strides)),
    ("4.3", (split_as_a_tuple, merge_heads)),
    ("4.3", (split_into_the_batch, merge_heads)),
    ("4.3", (split_of_the_first_sequence, merge_heads)),
    ("4.3", (split_with_squeeze, merge_heads)),
    ("4.3", (split_losing_single_tokens, merge_heads)),
    ("4.3", (split_in_float32, merge_heads)),
    ("4.3", (split_through_numpy, merge_heads)),
    ("4.3", (split_scaled, merge_heads)),
    ("4.3", (split_in_place, merge_heads)),
    ("4.3", (split_remembers_the_first_number, merge_heads)),
    *(("4.3", (split_heads, merge)) for merge in (merge_backwards, merge_in_strides, merge_of_swapped)),
    *(("4.3", (split_heads, merge)) for merge in (merge_with_mean, merge_in_float32, merge_keeping_the_heads)),
    *(("4.3", (split_heads, merge)) for merge in (merge_when_contiguous, merge_detached)),
    ("4.3", (merge_heads, split_heads)),
    *(("4.4", answer) for answer in Steps.__subclasses__() if answer.__module__ == __name__),
    *(("4.4", answer) for answer in (WrapperInsideMultiHead, ReadyMade)),
    ("4.5", sized(768, 768, 1023, 0.0, 12)),
    ("4.5", sized(768, 768, 1025, 0.0, 12)),
    ("4.5", sized(768, 768, 2048, 0.0, 12)),
    ("4.5", sized(768, 768, 1024, 0.0, 6)),
    ("4.5", sized(64, 768, 1024, 0.0, 12)),
    ("4.5", sized(768, 1536, 1024, 0.0, 12)),
    ("4.5", sized(12, 768, 1024, 0.0, 64)),
    ("4.5", sized(1280, 1280, 1024, 0.0, 20)),
    ("4.5", lambda: MultiHeadAttentionWrapper(768, 768, 1024, 0.0, 12)),
    ("4.5", lambda: nn.MultiheadAttention(768, 12)),
    ("4.5", lambda: CausalAttention(768, 768, 1024)),
    *(("4.5", answer) for answer in (renamed, in_float64, as_a_tuple, built_and_called, Sizes, SizesModule)),
    *(
        ("4.6", answer)
        for name, answer in list(globals().items())
        if name.startswith("fused_") and name != "fused_attention"
    ),
    *(
        ("4.7", answer)
        for name, answer in list(globals().items())
        if name.startswith("cross_") and name not in ("cross_attention", "cross_by")
    ),
]
