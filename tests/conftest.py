"""Paths, notebooks and a sandbox that several test files share."""

import os
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
import torch
from nbformat import NotebookNode

from utils.grading.sandbox import Kind, SandboxUnavailableError, pick_kind
from utils.release import ROOT

NOTEBOOK_PATHS = sorted([*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("solutions/*.ipynb")])


def name_of(path: Path) -> str:
    """The path as pytest shows it."""
    return f"{path.parent.name}/{path.name}"


@pytest.fixture(params=NOTEBOOK_PATHS, ids=name_of)
def notebook_path(request: pytest.FixtureRequest) -> Path:
    """Every notebook of the course in turn."""
    return request.param


@pytest.fixture
def notebook(notebook_path: Path) -> NotebookNode:
    """Every notebook of the course in turn, read."""
    return nbformat.read(notebook_path, as_version=4)


@pytest.fixture(params=sorted({path.name for path in NOTEBOOK_PATHS}))
def chapter(request: pytest.FixtureRequest) -> tuple[NotebookNode, NotebookNode]:
    """Every chapter in turn: the learner's notebook and the solved one."""
    return tuple(nbformat.read(ROOT / folder / request.param, as_version=4) for folder in ("notebooks", "solutions"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small tensors: threads only get into each other's way."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def needs_sandbox() -> Kind:
    """A kind of sandbox that works here. Without one a test is skipped, but CI has to have one."""
    try:
        return pick_kind()
    except SandboxUnavailableError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI has to try the sandbox: {error}", pytrace=False)
        pytest.skip(str(error))
