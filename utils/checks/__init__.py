"""The exercises and ``check``, which answers back.

>>> from utils.checks import EXERCISES, check
"""

from utils.checks.chapters import EXERCISES
from utils.checks.run import check

__all__ = ["EXERCISES", "check"]
