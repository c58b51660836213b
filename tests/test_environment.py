"""Where the course runs: Colab or not, GPU or not, packages there or not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import types

import pytest
import torch

from utils import environment
from utils.environment import in_colab, missing_packages, pick_device, prepare, set_seed

OLD_PYTHON = (3, 9, 18, "final", 0)


@pytest.fixture
def colab(monkeypatch):
    """Stand-ins for the modules that every Colab kernel has imported."""
    google = types.ModuleType("google")
    google.colab = types.ModuleType("google.colab")
    monkeypatch.setitem(sys.modules, "google", google)
    monkeypatch.setitem(sys.modules, "google.colab", google.colab)


class Pip:
    """Stands in for `subprocess.run`: notes the commands, and "installs" what it is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, works: bool = True, stderr: str = "") -> None:
        self.commands: list[list[str]] = []
        self._missing: set[str] = set()
        self._works, self._stderr = works, stderr
        find_spec = environment.importlib.util.find_spec
        monkeypatch.setattr(
            environment.importlib.util, "find_spec", lambda name: None if name in self._missing else find_spec(name)
        )
        monkeypatch.setattr(environment.subprocess, "run", self._run)

    def remove(self, *packages: str) -> None:
        self._missing |= set(packages)

    def _run(self, command: list[str], check: bool = False, **options: object) -> subprocess.CompletedProcess:
        self.commands.append(command)
        if self._works:
            self._missing -= set(command)
        elif check:
            raise subprocess.CalledProcessError(1, command, "", self._stderr)
        return subprocess.CompletedProcess(command, 0 if self._works else 1, "", self._stderr)


@pytest.fixture
def pip(monkeypatch):
    return Pip(monkeypatch)


# Where are we?


def test_an_ordinary_kernel_is_not_colab():
    assert in_colab() is False


def test_a_kernel_with_colabs_module_is_colab(colab):
    assert in_colab() is True


def test_device_is_the_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device() == torch.device("cuda")


def test_device_is_the_cpu_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device() == torch.device("cpu")


def test_seed_repeats_the_draws_and_prints_nothing(capsys):
    draws = []
    for seed in (123, 123, 124):
        assert set_seed(seed) is None
        draws.append(torch.rand(4))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    torch.manual_seed(123)
    assert torch.equal(draws[0], torch.rand(4))
    assert capsys.readouterr() == ("", "")


# What is missing?


def test_missing_packages_have_the_names_that_pip_knows():
    wanted = {"torch": "torch", "no_such_module": "no-such-package", "tqdm": "tqdm"}
    assert missing_packages(wanted) == ["no-such-package"]


def test_every_package_that_the_course_asks_for_is_checked(pip):
    pip.remove("tiktoken", "tqdm")
    assert missing_packages() == ["tiktoken", "tqdm"]


def test_packages_of_colab_are_never_on_the_list():
    assert not {"torch", "numpy", "matplotlib"} & {*environment.LEARNER_PACKAGES.values()}


# The setup cell


@pytest.mark.parametrize("place", ["lab", "colab"])
def test_nothing_is_done_or_said_where_all_is_there(place, pip, request, capsys):
    if place == "colab":
        request.getfixturevalue("colab")
    assert prepare() is None
    assert pip.commands == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("place", ["lab", "colab"])
def test_old_python_is_refused_with_both_versions_and_nothing_is_installed(place, pip, request, monkeypatch):
    if place == "colab":
        request.getfixturevalue("colab")
    pip.remove("tiktoken")
    monkeypatch.setattr(sys, "version_info", OLD_PYTHON)
    monkeypatch.setattr(sys, "version", "3.9.18 (main, Aug 24 2023)")
    with pytest.raises(RuntimeError, match=r"needs Python 3\.10 or newer, this kernel runs 3\.9\.18$"):
        prepare()
    assert pip.commands == []


def test_oldest_allowed_python_is_accepted(pip, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 0, "final", 0))
    assert prepare() is None


def test_outside_colab_nothing_is_installed_but_the_command_is_given(pip):
    pip.remove("tiktoken", "tqdm")
    with pytest.raises(RuntimeError) as caught:
        prepare()
    assert pip.commands == []
    assert "missing package(s): tiktoken, tqdm." in str(caught.value)
    assert f"{sys.executable} -m pip install -r requirements.txt" in str(caught.value)


@pytest.mark.parametrize("missing", [["tiktoken"], ["tqdm"], ["tiktoken", "tqdm"]], ids="+".join)
def test_in_colab_exactly_the_missing_packages_are_installed(missing, colab, pip, capsys):
    pip.remove(*missing)
    prepare()
    (command,) = pip.commands
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert [word for word in command[4:] if not word.startswith("-")] == missing
    assert not {"--upgrade", "-U", "--force-reinstall", "-r", "--requirement"} & set(command)
    assert capsys.readouterr() == ("", "")


def test_in_colab_torch_and_numpy_are_never_installed(colab, pip):
    pip.remove("tiktoken", "torch", "numpy", "matplotlib")
    prepare()
    assert not re.search("torch|numpy|matplotlib|requirements", " ".join(pip.commands[0][1:]))


def test_in_colab_a_fresh_package_is_found_by_the_running_kernel(colab, monkeypatch, tmp_path):
    """Python remembers what lies in a folder, and its clock may be too coarse to show that pip wrote there."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(environment.LEARNER_PACKAGES, "arrives_later", "arrives-later")
    assert missing_packages() == ["arrives-later"]
    last_change = tmp_path.stat().st_mtime_ns

    def install(command: list[str], **options: object) -> subprocess.CompletedProcess:
        (tmp_path / "arrives_later.py").write_text("")
        os.utime(tmp_path, ns=(last_change, last_change))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(environment.subprocess, "run", install)
    assert prepare() is None


def test_in_colab_a_failed_installation_is_explained(colab, monkeypatch):
    pip = Pip(monkeypatch, works=False, stderr="WARNING: retrying\nERROR: No matching distribution\n")
    pip.remove("tiktoken")
    with pytest.raises(RuntimeError) as caught:
        prepare()
    assert "tiktoken" in str(caught.value)
    assert "ERROR: No matching distribution" in str(caught.value)
    assert "retrying" not in str(caught.value)
    assert "the course's folder" not in str(caught.value), "there is no such folder in Colab"
