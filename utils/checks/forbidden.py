"""Noticing PyTorch functions that would skip an exercise, however they are reached."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable
from typing import Any

from torch.overrides import TorchFunctionMode

PREFIXES = ("special_", "linalg_", "_safe_", "_sparse_")
ALIASES = {
    "imatmul": "matmul",
    "rmatmul": "matmul",
    "Softmax": "softmax",
    "LogSoftmax": "log_softmax",
    "cumulative_sum": "cumsum",
    "nancumsum": "cumsum",
    "multi_head_attention_forward": "MultiheadAttention",
    "native_multi_head_attention": "MultiheadAttention",
    "transformer_encoder_layer_fwd": "MultiheadAttention",
    "flash_attention_forward": "scaled_dot_product_attention",
    "efficient_attention_forward": "scaled_dot_product_attention",
    "LayerNorm": "layer_norm",
    "native_layer_norm": "layer_norm",
    "GroupNorm": "group_norm",
    "native_group_norm": "group_norm",
    "GELU": "gelu",
}
FAMILIES = {
    re.compile(r"scaled_dot_product_\w+"): "scaled_dot_product_attention",
    re.compile(r"(linear_)?cross_entropy(_loss)?|CrossEntropyLoss"): "cross_entropy",
    re.compile(r"nll_loss(2d|_nd)?(_forward)?|NLLLoss(2d)?"): "nll_loss",
    re.compile(r"((feature_)?(alpha_)?|native_|fused_)dropout([123]d)?|(Feature)?(Alpha)?Dropout([123]d)?"): "dropout",
}
LOOPS = (ast.For, ast.AsyncFor, ast.While, ast.comprehension)
SPOKEN = {"matmul": "`@` (`matmul`)", "loop": "Python loops"}


def plain_name(name: str) -> str:
    """The name that aliases and in-place forms have in common.

    Example:
        >>> plain_name("linalg_vecdot"), plain_name("softmax_"), plain_name("dot.default")
        ('vecdot', 'softmax', 'dot')
    """
    name = name.split(".")[0].strip("_")
    for prefix in PREFIXES:
        name = name.removeprefix(prefix.strip("_") + "_")
    for pattern, plain in FAMILIES.items():
        if pattern.fullmatch(name):
            return plain
    return ALIASES.get(name, name)


def spoken(names: Iterable[str]) -> str:
    """Forbidden names in a sentence for the learner.

    Example:
        >>> spoken({"loop", "cumsum"})
        '`cumsum` and Python loops'
    """
    *before, last = [SPOKEN.get(name, f"`{name}`") for name in sorted(names)]
    return " and ".join(filter(None, [", ".join(before), last]))


class Watch(TorchFunctionMode):
    """While active, notes every forbidden PyTorch function that is called, by whatever alias.

    The probe's own calls are noted, too: a probe must do without what its exercise forbids.

    Example:
        >>> import torch
        >>> with Watch({"softmax"}) as watch:
        ...     _ = torch.nn.Softmax(dim=-1)(torch.ones(2))
        >>> watch.used
        {'softmax'}
    """

    def __init__(self, names: Iterable[str]):
        super().__init__()
        self.names = frozenset(names)
        self.used: set[str] = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.used |= {plain_name(getattr(func, "__name__", ""))} & self.names
        return func(*args, **(kwargs or {}))


def mentioned(answer: Any, names: Iterable[str]) -> set[str]:
    """Forbidden names in the source of an answer: ``torch.dot``, ``x.dot``, ``@``; not in comments or texts.

    A loop or comprehension counts as the name ``loop``. Catches what never reaches PyTorch, such as
    ``numpy.dot``. A builtin has no source to read, and a lambda's source is whatever else stands on its line:
    both give nothing here, ``Watch`` still sees them.

    Example:
        >>> mentioned(plain_name, {"split"})
        {'split'}
    """
    if getattr(answer, "__name__", "") == "<lambda>":
        return set()
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(answer)))
    except (OSError, TypeError, ValueError, SyntaxError):
        return set()
    return mentioned_in(tree, names)


def mentioned_in(tree: ast.AST, names: Iterable[str]) -> set[str]:
    """As ``mentioned``, for a definition that is at hand as a syntax tree.

    Example:
        >>> mentioned_in(ast.parse("def f(x):\\n    return x @ x"), {"matmul", "dot"})
        {'matmul'}
    """
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.MatMult):
            found.add("matmul")
        elif isinstance(node, LOOPS):
            found.add("loop")
        elif isinstance(node, ast.Attribute) and not is_self(node.value):
            found.add(plain_name(node.attr))
        elif isinstance(node, ast.ImportFrom):
            found.update(plain_name(alias.name) for alias in node.names)
    return found & frozenset(names)


def is_self(node: ast.expr) -> bool:
    """Whether an expression is ``self``: a learner may call a method of their own whatever they like."""
    return isinstance(node, ast.Name) and node.id == "self"
