"""Sampling text from a language model, one token at a time.

Legend: B batch, T tokens, V vocabulary size.
"""

import torch
from torch import Tensor, nn

from utils.modes import evaluating


def sample_next(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """Draw one next token per row.

    Args:
        logits: (B, V) raw scores.
        temperature: the scores are divided by it: below 1 the likeliest tokens gain, above 1 they lose. At 0
            the likeliest token is taken, without a draw.
        top_k: only the k likeliest tokens can be drawn; None cuts nothing.
        generator: the draw comes from it, on its own device; PyTorch's global one if left out.

    Returns:
        int64 (B, 1)

    Raises:
        ValueError: ``temperature`` is negative, or ``top_k`` is below 1.

    Example:
        >>> sample_next(torch.tensor([[0.0, 2.0, 1.0]]), temperature=0)
        tensor([[1]])
    """
    if not temperature >= 0:  # refuses nan as well
        raise ValueError(f"temperature must not be negative, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    if temperature == 0:
        return logits.argmax(dim=-1, keepdim=True)  # (B, V) -> (B, 1)
    # the largest score becomes 0 first, so that a tiny temperature overflows to -inf and never to inf - inf
    scores = (logits - logits.amax(dim=-1, keepdim=True)) / temperature
    ids = None
    if top_k is not None:
        scores, ids = scores.topk(min(top_k, scores.shape[-1]), dim=-1)  # (B, V) -> (B, k); exactly k, ties or not
    probs = torch.softmax(scores, dim=-1)
    device = probs.device if generator is None else generator.device
    drawn = torch.multinomial(probs.to(device), num_samples=1, generator=generator).to(probs.device)  # (B, 1)
    return drawn if ids is None else ids.gather(-1, drawn)


@torch.no_grad()
def generate(
    model: nn.Module,
    idx: Tensor,
    max_new_tokens: int,
    generator: torch.Generator | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    cached: bool = True,
) -> Tensor:
    """Continue each row of ``idx``, one drawn token after the other.

    A model with a limited context sees the last ``model.cfg.context_length`` tokens. As long as all tokens fit,
    its key-value caches save the work that the last step has done already; the result is the same without.
    Once the window slides, every position changes, and each step is a full pass.

    Args:
        model: model(idx (B, T)) -> logits (B, T, V), or a tuple that starts with them.
        idx: (B, T) int64 prompts, T at least 1.
        max_new_tokens: how many tokens to add.
        generator, temperature, top_k: as in ``sample_next``; the same seed gives the same text.
        cached: whether to use the model's caches, where it has any (``new_caches``).

    Returns:
        int64 (B, T + max_new_tokens): prompt and new ids.

    Raises:
        ValueError: ``max_new_tokens`` is negative, or the prompt is empty.

    Example:
        >>> from utils.bigram import BigramLanguageModel
        >>> prompt = torch.zeros(1, 1, dtype=torch.long)
        >>> generate(BigramLanguageModel(65), prompt, 5, torch.Generator().manual_seed(0)).shape
        torch.Size([1, 6])
    """
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must not be negative, got {max_new_tokens}")
    if idx.dim() != 2 or idx.shape[1] < 1:
        raise ValueError(f"the prompt needs shape (B, T) with at least one token, got {tuple(idx.shape)}")
    window = model.cfg.context_length if hasattr(model, "cfg") else idx.shape[1] + max_new_tokens
    caches = None
    if cached and hasattr(model, "new_caches") and idx.shape[1] <= window:
        caches = model.new_caches(len(idx), min(idx.shape[1] + max_new_tokens, window))
    seen = 0  # tokens that the caches hold
    with evaluating(model):
        for _ in range(max_new_tokens):
            if caches is not None and idx.shape[1] <= window:
                output = model(idx[:, seen:], caches=caches)
                seen = idx.shape[1]
            else:
                output = model(idx[:, -window:])
            logits = output[0] if isinstance(output, tuple) else output
            # only the last position predicts: (B, T, V) -> (B, V)
            next_id = sample_next(logits[:, -1], temperature, top_k, generator)  # (B, 1)
            idx = torch.cat([idx, next_id], dim=1)  # (B, T) -> (B, T+1)
    return idx
