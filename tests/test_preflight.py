"""Before anything is installed: what is in the way is said, with how to mend it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from utils import preflight
from utils.release import ROOT

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10**12, 0, 10**12))


def test_nothing_is_in_the_way_here(roomy: None, tmp_path: Path):
    assert preflight.obstacles(str(tmp_path)) == []


def test_an_old_python_is_named_with_what_to_type(roomy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "version_info", (3, 8, 10, "final", 0))
    monkeypatch.setattr(sys, "version", "3.8.10 (default)")
    (sentence,) = preflight.obstacles(str(tmp_path))
    assert "needs Python 3.10 or newer" in sentence
    assert "is 3.8.10" in sentence
    assert "make lab PYTHON=" in sentence


@pytest.mark.parametrize("module", ["venv", "ensurepip"])
def test_debians_split_python_is_told_which_package_to_add(
    module: str, roomy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(preflight.importlib.util, "find_spec", lambda name: None if name == module else object())
    (sentence,) = preflight.obstacles(str(tmp_path))
    assert "sudo apt install python3-venv" in sentence


def test_a_full_disk_is_told_with_what_is_left_and_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10**12, 0, 4 * 10**8))
    (sentence,) = preflight.obstacles(str(tmp_path))
    assert f"{tmp_path} has 0.4 GB left; installing needs {preflight.NEEDED_GB} GB" in sentence


def test_a_folder_that_cannot_be_written_is_told(roomy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "access", lambda folder, mode: False)
    (sentence,) = preflight.obstacles(str(tmp_path))
    assert f"Nothing can be written into {tmp_path}" in sentence


def fake_python(folder: Path, body: str) -> Path:
    """An executable that stands in for a Python."""
    path = folder / "python3"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def make(folder: Path, python: Path | str, **environment: str) -> subprocess.CompletedProcess:
    """`make lab` with the course's Makefile in a folder of its own, where nothing is installed yet."""
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "requirements.txt").write_text("no-such-package-anywhere==1\n")
    (folder / "utils").mkdir()
    shutil.copy(preflight.__file__, folder / "utils")
    # a make that has started these tests would hand its own flags down
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "-C", folder, "lab", f"PYTHON={python}"]
    return subprocess.run(command, env=kept | environment, capture_output=True, text=True)


def test_make_stops_before_installing_and_leaves_nothing_half_made(tmp_path: Path):
    """The stand-in answers as an old Python does."""
    wrapper = f"exec {sys.executable} -c 'import sys; sys.version_info = (3, 9, 1); sys.argv = sys.argv[1:]; "
    python = fake_python(tmp_path, wrapper + 'import runpy; runpy.run_path(sys.argv[0], run_name="__main__")\' "$@"')
    done = make(tmp_path, python)
    assert done.returncode != 0
    assert "This course needs Python 3.10 or newer" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_make_explains_a_failed_installation_and_starts_anew_next_time(tmp_path: Path):
    """pip fails as it does without a connection: an index that nobody serves."""
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": "/dev/null"}
    done = make(tmp_path, sys.executable, **nowhere)
    assert done.returncode != 0
    assert "Installing failed" in done.stdout
    assert "no connection?" in done.stdout
    assert not (tmp_path / ".venv" / ".lab").exists(), "make would take the environment for finished"
