"""What the sandbox lets through, what ends it, and what is said where there is none."""

import os
import shutil
import stat
import sys
import textwrap
import time

import psutil
import pytest

from utils.checks import EXERCISES
from utils.grading import marking, sandbox
from utils.grading.sandbox import (
    Kind,
    Sandbox,
    SandboxUnavailableError,
    memory_of,
    pick_kind,
    unprotected,
    why_it_leaks,
)

RIGHT = """
import torch
def causal_softmax(scores):
    mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    return scores.masked_fill(~mask, float("-inf")).softmax(-1)
"""
FULL = EXERCISES["3.2"].points


def family() -> set[int]:
    """Our descendants that still run."""
    alive = set()
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                alive.add(process.pid)
        except psutil.NoSuchProcess:
            continue
    return alive


@pytest.fixture
def fresh(needs_sandbox):
    """A sandbox of its own, for tests that end it."""
    with Sandbox(needs_sandbox) as made:
        yield made


# What is seen from inside --------------------------------------------------------------------------------


def test_inside_there_is_nothing_of_the_course_no_network_and_nothing_to_write(fresh):
    fresh._start()
    assert fresh.facts["status"] == "ready"
    assert fresh.facts["visible"] == [] and fresh.facts["writable"] == []
    assert fresh.facts["network"] == "none" and fresh.facts["uid"] != 0


def test_nothing_of_this_environment_is_inside(fresh, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "x")
    fresh._start()
    assert set(fresh.facts["environment"]) <= {*sandbox.ENVIRONMENT, "PWD", "LC_CTYPE"}
    for process in [fresh._process.pid, *[p.pid for p in psutil.Process(fresh._process.pid).children(recursive=True)]]:
        assert "SECRET_TOKEN" not in psutil.Process(process).environ()


def test_folders_that_are_named_are_hidden_too(needs_sandbox, tmp_path):
    with Sandbox(needs_sandbox, (tmp_path,)) as made:
        made._start()
        assert str(tmp_path) not in made.facts["visible"]


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"visible": ["/course/solutions"]}, "one sees /course/solutions"),
        ({"writable": ["/usr"]}, "can write to /usr"),
        ({"network": "connected"}, "there is a network"),
        ({"uid": 0}, "one is root"),
        ({}, ""),
    ],
)
def test_the_self_test_refuses_what_leaks(facts, said):
    class Leaky(Sandbox):
        def _start(self):
            self.facts = {"visible": [], "writable": [], "network": "none", "uid": 7, **facts}

    assert said in why_it_leaks(Kind(), Leaky) and bool(said) == bool(why_it_leaks(Kind(), Leaky))


# Where there is none -------------------------------------------------------------------------------------


def test_without_bubblewrap_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SandboxUnavailableError, match=r"sudo apt install\s+bubblewrap.*--no-sandbox"):
        pick_kind.__wrapped__()


@pytest.mark.parametrize("system, help", [("darwin", r"macOS: .*container.*--no-sandbox"), ("win32", "WSL")])
def test_other_systems_are_told_what_helps(monkeypatch, system, help):
    monkeypatch.setattr(sys, "platform", system)
    with pytest.raises(SandboxUnavailableError, match=help):
        pick_kind.__wrapped__()


def test_windows_marks_nobody_even_unprotected(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SandboxUnavailableError, match="WSL"):
        unprotected()


def put_bwrap(folder, lines: str) -> None:
    """A program named like bubblewrap."""
    fake = folder / "bwrap"
    fake.write_text(f"#!/bin/sh\n{lines}\n")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)


def test_where_bubblewrap_is_blocked_the_message_names_the_fix(monkeypatch, tmp_path):
    put_bwrap(tmp_path, "echo 'bwrap: setting up uid map: Permission denied' >&2\nexit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setitem(sandbox.ENVIRONMENT, "PATH", os.environ["PATH"])
    with pytest.raises(SandboxUnavailableError, match=r"apparmor_restrict_unprivileged_userns=0.*--no-sandbox"):
        pick_kind.__wrapped__()


def test_the_bubblewrap_that_was_found_is_the_one_that_is_started(needs_sandbox, monkeypatch, tmp_path):
    put_bwrap(tmp_path, f"touch {tmp_path}/started\nexit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert shutil.which("bwrap") == str(tmp_path / "bwrap")
    why_it_leaks(needs_sandbox)
    assert (tmp_path / "started").exists()


def test_a_sandbox_that_does_not_start_is_nobodys_fault(needs_sandbox, monkeypatch):
    monkeypatch.setattr(sandbox, "bubblewrap", lambda *_: ["false"])
    with Sandbox(needs_sandbox) as made, pytest.raises(SandboxUnavailableError, match="does not start any more"):
        made.ask("read", {}, b"", 1)


# Limits ----------------------------------------------------------------------------------------------------


def test_too_much_memory_costs_the_answer_and_no_other(mark):
    greedy = "import torch\ndef running_mean(x):\n    return torch.ones(2 * 2**30)"
    marked = mark("3", {"3.1": greedy, "3.2": RIGHT})
    assert marked.points["3.1"] == 0 and marked.points["3.2"] == FULL


def test_memory_that_grows_step_by_step_ends_too(mark):
    greedy = "def running_mean(x):\n    kept = []\n    while True:\n        kept.append(bytearray(2**26))"
    marked = mark("3", {"3.1": greedy, "3.2": RIGHT})
    assert marked.points["3.1"] == 0 and marked.points["3.2"] == FULL


def test_a_loop_without_end_costs_the_answer_and_no_other(mark, monkeypatch):
    monkeypatch.setattr(marking, "ANSWER_SECONDS", 1)
    marked = mark("3", {"3.1": "def running_mean(x):\n    while True:\n        pass", "3.2": RIGHT})
    assert marked.points["3.1"] == 0 and "loop without end" in marked.said["3.1"]
    assert marked.points["3.2"] == FULL


def test_an_answer_that_sleeps_is_ended_too(mark, monkeypatch):
    monkeypatch.setattr(marking, "ANSWER_SECONDS", 1)
    began = time.monotonic()
    marked = mark("3", {"3.1": "import time\ndef running_mean(x):\n    time.sleep(1000)", "3.2": RIGHT})
    assert marked.points["3.1"] == 0 and marked.points["3.2"] == FULL
    assert time.monotonic() - began < 25


def test_many_processes_are_refused_and_ended(mark):
    bomb = """
    import os
    def running_mean(x):
        for _ in range(1000):
            if os.fork() == 0:
                while True:
                    pass
    """
    marked = mark("3", {"3.1": textwrap.dedent(bomb), "3.2": RIGHT})
    assert marked.points["3.1"] == 0 and marked.points["3.2"] == FULL


@pytest.mark.parametrize(
    "action", ["os._exit(0)", "os.kill(os.getpid(), 9)", "os.kill(os.getppid(), 9)", "os.abort()", "sys.exit(3)"]
)
def test_an_answer_that_ends_its_process_costs_no_other(mark, action):
    marked = mark("3", {"3.1": f"import os, sys\ndef running_mean(x):\n    {action}", "3.2": RIGHT})
    assert marked.points["3.1"] == 0 and marked.points["3.2"] == FULL


def test_a_disk_that_is_filled_harms_nobody(mark):
    fill = """
    def running_mean(x):
        for number in range(100):
            with open(f"/tmp/{number}", "wb") as file:
                file.write(b"x" * 2**25)
    """
    marked = mark("3", {"3.1": textwrap.dedent(fill), "3.2": RIGHT})
    assert marked.points["3.1"] == 0 and marked.points["3.2"] == FULL


# The end -------------------------------------------------------------------------------------------------------


def test_nothing_survives_the_end(needs_sandbox):
    before = family()
    made = Sandbox(needs_sandbox)
    made._start()
    grown = family() - before
    assert grown and memory_of(made._process.pid) > 0
    made.close()
    deadline = time.monotonic() + 5
    while family() & grown and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not family() & grown


def test_the_end_may_come_twice_or_before_the_start(needs_sandbox):
    made = Sandbox(needs_sandbox)
    made.close()
    made._start()
    made.close()
    made.close()


def test_a_sandbox_that_died_starts_again(fresh):
    fresh._start()
    for process in psutil.Process(fresh._process.pid).children(recursive=True):
        process.kill()
    assert fresh.ask("exercise", {}, b"", 1) == ("dead", b"")
    assert fresh.ask("exercise", {}, b"", 1)[0] == "dead"  # started again; no notebook was loaded
    assert fresh._process is not None


def test_without_a_notebook_there_is_no_answer(fresh):
    assert fresh.ask("exercise", {"reveal": []}, b"", 1) == ("dead", b"")
