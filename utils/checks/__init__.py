"""The exercises and ``check``, which answers back; the written ones with their rubrics.

>>> from utils.checks import EXERCISES, WRITTEN, check
"""

from utils.checks.chapters import EXERCISES
from utils.checks.run import check
from utils.checks.written import WRITTEN

__all__ = ["EXERCISES", "WRITTEN", "check"]
