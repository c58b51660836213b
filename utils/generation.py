"""Sampling text from a language model, one token at a time.

Legend: B batch, T tokens, V vocabulary size.
"""

import torch
from torch import Tensor, nn

from utils.modes import evaluating


@torch.no_grad()
def generate(model: nn.Module, idx: Tensor, max_new_tokens: int, generator: torch.Generator) -> Tensor:
    """Continue each row of ``idx`` by sampling from the model's distribution.

    Args:
        model: model(idx (B, T)) -> (logits (B, T, V), loss).
        idx: (B, T) int64 prompts.
        max_new_tokens: how many tokens to add.
        generator: every draw comes from it, so the same seed gives the same text.

    Returns:
        int64 (B, T + max_new_tokens): prompt and new ids.

    Raises:
        ValueError: ``max_new_tokens`` is negative.

    Example:
        >>> from utils.bigram import BigramLanguageModel
        >>> prompt = torch.zeros(1, 1, dtype=torch.long)
        >>> generate(BigramLanguageModel(65), prompt, 5, torch.Generator().manual_seed(0)).shape
        torch.Size([1, 6])
    """
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must not be negative, got {max_new_tokens}")
    with evaluating(model):
        for _ in range(max_new_tokens):
            logits, _ = model(idx)
            # only the last position predicts: (B, T, V) -> (B, V)
            probs = torch.softmax(logits[:, -1, :], dim=-1)
            next_id = torch.multinomial(probs, num_samples=1, generator=generator)  # (B, 1)
            idx = torch.cat([idx, next_id], dim=1)  # (B, T) -> (B, T+1)
    return idx
