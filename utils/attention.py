"""The attention family, from one dot product to multi-head attention; each class adds one idea.

Legend: B batch, T tokens, H heads, D head size, d_in and d_out features; ``...`` is an optional batch.
Every class takes (T, d_in) or (B, T, d_in) and a ``normalizer`` (softmax unless you pass another).
"""

import torch
from torch import Tensor, nn

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
    attn_scores = queries @ keys.transpose(-2, -1)  # (..., Tq, D) @ (..., D, Tk) -> (..., Tq, Tk)
    attn_scores = attn_scores / keys.shape[-1] ** 0.5  # keeps the variance near 1, whatever D is
    if hidden is not None:
        attn_scores = attn_scores.masked_fill(hidden, normalizer.mask_value)
    attn_weights = normalizer.normalize(attn_scores)
    if dropout is not None:
        attn_weights = dropout(attn_weights)
    return attn_weights @ values  # (..., Tq, Tk) @ (..., Tk, Dv) -> (..., Tq, Dv)


def causal_mask(context_length: int) -> Tensor:
    """(T, T) bool, True above the diagonal: where a query would look at a later key.

    Raises:
        ValueError: ``context_length`` is not at least 1.

    Example:
        >>> causal_mask(2)
        tensor([[False,  True],
                [False, False]])
    """
    if context_length < 1:
        raise ValueError(f"context_length must be at least 1, got {context_length}")
    return torch.triu(torch.ones(context_length, context_length, dtype=torch.bool), diagonal=1)


def check_length(num_tokens: int, context_length: int) -> None:
    """Refuse a sequence that the mask does not cover.

    Raises:
        ValueError: naming both lengths.

    Example:
        >>> check_length(4, context_length=8)
    """
    if num_tokens > context_length:
        raise ValueError(f"the sequence has {num_tokens} tokens, but context_length is {context_length}")


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
        return attend(x @ self.W_query, x @ self.W_key, x @ self.W_value, self.normalizer)


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

    ``d_out`` is the size of all heads together; an output projection mixes the heads.

    Raises:
        ValueError: ``d_out`` is not divisible by ``num_heads``, or the input is longer than
            ``context_length``.

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
        self.register_buffer("mask", causal_mask(context_length))  # (context_length, context_length)

    def forward(self, x: Tensor) -> Tensor:
        """(..., T, d_in) -> (..., T, d_out), T at most ``context_length``"""
        num_tokens = x.shape[-2]
        check_length(num_tokens, self.context_length)
        queries = split_heads(self.W_query(x), self.num_heads)  # (..., T, d_in) -> (..., H, T, D)
        keys = split_heads(self.W_key(x), self.num_heads)
        values = split_heads(self.W_value(x), self.num_heads)
        hidden = self.mask[:num_tokens, :num_tokens]  # (T, T), the same for every batch entry and head
        contexts = attend(queries, keys, values, self.normalizer, hidden, self.dropout)  # (..., H, T, D)
        return self.out_proj(merge_heads(contexts))  # (..., H, T, D) -> (..., T, d_out)
