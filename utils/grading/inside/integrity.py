"""Noticing that a learner's code has changed what the probes rely on, and undoing it.

The probes run in the learner's process, so an answer could replace ``torch.equal`` and appear to leave its input
alone. ``Guard`` remembers what the functions were before any cell ran. ``restore`` puts them back and says what had
been changed: before an exercise that undoes it, during an exercise it voids what was seen.
"""

import builtins
import re
import sys
from collections.abc import Iterable
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch.overrides import _get_current_function_mode_stack, _pop_mode
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from torch.utils._python_dispatch import _pop_mode as _pop_dispatch_mode

WATCHED = (
    "builtins", "math", "random", "copy", "inspect", "tempfile", "warnings", "pathlib", "io", "os", "sys", "gc",
    "numpy", "numpy.random", "torch", "torch._tensor", "torch.autograd", "torch.random", "torch.nn",
    "torch.nn.functional", "torch.overrides", "torch.utils._python_dispatch", "torch.serialization", "json",
    "safetensors", "safetensors.torch",
)  # fmt: skip
OWN_MODULES = (  # all that they hold
    "utils.checks.", "utils.gpt_config", "wire", "course", "integrity", "privacy", "disarm", "worker",
)  # fmt: skip
CLASSES = (
    "torch.Tensor", "torch._C.TensorBase", "torch._C.Generator", "torch.nn.parameter.Parameter",
    "torch.nn.modules.module.Module", "torch.nn.modules.linear.Linear", "torch.nn.modules.sparse.Embedding",
    "torch.nn.modules.dropout.Dropout", "torch.nn.modules.container.Sequential",
    "torch.nn.modules.container.ModuleList", "torch.overrides.TorchFunctionMode",
    "torch.utils._python_dispatch.TorchDispatchMode", "numpy.ndarray",
    "utils.normalizers.BaseNormalizer", "utils.normalizers.SoftmaxNormalizer",
)  # fmt: skip
MAY_CHANGE = {  # what ordinary code changes, or the interpreter by itself
    "sys": {"stdout", "stderr", "stdin", "displayhook", "excepthook", "last_exc", "last_type", "last_value",
            "last_traceback", "path", "argv", "ps1", "ps2", "_getframe", "modules", "__interactivehook__"},
    "builtins": {"_", "get_ipython"},
    "torch": {"manual_seed"},  # replaced by PyTorch itself when it imports its compiler
    "torch.random": {"manual_seed"},
    "torch.nn.modules.module.Module": {"__init__", "__setstate__"},  # replaced by `torch.compile`
}  # fmt: skip
KEPT_BY_PYTHON = {  # the interpreter may replace these at any time
    "__dict__", "__weakref__", "__doc__", "__annotations__", "__annotate__", "__annotations_cache__",
    "__abstractmethods__", "_abc_impl", "__builtins__", "__warningregistry__", "__spec__", "__loader__",
}  # fmt: skip
BUILTINS = frozenset(name for name in vars(builtins) if not name.startswith("__"))


class Guard:
    """What the watched modules and their classes hold, and the code of their Python functions.

    Of PyTorch, NumPy and the standard library it remembers what the probes mention, and what operators call: comparing
    more would take longer than the exercises.

    Args:
        texts: the sources of the probes.

    Example:
        >>> import math
        >>> guard = Guard(["math.floor(x)"])
        >>> right, math.floor = math.floor, len
        >>> guard.restore()
        ['math.floor']
        >>> math.floor is right
        True
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._mentioned = {name for text in texts for name in re.findall(r"\w+", text)}
        self._contents: list[tuple[str, Any, frozenset[str], dict[str, Any]]] = []
        self._codes: list[tuple[str, FunctionType, tuple[Any, Any, Any]]] = []
        self._set, self._delete, self._vars = setattr, delattr, vars
        seen: set[int] = set()
        self._remember("builtins", builtins, seen)  # first, since putting the others right needs them
        for name, module in list(sys.modules.items()):
            if module is not None and (name in WATCHED or is_own(name)):
                self._remember(name, module, seen)
        self._remember("torch._C.TensorBase", torch.Tensor.__base__, seen)

    def _remember(self, name: str, owner: Any, seen: set[int]) -> None:
        if id(owner) in seen:
            return
        seen.add(id(owner))
        names = frozenset(key for key in vars(owner) if self._counts(name, owner, key))
        contents = {key: value for key, value in vars(owner).items() if key in names and is_used(value)}
        self._contents.append((name, owner, names, contents))
        for key, value in contents.items():
            function = getattr(value, "__func__", value)
            if isinstance(function, FunctionType):
                state = (function.__code__, function.__defaults__, function.__kwdefaults__)
                self._codes.append((f"{name}.{key}", function, state))
            elif isinstance(value, type):
                full_name = f"{value.__module__}.{value.__qualname__}"
                if full_name in CLASSES or is_own(full_name):
                    self._remember(full_name, value, seen)

    def _counts(self, name: str, owner: Any, key: str) -> bool:
        """Whether an attribute of a module or class could make a difference."""
        if key in KEPT_BY_PYTHON or key in MAY_CHANGE.get(name, ()):
            return False
        return is_own(name) or key in self._mentioned or (isinstance(owner, type) and key.startswith("__"))

    def restore(self) -> list[str]:
        """Undo every change, switch off what rewrites calls; the names of what had been changed."""
        changed = []
        for name, owner, names, contents in self._contents:
            now = self._vars(owner)
            for key, value in contents.items():
                if now.get(key, self) is not value:
                    changed.append(f"{name}.{key}")
                    self._set(owner, key, value)
            for key in [key for key in now if key not in names and hides_another(owner, key)]:
                if self._counts(name, owner, key):
                    changed.append(f"{name}.{key}")
                    self._delete(owner, key)
        for name, function, (code, defaults, kwdefaults) in self._codes:
            if function.__code__ is not code:
                changed.append(name)
                function.__code__ = code
            function.__defaults__, function.__kwdefaults__ = defaults, kwdefaults
        while _get_current_function_mode_stack():
            mode = _pop_mode()
            changed += [] if isinstance(mode, DeviceContext) else [type(mode).__name__]  # `torch.set_default_device`
        while _get_current_dispatch_mode_stack():
            changed.append(type(_pop_dispatch_mode()).__name__)
        return changed


def hides_another(owner: Any, name: str) -> bool:
    """Whether a new attribute takes the place of an inherited one, or of a builtin that a module's code uses."""
    if isinstance(owner, type):
        return any(name in vars(base) for base in owner.__mro__[1:])
    # `numpy.float = float` is a common way to make old code run
    return name in BUILTINS and owner is not builtins and not owner.__name__.startswith("numpy")


def is_own(name: str) -> bool:
    """Whether a module or class is one of the course's, or of those beside this file."""
    return name.startswith(OWN_MODULES)


def is_used(value: Any) -> bool:
    """Whether a value is something to call or to look up in: a function, class, descriptor or module, no state."""
    return callable(value) or isinstance(value, ModuleType) or hasattr(type(value), "__get__")
