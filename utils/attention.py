"""The attention family, from one dot product to multi-head attention; each class adds one idea.

Legend: B batch, T tokens, H heads, D head size, d_in and d_out features; ``...`` is an optional batch.
Every class takes (T, d_in) or (B, T, d_in) and a ``normalizer`` (softmax unless you pass another).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.masking import causal_mask, check_length
from utils.normalizers import BaseNormalizer, SoftmaxNormalizer


def dot_product_score(query: Tensor, key: Tensor) -> Tensor:
    """Similarity of two vectors: multiply entry by entry, then add up. (d,), (d,) -> 0-d tensor.

    Example:
        >>> dot_product_score(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
        tensor(11.)
    """
    return (query * key).sum()


def context_vector(query: Tensor, inputs: Tensor) -> Tensor:
    """What one query reads from all inputs: softmax of its dot products, then the weighted sum of the inputs.

    Args:
        query: (d,)
        inputs: (T, d)

    Returns:
        (d,)

    Example:
        >>> context_vector(torch.tensor([0.0, 0.0]), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        tensor([0.5000, 0.5000])
    """
    attn_scores = inputs @ query  # (T, d) @ (d,) -> (T,)
    attn_weights = torch.softmax(attn_scores, dim=-1)
    return attn_weights @ inputs  # (T,) @ (T, d) -> (d,)


def attention_weights(inputs: Tensor) -> Tensor:
    """Weights of every input for every input: row i holds the weights of query i. (..., T, d) -> (..., T, T).

    Example:
        >>> attention_weights(torch.zeros(2, 3))
        tensor([[0.5000, 0.5000],
                [0.5000, 0.5000]])
    """
    attn_scores = inputs @ inputs.transpose(-2, -1)  # (..., T, d) @ (..., d, T) -> (..., T, T)
    return torch.softmax(attn_scores, dim=-1)


class SimpleSelfAttention:
    """Self-attention without trainable weights: the inputs are their own queries, keys and values.

    The three steps are methods of their own, so that each can be looked at.

    Args:
        normalizer: an instance whose ``normalize`` turns scores into weights; None means softmax.

    Example:
        >>> SimpleSelfAttention()(torch.zeros(12, 3)).shape
        torch.Size([12, 3])
    """

    def __init__(self, normalizer: BaseNormalizer | None = None):
        self.normalizer = SoftmaxNormalizer() if normalizer is None else normalizer

    def get_scores(self, inputs: Tensor) -> Tensor:
        """(..., T, d) -> (..., T, T): the dot product of every input with every input."""
        return inputs @ inputs.transpose(-2, -1)

    def get_weights(self, scores: Tensor) -> Tensor:
        """(..., T, T) -> (..., T, T): each row normalised."""
        return self.normalizer.normalize(scores)

    def get_context_vectors(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """(..., T, d), (..., T, T) -> (..., T, d): each row a weighted sum of the inputs."""
        return weights @ inputs

    def __call__(self, inputs: Tensor) -> Tensor:
        """(..., T, d) -> (..., T, d)"""
        return self.get_context_vectors(inputs, self.get_weights(self.get_scores(inputs)))


def project(x: Tensor, W_query: Tensor, W_key: Tensor, W_value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values: the same tokens seen through three matrices.

    Args:
        x: (..., T, d_in)
        W_query, W_key, W_value: (d_in, d_out)

    Returns:
        queries, keys, values: (..., T, d_out) each.

    Example:
        >>> queries, keys, values = project(torch.ones(4, 3), *torch.ones(3, 3, 2))
        >>> queries.shape
        torch.Size([4, 2])
    """
    return x @ W_query, x @ W_key, x @ W_value  # (..., T, d_in) @ (d_in, d_out) -> (..., T, d_out)


def scaled_scores(queries: Tensor, keys: Tensor) -> Tensor:
    """Dot products of every query with every key, divided by the root of their length.

    For independent entries of variance 1 the dot product has variance d_k; the division brings it back to 1.

    Args:
        queries: (..., Tq, d_k)
        keys: (..., Tk, d_k)

    Returns:
        attn_scores (..., Tq, Tk)

    Example:
        >>> scaled_scores(torch.ones(1, 4), torch.ones(2, 4))
        tensor([[2., 2.]])
    """
    attn_scores = queries @ keys.transpose(-2, -1)  # (..., Tq, d_k) @ (..., d_k, Tk) -> (..., Tq, Tk)
    return attn_scores / keys.shape[-1] ** 0.5


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    normalizer: BaseNormalizer,
    hidden: Tensor | None = None,
    dropout: nn.Module | None = None,
) -> Tensor:
    """Scaled dot-product attention, the step that every class below shares.

    Source: Vaswani et al., "Attention Is All You Need" (2017), section 3.2.1.

    Args:
        queries: (..., Tq, D)
        keys: (..., Tk, D)
        values: (..., Tk, Dv)
        normalizer: turns scores into weights, over the keys.
        hidden: bool, broadcasts to (..., Tq, Tk); True where a query must not look at a key.
        dropout: applied to the weights.

    Returns:
        context vectors (..., Tq, Dv)

    Example:
        >>> x = torch.zeros(4, 2)
        >>> attend(x, x, x, SoftmaxNormalizer()).shape
        torch.Size([4, 2])
    """
    attn_scores = scaled_scores(queries, keys)  # (..., Tq, D), (..., Tk, D) -> (..., Tq, Tk)
    if hidden is not None:
        attn_scores = attn_scores.masked_fill(hidden, normalizer.mask_value)
    attn_weights = normalizer.normalize(attn_scores)
    if dropout is not None:
        attn_weights = dropout(attn_weights)
    return attn_weights @ values  # (..., Tq, Tk) @ (..., Tk, Dv) -> (..., Tq, Dv)


class SelfAttention_v1(nn.Module):
    """Self-attention with trainable weights: queries, keys and values are three projections of the input.

    The weights are plain parameters of shape (d_in, d_out), drawn uniformly from [0, 1).

    Example:
        >>> SelfAttention_v1(d_in=3, d_out=2)(torch.zeros(6, 3)).shape
        torch.Size([6, 2])
    """

    def __init__(self, d_in: int, d_out: int, normalizer: BaseNormalizer | None = None):
        super().__init__()
        self.W_query = nn.Parameter(torch.rand(d_in, d_out))
        self.W_key = nn.Parameter(torch.rand(d_in, d_out))
        self.W_value = nn.Parameter(torch.rand(d_in, d_out))
        self.normalizer = SoftmaxNormalizer() if normalizer is None else normalizer

    def forward(self, x: Tensor) -> Tensor:
        """(..., T, d_in) -> (..., T, d_out)"""
        return attend(*project(x, self.W_query, self.W_key, self.W_value), self.normalizer)


class SelfAttention_v2(nn.Module):
    """As version 1, with ``nn.Linear`` for the projections: a better initialisation and an optional bias.

    ``nn.Linear`` stores its weight as (d_out, d_in), the transpose of version 1's.

    Example:
        >>> SelfAttention_v2(d_in=3, d_out=2)(torch.zeros(6, 3)).shape
        torch.Size([6, 2])
    """

    def __init__(self, d_in: int, d_out: int, qkv_bias: bool = False, normalizer: BaseNormalizer | None = None):
        super().__init__()
        self.W_query = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_key = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_value = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.normalizer = SoftmaxNormalizer() if normalizer is None else normalizer

    def forward(self, x: Tensor) -> Tensor:
        """(..., T, d_in) -> (..., T, d_out)"""
        return attend(self.W_query(x), self.W_key(x), self.W_value(x), self.normalizer)


SelfAttention = SelfAttention_v2


@torch.no_grad()
def copy_weights(v2: SelfAttention_v2, v1: SelfAttention_v1) -> None:
    """Copy the weights of a version 2 into a version 1, transposed, so that both compute the same.

    The numbers are copied, not shared: training one leaves the other alone.

    Raises:
        ValueError: ``v2`` has a bias, which version 1 has no place for. ``v1`` is unchanged then.

    Example:
        >>> v1, v2 = SelfAttention_v1(3, 2), SelfAttention_v2(3, 2)
        >>> copy_weights(v2, v1)
        >>> bool((v1.W_key == v2.W_key.weight.T).all())
        True
    """
    names = ("W_query", "W_key", "W_value")
    if any(getattr(v2, name).bias is not None for name in names):
        raise ValueError("v2 has a bias, and v1 has no place for it; build v2 with qkv_bias=False")
    for name in names:
        getattr(v1, name).copy_(getattr(v2, name).weight.T)  # (d_out, d_in) -> (d_in, d_out)


class CausalAttention(nn.Module):
    """Self-attention in which a token sees itself and earlier tokens only, with dropout on the weights.

    The mask is a buffer: it moves with the module and is saved with it, but gets no gradient.

    Raises:
        ValueError: the input has more than ``context_length`` tokens.

    Example:
        >>> CausalAttention(d_in=3, d_out=2, context_length=6)(torch.zeros(2, 6, 3)).shape
        torch.Size([2, 6, 2])
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        context_length: int,
        dropout: float = 0.0,
        qkv_bias: bool = False,
        normalizer: BaseNormalizer | None = None,
    ):
        super().__init__()
        self.context_length = context_length
        self.W_query = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_key = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_value = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.dropout = nn.Dropout(dropout)
        self.normalizer = SoftmaxNormalizer() if normalizer is None else normalizer
        self.register_buffer("mask", causal_mask(context_length))  # (context_length, context_length)

    def forward(self, x: Tensor) -> Tensor:
        """(..., T, d_in) -> (..., T, d_out), T at most ``context_length``"""
        num_tokens = x.shape[-2]
        check_length(num_tokens, self.context_length)
        hidden = self.mask[:num_tokens, :num_tokens]  # a short sequence uses the top-left corner
        return attend(self.W_query(x), self.W_key(x), self.W_value(x), self.normalizer, hidden, self.dropout)


class MultiHeadAttentionWrapper(nn.Module):
    """Several causal heads side by side, their outputs joined: the plain way to many heads.

    ``d_out`` is the size of one head, so the output has num_heads * d_out features.

    Example:
        >>> MultiHeadAttentionWrapper(3, 2, context_length=6, dropout=0.0, num_heads=2)(
        ...     torch.zeros(2, 6, 3)).shape
        torch.Size([2, 6, 4])
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        context_length: int,
        dropout: float,
        num_heads: int,
        qkv_bias: bool = False,
        normalizer: BaseNormalizer | None = None,
    ):
        super().__init__()
        self.heads = nn.ModuleList(
            CausalAttention(d_in, d_out, context_length, dropout, qkv_bias, normalizer) for _ in range(num_heads)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(..., T, d_in) -> (..., T, num_heads * d_out)"""
        return torch.cat([head(x) for head in self.heads], dim=-1)


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(..., T, H*D) -> (..., H, T, D): head h gets the channels h*D to (h+1)*D.

    Raises:
        ValueError: the channels can't be shared out evenly.

    Example:
        >>> split_heads(torch.zeros(2, 5, 6), num_heads=3).shape
        torch.Size([2, 3, 5, 2])
    """
    channels = x.shape[-1]
    if num_heads < 1 or channels % num_heads:
        raise ValueError(f"{channels} channels can't be split evenly into {num_heads} heads")
    x = x.unflatten(-1, (num_heads, channels // num_heads))  # (..., T, H*D) -> (..., T, H, D)
    return x.transpose(-3, -2)  # (..., T, H, D) -> (..., H, T, D)


def merge_heads(x: Tensor) -> Tensor:
    """(..., H, T, D) -> (..., T, H*D): undoes ``split_heads``.

    Example:
        >>> merge_heads(torch.zeros(2, 3, 5, 2)).shape
        torch.Size([2, 5, 6])
    """
    return x.transpose(-3, -2).flatten(-2)  # (..., H, T, D) -> (..., T, H, D) -> (..., T, H*D)


class MultiHeadAttention(nn.Module):
    """Causal multi-head attention in one pass: one wide projection each, split into heads, then joined.

    ``d_out`` is the size of all heads together; an output projection mixes the heads. With ``fused`` the
    written-out steps give way to PyTorch's kernel, with the same result.

    Raises:
        ValueError: ``d_out`` is not divisible by ``num_heads``, the input is longer than ``context_length``,
            or ``fused`` with another normalizer than softmax.

    Example:
        >>> MultiHeadAttention(3, 2, context_length=6, dropout=0.0, num_heads=2)(
        ...     torch.zeros(2, 6, 3)).shape
        torch.Size([2, 6, 2])
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        context_length: int,
        dropout: float,
        num_heads: int,
        qkv_bias: bool = False,
        normalizer: BaseNormalizer | None = None,
        fused: bool = False,
    ):
        super().__init__()
        if num_heads < 1 or d_out < num_heads or d_out % num_heads:
            raise ValueError(f"d_out must be a multiple of num_heads, got d_out={d_out}, num_heads={num_heads}")
        self.d_out = d_out
        self.num_heads = num_heads
        self.head_dim = d_out // num_heads
        self.context_length = context_length
        self.W_query = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_key = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_value = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.out_proj = nn.Linear(d_out, d_out)
        self.dropout = nn.Dropout(dropout)
        self.normalizer = SoftmaxNormalizer() if normalizer is None else normalizer
        if fused and not isinstance(self.normalizer, SoftmaxNormalizer):
            raise ValueError(f"the fused kernel knows softmax only, got {type(self.normalizer).__name__}")
        self.fused = fused
        self.register_buffer("mask", causal_mask(context_length))  # (context_length, context_length)

    def forward(self, x: Tensor, cache: "KeyValueCache | None" = None) -> Tensor:
        """(..., T, d_in) -> (..., T, d_out); with a cache, ``x`` continues the tokens that it holds."""
        held = 0 if cache is None else cache.length
        num_tokens = held + x.shape[-2]
        check_length(num_tokens, self.context_length)
        queries = split_heads(self.W_query(x), self.num_heads)  # (..., T, d_in) -> (..., H, T, D)
        keys = split_heads(self.W_key(x), self.num_heads)
        values = split_heads(self.W_value(x), self.num_heads)
        if cache is not None:
            keys, values = cache.append(keys, values)  # (B, H, T, D) -> (B, H, held + T, D)
        if self.fused:
            contexts = attend_fused(queries, keys, values, self.dropout.p if self.training else 0.0)
        else:
            hidden = self.mask[held:num_tokens, :num_tokens]  # (T, held + T), for every batch entry and head
            contexts = attend(queries, keys, values, self.normalizer, hidden, self.dropout)  # (..., H, T, D)
        return self.out_proj(merge_heads(contexts))  # (..., H, T, D) -> (..., T, d_out)


def attend_fused(queries: Tensor, keys: Tensor, values: Tensor, dropout_p: float = 0.0) -> Tensor:
    """Causal attention by PyTorch's fused kernel, for queries that are the last Tq of the Tk tokens.

    Args:
        queries: (..., Tq, D)
        keys, values: (..., Tk, D), Tk at least Tq.
        dropout_p: chance that a weight is dropped.

    Returns:
        context vectors (..., Tq, D)

    Example:
        >>> x = torch.eye(3)[None]
        >>> attend_fused(x[:, -1:], x, x).shape
        torch.Size([1, 1, 3])
    """
    num_queries, num_keys = queries.shape[-2], keys.shape[-2]
    if num_queries == num_keys:
        return F.scaled_dot_product_attention(queries, keys, values, dropout_p=dropout_p, is_causal=True)
    visible = None  # a single query is the newest token: nothing lies after it
    if num_queries > 1:
        visible = ~causal_mask(num_keys)[-num_queries:].to(queries.device)  # (Tq, Tk)
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=visible, dropout_p=dropout_p)


class KeyValueCache:
    """Keys and values of the tokens so far, so that a new token computes only its own.

    The memory is taken once, for the longest sequence; what ``append`` returns are views of it.

    Attributes:
        length: tokens held.

    Raises:
        ValueError: more tokens than ``max_length``, or of another batch size.

    Example:
        >>> cache = KeyValueCache(batch_size=1, num_heads=2, max_length=8, head_dim=4)
        >>> keys, values = cache.append(*torch.zeros(2, 1, 2, 3, 4))
        >>> keys.shape, cache.length
        (torch.Size([1, 2, 3, 4]), 3)
    """

    def __init__(
        self,
        batch_size: int,
        num_heads: int,
        max_length: int,
        head_dim: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        self.keys = torch.empty(batch_size, num_heads, max_length, head_dim, device=device, dtype=dtype)
        self.values = torch.empty_like(self.keys)
        self.length = 0

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, T, D) of the new tokens -> (B, H, length + T, D) of all tokens, new ones included."""
        if keys.shape[0] != self.keys.shape[0]:
            raise ValueError(
                f"the cache holds {self.keys.shape[0]} sequences, the new tokens belong to {keys.shape[0]}"
            )
        end = self.length + keys.shape[-2]
        check_length(end, self.keys.shape[-2])
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def reset(self) -> None:
        """Forget all tokens; the memory stays."""
        self.length = 0


class CachedAttention:
    """One token in, one token out: the last row of ``mha``'s full pass, from remembered keys and values.

    For use in eval mode and without gradients. The memory grows to the batch of the first token after a reset.

    Args:
        mha: its weights are used, not copied.

    Raises:
        ValueError: more tokens than ``mha.context_length``, or not exactly one token at a time.

    Example:
        >>> mha, x = MultiHeadAttention(3, 4, context_length=6, dropout=0.0, num_heads=2), torch.ones(1, 2, 3)
        >>> cached = CachedAttention(mha)
        >>> _, last = cached.step(x[:, :1]), cached.step(x[:, 1:])
        >>> torch.allclose(last, mha(x)[:, -1:], atol=1e-6)
        True
    """

    def __init__(self, mha: MultiHeadAttention):
        self.mha = mha
        self.cache: KeyValueCache | None = None

    def step(self, x: Tensor) -> Tensor:
        """(B, 1, d_in) -> (B, 1, d_out)"""
        if x.dim() != 3 or x.shape[1] != 1:
            raise ValueError(f"one token at a time, (B, 1, d_in); got shape {tuple(x.shape)}")
        if self.cache is None:
            mha = self.mha
            self.cache = KeyValueCache(len(x), mha.num_heads, mha.context_length, mha.head_dim, x.device, x.dtype)
        return self.mha(x, self.cache)

    def reset(self) -> None:
        """Start a new sequence."""
        self.cache = None


def fused_attention(mha: MultiHeadAttention, x: Tensor) -> Tensor:
    """What ``mha(x)`` gives in eval mode, by PyTorch's fused kernel instead of written-out steps.

    The kernel computes the weights tile by tile and never stores the (T, T) table. For softmax only.
    Source: Dao et al., "FlashAttention" (2022).

    Args:
        mha: its projections are used, its ``forward`` is not.
        x: (..., T, d_in)

    Returns:
        (..., T, d_out)

    Example:
        >>> mha, x = MultiHeadAttention(3, 4, context_length=6, dropout=0.0, num_heads=2), torch.ones(1, 5, 3)
        >>> torch.allclose(fused_attention(mha, x), mha(x), atol=1e-6)
        True
    """
    queries, keys, values = (split_heads(W(x), mha.num_heads) for W in (mha.W_query, mha.W_key, mha.W_value))
    contexts = attend_fused(queries, keys, values)  # (..., H, T, D)
    return mha.out_proj(merge_heads(contexts))  # (..., H, T, D) -> (..., T, d_out)


def cross_attention(x: Tensor, context: Tensor, W_query: Tensor, W_key: Tensor, W_value: Tensor) -> Tensor:
    """One sequence asks, another answers: queries from ``x``, keys and values from ``context``, no mask.

    Args:
        x: (..., Tq, d_in)
        context: (..., Tk, d_context)
        W_query: (d_in, d_out)
        W_key, W_value: (d_context, d_out)

    Returns:
        (..., Tq, d_out)

    Example:
        >>> x, context = torch.ones(1, 2, 3), torch.ones(1, 5, 4)
        >>> cross_attention(x, context, torch.ones(3, 2), torch.ones(4, 2), torch.ones(4, 2)).shape
        torch.Size([1, 2, 2])
    """
    return attend(x @ W_query, context @ W_key, context @ W_value, SoftmaxNormalizer())
