"""Taking forbidden operations out of PyTorch, for the rest of this process.

``Watch`` (``utils.checks.forbidden``) sees the functions that an answer calls, unless the answer hides from it: in
another thread, in TorchScript, behind ``torch.ops`` or with PyTorch's overrides switched off. Here the operation
itself is replaced in PyTorch's dispatcher, which every one of these ways passes. This has to happen before a learner's
code runs.
"""

import ctypes
import sys
from collections.abc import Iterable
from typing import Any

import numpy
import torch

from utils.checks.forbidden import plain_name

KEYS = ("CPU", "SparseCPU")
WRITTEN_OUT = (  # the same operations once more, made of others
    "torch._refs",
    "torch._refs.linalg",
    "torch._refs.nn.functional",
    "torch._refs.special",
    "torch._decomp.decompositions",
)


def disarm(names: Iterable[str]) -> list[str]:
    """Make every CPU kernel of these operations raise, and the functions of these names that need none.

    Args:
        names: as in ``Exercise.forbid``, "softmax".

    Returns:
        the operations of PyTorch that no longer work.
    """
    forbidden = frozenset(names) - {"loop"}
    if not forbidden:
        return []
    names = (full_name.partition("::") for full_name in torch._C._dispatch_get_all_op_names())
    gone = [name for namespace, _, name in names if namespace == "aten" and plain_name(name) in forbidden]
    for module in (numpy, *filter(None, map(sys.modules.get, WRITTEN_OUT))):
        for name, value in list(vars(module).items()):
            if plain_name(name) in forbidden and callable(value):
                setattr(module, name, _refusal(name))
    for table in torch._decomp.global_decomposition_table.values():
        for operation in list(table):
            if plain_name(operation.name().split("::")[-1]) in forbidden:
                del table[operation]
    for key in KEYS:
        library = torch._C._dispatch_library("IMPL", "aten", key, __file__, 1)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(library))  # were it freed, the operations would come back
        for name in gone:
            library.impl(name, key, _refusal(plain_name(name)))
    return gone


def _refusal(name: str) -> Any:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError(f"this exercise is about doing without `{name}`")

    return refuse
