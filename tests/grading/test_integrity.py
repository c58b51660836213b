"""A guard notices what changes the probes' ground, undoes it, and stays silent about ordinary work."""

import json
import math
import subprocess
import sys
import textwrap

import pytest
from answer_variants import variants
from classroom import CHAPTERS, exercises_in

from utils.grading.hiding import module_texts
from utils.grading.inside.integrity import Guard
from utils.release import ROOT

START = """
import builtins, copy, inspect, json, math, os, random, sys
import numpy as np
import torch
from torch import nn
import torch.nn.functional as F
import utils.checks.probes.observe as observe
from utils.grading.inside.integrity import Guard
texts = json.load(sys.stdin)
guard = Guard(texts)
"""
END = "\nprint(json.dumps([guard.restore(), guard.restore()]))\n"
PROBES = [text for name, text in module_texts().items() if name.startswith("utils.checks.probes.")]


def after(code: str, then: str = "") -> list[list[str]]:
    """What a guard says once this code has run, and what it says right after; in a process of its own."""
    program = START + textwrap.dedent(code) + END + textwrap.dedent(then)
    done = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(PROBES), capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


TAMPERING = {
    "torch.equal = lambda *_: True": "torch.equal",
    "torch.allclose = lambda *_, **__: True": "torch.allclose",
    "torch.randn = torch.zeros": "torch.randn",
    "torch.Tensor.__eq__ = lambda *_: True": "__eq__",
    "torch.Tensor.detach = lambda self: self": "detach",
    "torch.Tensor.clone = lambda self, **_: self": "clone",
    "nn.Module.named_parameters = lambda *_: []": "named_parameters",
    "nn.Module.__call__ = lambda *_: 0": "__call__",
    "observe.attempt = lambda action: 3": "observe.attempt",
    "observe.attempt.__code__ = (lambda action: 3).__code__": "attempt",
    "observe.Raised = str": "observe.Raised",
    "builtins.round = lambda *_: True": "builtins.round",
    "observe.isinstance = lambda *_: True": "isinstance",
    "torch.isinstance = lambda *_: True": "isinstance",
    "torch.autograd.grad = lambda *_, **__: [None]": "torch.autograd.grad",
    "torch.overrides.TorchFunctionMode().__enter__()": "TorchFunctionMode",
    "class Mode(torch.overrides.TorchFunctionMode):\n    pass\nMode().__enter__()": "Mode",
}


def test_every_change_is_noticed_and_undone():
    """All in one process: each is undone before the next is made."""
    program = START + "found = {}\n"
    for code in TAMPERING:
        program += f"exec({code!r})\nfound[{code!r}] = [guard.restore(), guard.restore()]\n"
    program += "print(json.dumps(found))"
    done = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(PROBES), capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for code, (first, second) in json.loads(done.stdout.splitlines()[-1]).items():
        assert any(TAMPERING[code] in name for name in first), f"{code}: {first}"
        assert not second, f"{code}: not undone: {second}"


def test_a_builtin_that_restoring_uses_is_undone_too():
    first, second = after("builtins.isinstance = lambda *_: True")
    assert first == ["builtins.isinstance"] and not second


def test_the_guard_itself_can_not_be_switched_off(mark):
    before = (
        "import sys, torch\nsys.modules['integrity'].Guard.restore = lambda self: []\ntorch.allclose = lambda *_: True"
    )
    flags = mark("3", {"3.2": "def causal_softmax(scores):\n    return scores"}, [before]).flags
    assert any("changes what PyTorch" in flag for flag in flags)


def test_ordinary_work_changes_nothing():
    first, _ = after(
        """
        torch.manual_seed(3)
        torch.set_default_dtype(torch.float64)
        torch.set_printoptions(precision=2)
        torch.set_num_threads(1)
        np.random.seed(3), random.seed(3)
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Dropout(0.5), nn.LayerNorm(4), nn.Linear(4, 2))
        optimizer = torch.optim.AdamW(model.parameters())
        for _ in range(2):
            F.cross_entropy(model(torch.randn(5, 3)), torch.tensor([0, 1, 0, 1, 1])).backward()
            optimizer.step(), optimizer.zero_grad()
        nn.MultiheadAttention(4, 2)(torch.ones(2, 3, 4), torch.ones(2, 3, 4), torch.ones(2, 3, 4))
        F.scaled_dot_product_attention(*[torch.ones(1, 2, 3, 4)] * 3, is_causal=True)
        class Mine(nn.Module):
            def __call__(self, x): return super().__call__(x)
            def forward(self, x): return x
        Mine()(torch.ones(1))
        model.register_forward_hook(lambda *_: None)
        import warnings; warnings.simplefilter("ignore")
        sys.setrecursionlimit(5000); sys.path.append("/tmp")
        with torch.no_grad(), torch.inference_mode(): torch.ones(2) * 2
        torch.save(model.state_dict(), __import__("io").BytesIO())
        from torch.utils.data import DataLoader
        list(DataLoader([1, 2]))
        """
    )
    assert first == []


def test_a_guard_in_this_process_restores_what_it_watches():
    guard, right = Guard(["math.floor"]), math.floor
    math.floor = len
    assert guard.restore() == ["math.floor"]
    assert math.floor is right and guard.restore() == []


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_right_answers_leave_the_guard_silent(mark, chapter):
    """The last of the right answers to each exercise; those before are tried in ``measure`` runs of a class."""
    exercises = exercises_in(chapter)
    answers = {e: [v for v in variants(e) if v.kind == "right"][-1:] for e in exercises}
    sources = {e: found[0].source for e, found in answers.items() if found}
    flags = mark(str(int(chapter.stem[:2])), sources).flags
    assert not [flag for flag in flags if "changes" in flag]


def test_an_answer_that_changes_the_ground_while_it_is_tried_earns_nothing(mark):
    source = """
    import torch
    def causal_softmax(scores):
        torch.allclose = torch.equal = lambda *_, **__: True
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        return scores.masked_fill(~mask, float("-inf")).softmax(-1)
    """
    marked = mark("3", {"3.2": textwrap.dedent(source)})
    assert marked.points["3.2"] == 0 and "not its own to change" in marked.said["3.2"]
    assert any("exercise 3.2 changes" in flag for flag in marked.flags)


def test_a_cell_that_changes_the_ground_is_flagged_and_gains_nothing(mark):
    before = ["import torch\ntorch.equal = torch.allclose = lambda *_, **__: True"]
    marked = mark("3", {"3.2": "def causal_softmax(scores):\n    return scores"}, before)
    assert marked.points["3.2"] == 0
    assert any("changes what PyTorch or the checks are made of: torch." in flag for flag in marked.flags)
