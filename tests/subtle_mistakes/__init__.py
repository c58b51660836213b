"""Wrong answers that are nearly right: the checks must refuse each of them.

One module per chapter; each has ``SUBTLE_MISTAKES``: a list of (exercise id, answer). A new chapter is found
by its file name.
"""

import importlib
import pkgutil
from typing import Any

SUBTLE_MISTAKES: list[tuple[str, Any]] = []
for module in pkgutil.iter_modules(__path__):
    if module.name.startswith("chapter"):
        SUBTLE_MISTAKES += importlib.import_module(f"{__name__}.{module.name}").SUBTLE_MISTAKES
