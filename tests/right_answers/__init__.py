"""Right answers that differ from the reference: what the contract leaves open, the checks must accept.

One module per chapter; each has ``RIGHT_ANSWERS``: exercise id -> list of (name, answer). An answer is a function
or class, or a tuple of them where the exercise asks for several. A new chapter is found by its file name.
"""

import importlib
import pkgutil
from typing import Any

RIGHT_ANSWERS: dict[str, list[tuple[str, Any]]] = {}
for module in pkgutil.iter_modules(__path__):
    if module.name.startswith("chapter"):
        RIGHT_ANSWERS |= importlib.import_module(f"{__name__}.{module.name}").RIGHT_ANSWERS
