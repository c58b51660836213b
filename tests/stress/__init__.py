"""Random cases for every exercise, written independently of the probes: one module per chapter.

``stress_3_2(answer, generator)`` gives what an answer to exercise 3.2 does in one random case. A new chapter
is found by its file name.
"""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import torch

STRESS: dict[str, Callable[[Any, torch.Generator], Any]] = {}
for module in pkgutil.iter_modules(__path__):
    if module.name.startswith("chapter"):
        functions = vars(importlib.import_module(f"{__name__}.{module.name}")).items()
        STRESS |= {n.removeprefix("stress_").replace("_", "."): f for n, f in functions if n.startswith("stress_")}
