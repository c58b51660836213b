"""matplotlib for a notebook that nobody looks at: every figure is accepted and none is drawn.

Drawing would take longer than trying the answers, and no answer draws.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

LIBRARY = "matplotlib"


class Nothing:
    """Can be called, looked into and taken apart, and is always itself.

    Example:
        >>> figure, axes = NOTHING.subplots(1, 2)
        >>> axes.set(title="weights") is NOTHING
        True
    """

    def __call__(self, *arguments: Any, **options: Any) -> "Nothing":
        return self

    def __getattr__(self, name: str) -> "Nothing":
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __getitem__(self, key: Any) -> "Nothing":
        return self

    def __iter__(self) -> Iterator["Nothing"]:
        return iter((self, self))

    def __enter__(self) -> "Nothing":
        return self

    def __exit__(self, *error: Any) -> None:
        pass


NOTHING = Nothing()


class UndrawnFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports matplotlib and all its parts as modules that hold nothing but ``NOTHING``."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        """The spec of a part of matplotlib, None for any other module."""
        if fullname.split(".")[0] != LIBRARY:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: Any) -> ModuleType:
        """An empty module; what is looked for in it is ``NOTHING``."""
        module = ModuleType(spec.name)
        module.__getattr__ = lambda name: getattr(NOTHING, name)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


def draw_nothing() -> None:
    """From now on, matplotlib is imported undrawn."""
    sys.meta_path.insert(0, UndrawnFinder())
