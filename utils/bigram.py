"""The bigram language model: the next token is guessed from the current one alone.

Legend: B batch, T tokens, V vocabulary size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BigramLanguageModel(nn.Module):
    """A table with one row of V logits per token; reading a row is the whole forward pass.

    Raises:
        ValueError: ``vocab_size`` is not at least 1.

    Example:
        >>> logits, loss = BigramLanguageModel(65)(torch.zeros(4, 8, dtype=torch.long))
        >>> logits.shape, loss
        (torch.Size([4, 8, 65]), None)
    """

    def __init__(self, vocab_size: int):
        super().__init__()
        if vocab_size < 1:
            raise ValueError(f"vocab_size must be at least 1, got {vocab_size}")
        self.token_embedding_table = nn.Embedding(vocab_size, vocab_size)

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Token ids (B, T) -> logits (B, T, V) and the mean cross-entropy in nats (None without targets)."""
        logits = self.token_embedding_table(idx)  # (B, T) -> (B, T, V)
        if targets is None:
            return logits, None
        # cross_entropy wants one row per prediction: (B, T, V) -> (B*T, V) and (B, T) -> (B*T,)
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def bigram_log_probs(data: Tensor, vocab_size: int) -> Tensor:
    """Log-probability of each next token, by counting pairs; the best any bigram model can do on ``data``.

    Every pair is counted once more than it occurs (add-one smoothing), so that no probability is zero.

    Args:
        data: (N,) token ids below ``vocab_size``.
        vocab_size: V.

    Returns:
        float32 (V, V), in nats; row = previous token, column = next token.

    Raises:
        ValueError: ``data`` is not one-dimensional, or an id lies outside the vocabulary.

    Example:
        >>> bigram_log_probs(torch.tensor([0, 1, 0]), vocab_size=2).exp()
        tensor([[0.3333, 0.6667],
                [0.6667, 0.3333]])
    """
    if data.dim() != 1:
        raise ValueError(f"data must have one dimension, got shape {tuple(data.shape)}")
    if data.numel() and not 0 <= int(data.min()) <= int(data.max()) < vocab_size:
        raise ValueError(f"token ids must lie in 0..{vocab_size - 1}, got {int(data.min())}..{int(data.max())}")
    pairs = data[:-1].long() * vocab_size + data[1:]  # one number per pair, too large for uint8: (N-1,)
    counts = torch.bincount(pairs, minlength=vocab_size**2).view(vocab_size, vocab_size)  # (V*V,) -> (V, V)
    smoothed = counts.double() + 1
    return (smoothed / smoothed.sum(dim=1, keepdim=True)).log().float()
