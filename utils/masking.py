"""Hiding: the causal mask and what follows from it, a test for leaks, and dropout written out.

Legend: B batch, T tokens, C channels; ``...`` any number of leading dimensions.
"""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from utils.modes import evaluating

LEAK = 1e-4  # of the largest output
ROUNDING = 1e-5  # of the largest output; float32 sums in another order differ by about 1e-6
TRIALS = 3


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


def running_mean(x: Tensor) -> Tensor:
    """Position t becomes the mean of the positions 0 to t, by one triangular matrix product.

    Args:
        x: (B, T, C); more or fewer leading dimensions work, too.

    Returns:
        the same shape and dtype.

    Example:
        >>> running_mean(torch.tensor([[[2.0], [4.0], [9.0]]])).flatten()
        tensor([2., 3., 5.])
    """
    num_tokens = x.shape[-2]
    lower = torch.tril(torch.ones(num_tokens, num_tokens, dtype=x.dtype, device=x.device))  # (T, T)
    weights = lower / lower.sum(dim=-1, keepdim=True)  # row t: 1/(t+1) up to the diagonal, then zeros
    return weights @ x  # (T, T) @ (B, T, C) -> (B, T, C)


def causal_softmax(scores: Tensor) -> Tensor:
    """Weights of each query over itself and earlier keys: exact zeros above the diagonal, rows add to one.

    Args:
        scores: (..., T, T), row = query.

    Example:
        >>> causal_softmax(torch.zeros(2, 2))
        tensor([[1.0000, 0.0000],
                [0.5000, 0.5000]])
    """
    hidden = causal_mask(scores.shape[-1]).to(scores.device)  # (T, T)
    return torch.softmax(scores.masked_fill(hidden, float("-inf")), dim=-1)


def information_flow(attention: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Which outputs depend on which inputs, tried out: change one input at a time and see what moves.

    Args:
        attention: (T, d_in) -> (T, d_out), the same output for the same input.
        x: (T, d_in), where to try it.

    Returns:
        (T, T) bool, True at [i, j] where output i moves when input j changes by 1.

    Example:
        >>> information_flow(running_mean, torch.zeros(2, 3))
        tensor([[ True, False],
                [ True,  True]])
    """
    with torch.no_grad():
        before = attention(x)  # (T, d_out)
        moved = []
        for j in range(len(x)):
            changed = x.clone()
            changed[j] += 1
            difference = (attention(changed) - before).abs().amax(dim=-1)  # (T, d_out) -> (T,)
            moved.append(difference > ROUNDING * before.abs().max())
    return torch.stack(moved, dim=1)  # T columns (T,) -> (T, T)


def is_causal(attention: Callable[[Tensor], Tensor], d_in: int, context_length: int) -> bool:
    """Whether no output depends on a later input, tried out: change the inputs from t on, look at those before.

    A change of more than a ten-thousandth of the largest output counts as a leak. Draws its inputs from the
    global random state. A module is tried in eval mode and gets its modes back.

    Args:
        attention: (1, T, d_in) -> (1, T, d_out) with T = ``context_length``; the same output for the same input.
        d_in: features of its input.
        context_length: T.

    Example:
        >>> is_causal(running_mean, d_in=3, context_length=5), is_causal(lambda x: x.flip(1), 3, 5)
        (True, False)
    """
    is_module = isinstance(attention, nn.Module)
    like = next(attention.parameters(), torch.empty(0)) if is_module else torch.empty(0)  # dtype and device
    with evaluating(attention) if is_module else nullcontext(), torch.no_grad():
        for _ in range(TRIALS):
            x = torch.randn(1, context_length, d_in).to(like)
            before = attention(x.clone()).nan_to_num()  # (1, T, d_out)
            for t in range(1, context_length):
                changed = x.clone()
                changed[:, t:] = torch.randn(1, context_length - t, d_in).to(like)
                after = attention(changed).nan_to_num()
                if (after - before)[:, :t].abs().max() > LEAK * before.abs().max():
                    return False
    return True


def apply_dropout(weights: Tensor, keep_mask: Tensor, p: float) -> Tensor:
    """Dropout with a mask that is given: what is kept is scaled by 1/(1-p), so that the mean stays.

    Source: Srivastava et al., "Dropout" (2014), in the form that scales while training.

    Args:
        weights: any shape.
        keep_mask: bool, the same shape; True where a weight survives.
        p: the share that is dropped, 0 <= p < 1.

    Raises:
        ValueError: ``p`` lies outside.

    Example:
        >>> apply_dropout(torch.ones(2), torch.tensor([True, False]), p=0.5)
        tensor([2., 0.])
    """
    if not 0 <= p < 1:
        raise ValueError(f"p must be at least 0 and below 1, got {p}")
    return weights * keep_mask / (1 - p)
