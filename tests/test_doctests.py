"""Every example in the docstrings of `utils` runs and gives what it says."""

from __future__ import annotations

import doctest
import importlib
import inspect
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
MODULES = [
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((REPOSITORY / "utils").rglob("*.py"))
    if path.stem != "__main__"  # importing it would run it
]


def test_modules_are_found():
    assert {"utils", "utils.attention", "utils.checks", "utils.training"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_module_hold(name, monkeypatch):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)  # in a notebook a progress bar would be drawn
    module = importlib.import_module(name)
    result = doctest.testmod(module)  # prints what failed
    assert result.failed == 0
    public = [
        member
        for member, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == name and not member.startswith("_")
    ]
    # What serves only the exercises' own tables, or runs in the sandbox only, is not read by learners.
    internal = name.startswith(("utils.checks.chapters.", "utils.checks.probes.", "utils.grading.inside."))
    assert result.attempted or internal or not public, f"no example for {', '.join(public)}"
