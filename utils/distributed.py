"""Several processes, one training run: what ``torchrun`` starts, each works on its share of every batch.

Source: Li et al., "PyTorch Distributed" (2020). With gloo on CPUs and nccl on GPUs.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@contextmanager
def process_group() -> Iterator[torch.device | None]:
    """Join the processes that ``torchrun`` has started; alone, do nothing.

    Yields:
        the GPU of this process if there is one for each, else None.

    Example:
        >>> with process_group() as device:
        ...     world_size()
        1
    """
    if "RANK" not in os.environ:
        yield None
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    on_gpu = torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
    if on_gpu:
        torch.cuda.set_device(local_rank)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield torch.device("cuda", local_rank) if on_gpu else None
    finally:
        dist.destroy_process_group()


def world_size() -> int:
    """How many processes work together; 1 without ``torchrun``.

    Example:
        >>> world_size()
        1
    """
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0.

    Example:
        >>> rank()
        0
    """
    return dist.get_rank() if dist.is_initialized() else 0


def spread(model: nn.Module) -> nn.Module:
    """The model, wrapped so that ``backward`` averages the gradients of all processes; alone, the model itself.

    Example:
        >>> type(spread(nn.Linear(2, 2))).__name__
        'Linear'
    """
    return DistributedDataParallel(model) if dist.is_initialized() else model


def own_share(*batch: Tensor) -> list[Tensor]:
    """The rows of a batch that this process works on: every process draws the same batch and takes its part.

    Args:
        batch: tensors (B, ...), B a multiple of the number of processes, so that a mean of means is the mean.

    Raises:
        ValueError: the rows can't be shared out evenly.

    Example:
        >>> own_share(torch.arange(4))
        [tensor([0, 1, 2, 3])]
    """
    rows, size = len(batch[0]), world_size()
    if rows % size:
        raise ValueError(f"a batch of {rows} rows can't be shared out evenly among {size} processes")
    share = rows // size
    return [tensor[rank() * share : (rank() + 1) * share] for tensor in batch]


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes; alone, the tensor.

    Example:
        >>> mean_over_processes(torch.tensor(2.0))
        tensor(2.)
    """
    if not dist.is_initialized():
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / world_size()


def without_exchange(model: nn.Module) -> AbstractContextManager:
    """A context in which ``backward`` leaves the gradients of this process alone, for all but the last micro batch.

    Example:
        >>> with without_exchange(nn.Linear(2, 2)):
        ...     pass
    """
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()
