"""What the stress cases draw from, and how they write down errors."""

from collections.abc import Callable
from typing import Any

import torch


def outcome(action: Callable[[], Any]) -> Any:
    """The value, or the kind of error: errors of the same kind count as the same behaviour."""
    try:
        return action()
    except (ValueError, AssertionError):
        return "refused"
    except Exception as error:
        return type(error).__name__


def randn(g, *shape):
    dtype = (torch.float32, torch.float64)[int(torch.randint(2, (), generator=g))]
    return torch.randn(*shape, generator=g, dtype=dtype)


def size(g, low=1, high=7):
    return int(torch.randint(low, high, (), generator=g))


def letters(g, count):
    return "".join(chr(97 + i) for i in torch.randint(9, (count,), generator=g).tolist())
