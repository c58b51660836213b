"""Batches, losses, schedules and the training loop.

Legend: B batch, T tokens (the block size), V vocabulary size, N tokens of a corpus.
"""

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from utils.distributed import mean_over_processes, rank, without_exchange
from utils.modes import evaluating

Loss = TypeVar("Loss", float, Tensor)


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


def consecutive_batches(data: Tensor, block_size: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """A whole text in order: every token but the first is a target exactly once.

    Args:
        data: (N,) token ids.
        block_size: T, tokens per row; a shorter last row comes alone.
        batch_size: B, rows at a time.

    Yields:
        x, y: int64 (B, T) each, at most.

    Raises:
        ValueError: there is no target, or a size is below 1.

    Example:
        >>> [tuple(x.shape) for x, y in consecutive_batches(torch.arange(12), block_size=3, batch_size=2)]
        [(2, 3), (1, 3), (1, 2)]
    """
    if block_size < 1 or batch_size < 1 or len(data) < 2:
        raise ValueError(
            f"sizes must be at least 1 and the text at least 2 tokens long, got block_size={block_size}, "
            f"batch_size={batch_size}, {len(data)} tokens"
        )
    x, y = data[:-1].long(), data[1:].long()
    whole = len(x) // block_size * block_size  # what fills complete rows
    # (R*T,) -> (R, T) -> pieces of at most (B, T)
    rows = (part[:whole].view(-1, block_size).split(batch_size) for part in (x, y))
    yield from ((a, b) for a, b in zip(*rows, strict=True) if len(a))
    if whole < len(x):
        yield x[None, whole:], y[None, whole:]  # (1, rest)


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


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean surprise at the right answers, in nats: minus the log of the probability given to each.

    Args:
        logits: (..., V) raw scores.
        targets: (...) int64, the right answers.

    Example:
        >>> cross_entropy(torch.zeros(2, 3, 65), torch.zeros(2, 3, dtype=torch.long))
        tensor(4.1744)
    """
    shifted = logits - logits.amax(dim=-1, keepdim=True)  # the largest score becomes 0: exp can't overflow
    right = shifted.gather(-1, targets[..., None]).squeeze(-1)  # (..., V) -> (..., 1) -> (...)
    return (shifted.exp().sum(dim=-1).log() - right).mean()


def perplexity(loss: Loss) -> Loss:
    """Among how many equally likely tokens the model seems to choose: exp of the loss in nats.

    Example:
        >>> round(perplexity(4.174387), 2)
        65.0
    """
    return loss.exp() if isinstance(loss, Tensor) else math.exp(loss)


def learning_rate(step: int, max_lr: float, min_lr: float, warmup_steps: int, max_steps: int) -> float:
    """Warm-up from 0 in a straight line, then half a cosine down to ``min_lr``, which stays.

    Source: Loshchilov and Hutter, "SGDR" (2017), without restarts.

    Example:
        >>> [round(learning_rate(step, 1.0, 0.1, 10, 110), 3) for step in (0, 5, 10, 60, 110, 200)]
        [0.0, 0.5, 1.0, 0.55, 0.1, 0.1]
    """
    if step < warmup_steps:
        return max_lr * step / warmup_steps
    if step >= max_steps:
        return min_lr
    progress = (step - warmup_steps) / (max_steps - warmup_steps)  # from 0 to 1
    return min_lr + 0.5 * (max_lr - min_lr) * (1 + math.cos(math.pi * progress))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Groups for AdamW: matrices and embeddings decay, vectors (biases, scales, shifts) don't, frozen ones stay out.

    A parameter that is used twice, as a tied head, stands in one group once.

    Example:
        >>> [len(group["params"]) for group in parameter_groups(nn.Linear(2, 2), 0.1)]
        [1, 1]
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trainable if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.dim() < 2], "weight_decay": 0.0},
    ]


def accumulate_gradients(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    micro_batch_size: int,
    autocast_dtype: torch.dtype | None = None,
    scale_loss: Callable[[Tensor], Tensor] = lambda loss: loss,
) -> float:
    """Add the gradients of a batch to ``.grad``, a few rows at a time; equal to those of the whole batch.

    Args:
        model: model(x, y) -> (logits, mean loss over the rows).
        x, y: (B, T).
        micro_batch_size: rows per forward pass; the last part may be smaller.
        autocast_dtype: what the forward pass computes its matrix products in, for mixed precision.
        scale_loss: applied to each part's loss before ``backward``, for float16.

    Returns:
        the mean loss of the whole batch.

    Raises:
        ValueError: ``micro_batch_size`` is below 1, or there are no rows.

    Example:
        >>> from utils.bigram import BigramLanguageModel
        >>> ids = torch.zeros(3, 4, dtype=torch.long)
        >>> 0 < accumulate_gradients(BigramLanguageModel(65), ids, ids, micro_batch_size=2) < 20
        True
    """
    if micro_batch_size < 1 or len(x) < 1:
        raise ValueError(f"sizes must be at least 1, got micro_batch_size={micro_batch_size} and {len(x)} rows")
    parts = list(zip(x.split(micro_batch_size), y.split(micro_batch_size), strict=True))
    mean = 0.0
    for number, (x_part, y_part) in enumerate(parts, start=1):
        # processes exchange their gradients once, in the last backward
        with without_exchange(model) if number < len(parts) else nullcontext():
            with torch.autocast(x.device.type, dtype=autocast_dtype, enabled=autocast_dtype is not None):
                _, loss = model(x_part, y_part)
            share = len(x_part) / len(x)  # a ragged last part counts for its rows only
            scale_loss(loss * share).backward()
        mean += loss.item() * share
    return mean


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    next_batch: Callable[[], tuple[Tensor, Tensor]],
    num_steps: int,
    decimals: int | None = 4,
    *,
    first_step: int = 0,
    schedule: Callable[[int], float] | None = None,
    max_grad_norm: float | None = None,
    micro_batch_size: int | None = None,
    autocast_dtype: torch.dtype | None = None,
    after_step: Callable[[int], None] | None = None,
) -> list[float]:
    """Gradient steps on fresh batches, with a progress bar where somebody watches.

    The bar shows the loss, speed and time left, then gives way to one line that reads the same on every run.
    Under ``torchrun`` (see ``utils.distributed``) every process calls it with its share of each batch.

    Args:
        model: model(x, y) -> (logits, loss).
        optimizer: updates the model's parameters.
        next_batch: returns (x, y) for the next step.
        num_steps: where to stop; the run makes the steps ``first_step`` to ``num_steps - 1``.
        decimals: of the loss in the last line; as many as are the same on every machine. None leaves it out.
        first_step: where a resumed run goes on.
        schedule: step -> learning rate of all groups; unchanged if left out.
        max_grad_norm: longer gradients are scaled down to this length.
        micro_batch_size: rows per forward pass, for batches that don't fit at once.
        autocast_dtype: bfloat16 or float16 for the matrix products, on devices that have it.
        after_step: called with the number of steps done, for checkpoints and evaluation.

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
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    device = parameters[0].device
    # float16 has few exponents: small gradients would become 0 if the loss were not scaled up
    scaler = torch.amp.GradScaler(device.type, enabled=autocast_dtype is torch.float16)
    model.train()
    watched = rank() == 0 and (sys.stdout.isatty() or "ipykernel" in sys.modules)
    steps = tqdm(range(first_step, num_steps), unit="step", file=sys.stdout, leave=False, disable=not watched)
    for step in steps:
        if schedule is not None:
            for group in optimizer.param_groups:
                group["lr"] = schedule(step)
        x, y = next_batch()
        optimizer.zero_grad(set_to_none=True)
        rows = len(x) if micro_batch_size is None else micro_batch_size
        loss = accumulate_gradients(model, x, y, rows, autocast_dtype, scaler.scale)
        # all processes see the mean, so that all of them stop if it is not finite
        losses.append(mean_over_processes(torch.tensor(loss, device=device, dtype=torch.float64)).item())
        if not math.isfinite(losses[-1]):
            steps.close()
            raise ValueError(f"the loss is {losses[-1]} at step {step}; a lower learning rate often helps")
        if max_grad_norm is not None:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(parameters, max_grad_norm)
        scaler.step(optimizer)
        scaler.update()
        if step % 100 == 0:
            steps.set_postfix_str(f"loss {losses[-1]:.3f}", refresh=False)
        if after_step is not None:
            after_step(step + 1)
    if losses and rank() == 0:
        said = "" if decimals is None else f", loss of the last batch {losses[-1]:.{decimals}f}"
        print(f"{num_steps} steps done{said}")
    return losses
