"""PyTorch's optimizers without its compiler, which they import at their first step and don't need.

The import takes nearly a second, more than all answers of a chapter together.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"


class Uncompiled(ModuleType):
    """Stands for the compiler until somebody wants more of it than to be left alone."""

    @staticmethod
    def disable(function: Any = None, recursive: bool = True, **options: Any) -> Any:
        """The function as it is: nothing is compiled anyway."""
        return function if function is not None else (lambda decorated: decorated)

    @staticmethod
    def graph_break(*arguments: Any, **options: Any) -> None:
        """Nothing: there is no graph."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)
        if sys.modules.get(COMPILER) is self:
            del sys.modules[COMPILER]
        return getattr(importlib.import_module(COMPILER), name)


def leave_compiler_out() -> None:
    """Put the stand-in in the compiler's place, unless it is there already."""
    sys.modules.setdefault(COMPILER, Uncompiled(COMPILER))
