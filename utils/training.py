"""Batches, evaluation and the training loop.

Legend: B batch, T tokens (the block size), N tokens of a corpus.
"""

import sys
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from tqdm import tqdm

from utils.modes import evaluating


def get_batch(data: Tensor, block_size: int, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random chunks of the corpus with their targets, the same chunks one token later.

    Args:
        data: (N,) token ids.
        block_size: T, tokens per row.
        batch_size: B, rows.
        generator: every draw comes from it. Each start is uniform over all N - T legal ones.

    Returns:
        x, y: int64 (B, T) each; y[b, t] is the token that follows x[b, t].

    Raises:
        ValueError: the corpus is too short to hold one block and its last target, or a size is below 1.

    Example:
        >>> x, y = get_batch(torch.arange(100), 8, 4, torch.Generator().manual_seed(0))
        >>> x.shape, bool((y == x + 1).all())
        (torch.Size([4, 8]), True)
    """
    if block_size < 1 or batch_size < 1:
        raise ValueError(f"sizes must be at least 1, got block_size={block_size}, batch_size={batch_size}")
    num_starts = len(data) - block_size  # the last legal start leaves one token for the last target
    if num_starts < 1:
        raise ValueError(f"a block of {block_size} needs {block_size + 1} tokens, the corpus has {len(data)}")
    starts = torch.randint(num_starts, (batch_size,), generator=generator)
    positions = starts[:, None] + torch.arange(block_size)  # (B, 1) + (T,) -> (B, T)
    return data[positions].long(), data[positions + 1].long()


@torch.no_grad()
def estimate_loss(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Mean loss over batches, each weighted by its number of tokens, in eval mode and without gradients.

    Args:
        model: model(x (B, T), y (B, T)) -> (logits, mean loss in nats).
        batches: any iterable of (x, y).

    Raises:
        ValueError: there is no batch.

    Example:
        >>> from utils.bigram import BigramLanguageModel
        >>> ids = torch.zeros(2, 3, dtype=torch.long)
        >>> 0 < estimate_loss(BigramLanguageModel(65), [(ids, ids)]) < 20
        True
    """
    total, num_tokens = 0.0, 0
    with evaluating(model):
        for x, y in batches:
            _, loss = model(x, y)
            total += loss.item() * y.numel()
            num_tokens += y.numel()
    if num_tokens == 0:
        raise ValueError("no batch to estimate the loss on")
    return total / num_tokens


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    next_batch: Callable[[], tuple[Tensor, Tensor]],
    num_steps: int,
    decimals: int = 4,
) -> list[float]:
    """Gradient steps on fresh batches, with a progress bar where somebody watches.

    The bar shows speed and time left, then gives way to one line that reads the same on every run.

    Args:
        model: model(x, y) -> (logits, loss).
        optimizer: updates the model's parameters.
        next_batch: returns (x, y) for the next step.
        num_steps: how many steps.
        decimals: of the loss in the last line; as many as are the same on every machine.

    Returns:
        the loss of each step's batch, before its update.

    Raises:
        ValueError: the loss is not finite; no update is made from it.

    Example:
        >>> from utils.bigram import BigramLanguageModel
        >>> model, ids = BigramLanguageModel(5), torch.arange(4).view(1, 4)
        >>> optimizer = torch.optim.AdamW(model.parameters())
        >>> losses = train(model, optimizer, lambda: (ids, ids), num_steps=2)  # doctest: +ELLIPSIS
        2 steps done, loss of the last batch ...
        >>> len(losses)
        2
    """
    losses: list[float] = []
    model.train()
    watched = sys.stdout.isatty() or "ipykernel" in sys.modules
    steps = tqdm(range(num_steps), unit="step", file=sys.stdout, leave=False, disable=not watched)
    for step in steps:
        x, y = next_batch()
        _, loss = model(x, y)
        losses.append(loss.item())
        if not torch.isfinite(loss):
            steps.close()
            raise ValueError(f"the loss is {losses[-1]} at step {step}; a lower learning rate often helps")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            steps.set_postfix_str(f"loss {losses[-1]:.3f}", refresh=False)
    if losses:
        print(f"{num_steps} steps done, loss of the last batch {losses[-1]:.{decimals}f}")
    return losses
