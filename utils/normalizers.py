"""Turning scores into weights: every normalizer maps the last dimension to weights that add up to one.

Legend: ``...`` any number of leading dimensions, ``d`` the dimension that is normalised.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class BaseNormalizer(ABC):
    """What every normalizer promises: ``normalize(inputs)`` keeps the shape and works on the last dimension.

    Abstract: it normalises nothing by itself, so it can't be instantiated.

    ``mask_value`` is what masked attention writes over a hidden score so that its weight becomes exactly
    zero. It depends on the rule: exp(-inf) is zero, but a plain sum needs a plain zero.

    Example:
        >>> class Halve(BaseNormalizer):
        ...     def normalize(self, inputs):
        ...         return inputs / 2
        >>> Halve().normalize(torch.tensor([2.0, 4.0]))
        tensor([1., 2.])
    """

    mask_value: float = float("-inf")

    @abstractmethod
    def normalize(self, inputs: Tensor) -> Tensor:
        """Map scores (..., d) to weights (..., d)."""


class AddOneNormalizer(BaseNormalizer):
    """Divide by the sum, so that the components add to one (hence the name; nothing is added).

    Fails where softmax does not: a negative score gives a negative weight, and a sum of zero gives
    inf or NaN. It is here to be compared with softmax, not to be used.

    Example:
        >>> AddOneNormalizer().normalize(torch.tensor([1.0, 8.0, 1.0]))
        tensor([0.1000, 0.8000, 0.1000])
    """

    mask_value = 0.0

    def normalize(self, inputs: Tensor) -> Tensor:
        """Map scores (..., d) to scores / sum over d (..., d)."""
        return inputs / inputs.sum(dim=-1, keepdim=True)


class SoftmaxNormalizer(BaseNormalizer):
    """PyTorch's softmax over the last dimension: positive weights that add to one, whatever the scores.

    Example:
        >>> SoftmaxNormalizer().normalize(torch.tensor([1.0, 8.0, 1.0]))
        tensor([9.1022e-04, 9.9818e-01, 9.1022e-04])
    """

    def normalize(self, inputs: Tensor) -> Tensor:
        """Map scores (..., d) to softmax over d (..., d)."""
        return torch.softmax(inputs, dim=-1)


def stable_softmax(scores: Tensor, dim: int = -1) -> Tensor:
    """Softmax written out, safe for large scores: subtract the largest score before the exponential.

    exp(s - m) / sum exp(s - m) equals exp(s) / sum exp(s) for every m, because exp(-m) cancels.
    With m = max(s) the largest exponent is 0, so nothing overflows. See section 4.1 of Goodfellow,
    Bengio and Courville, "Deep Learning" (2016).

    Args:
        scores: (..., d, ...) with any entries, some of them -inf; not a whole row of -inf.
        dim: the dimension that adds to one.

    Returns:
        weights of the same shape and dtype.

    Example:
        >>> stable_softmax(torch.tensor([1000.0, 1000.0]))
        tensor([0.5000, 0.5000])
    """
    exponentials = torch.exp(scores - scores.amax(dim=dim, keepdim=True))  # largest exponent is 0
    return exponentials / exponentials.sum(dim=dim, keepdim=True)
