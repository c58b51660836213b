"""Rows that many exercises share."""

from utils.checks.exercise import Part

READY_MADE_ATTENTION = frozenset(["scaled_dot_product_attention", "MultiheadAttention"])
ANY_INPUT_HINT = "The earlier numbers are right, so look at what is special here: shape, dtype or memory layout."


def values(points: int, hint: str, title: str = "Right numbers on ordinary input") -> Part:
    """The result on small, ordinary cases."""
    return Part("values", title, points, hint)


def any_input(points: int, title: str, hint: str = ANY_INPUT_HINT) -> Part:
    """The result on other shapes, dtypes and layouts."""
    return Part("any_input", title, points, hint, needs=("values",))


def manners(points: int, title: str = "Gradients flow, inputs and random state stay untouched") -> Part:
    """What the answer does besides its result."""
    return Part("manners", title, points, "", needs=("values",))
