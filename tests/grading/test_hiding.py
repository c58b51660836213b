"""No name of the course earns a point where it is asked for, and all may be used where they are known."""

import ast
import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from utils.checks import EXERCISES
from utils.checks.exercise import Exercise, as_answers, well_formed
from utils.checks.run import row_for
from utils.checks.yardstick import Yardstick
from utils.grading.course import chapters
from utils.grading.hiding import (
    UTILS,
    course_order,
    module_texts,
    references,
    revealed_before,
    shared_texts,
    source_of,
    texts_for,
    without,
)
from utils.grading.inside.wire import pack, unpack

pytestmark = pytest.mark.usefixtures("one_thread")
CHAPTERS = sorted({exercise.split(".")[0] for exercise in EXERCISES}, key=int)
SEED = 11


def of_chapter(chapter: str) -> list[str]:
    """The exercises of a chapter, in the notebook's order."""
    return list(chapters()[chapter].answers)


# Texts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_references_of_the_chapter_and_later_ones_are_hidden_and_no_others(chapter):
    texts, hidden = texts_for(chapter), {"is what exercise"}
    for exercise in course_order():
        for module, name in references(exercise):
            node = next(n for n in ast.parse(texts[module]).body if getattr(n, "name", "") == name)
            is_hidden = any(text in ast.unparse(node) for text in hidden)
            assert is_hidden == (int(exercise.split(".")[0]) >= int(chapter)), f"{module}.{name}"


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_neither_checks_nor_marking_are_in_the_texts(chapter):
    names = {*shared_texts(), *texts_for(chapter)}
    assert not [name for name in names if name.startswith("utils.grading")]
    known = {"utils.checks", "utils.checks.forbidden"}  # how to try an answer, and nothing of how to judge it
    assert {name for name in names if name.startswith("utils.checks") and ".probes" not in name} == known


def test_a_hidden_function_keeps_its_signature_and_loses_its_body():
    text = "@decorated\ndef f(x: int, *, y=2) -> int:\n    '''What it does.'''\n    return x + y\nz = 1"
    hidden = without(text, {"f": "1.1"})
    assert "def f(x: int, *, y=2) -> int:" in hidden and "x + y" not in hidden and "z = 1" in hidden


def test_a_hidden_class_keeps_its_bases_and_loses_everything_else():
    hidden = without("class A(B):\n    C = 3\n    def f(self):\n        return 3", {"A": "1.1"})
    assert "class A(B)" in hidden and "C = 3" not in hidden and "def f" not in hidden


def test_a_name_that_is_not_there_can_not_be_hidden():
    with pytest.raises(KeyError, match="g"):
        without("def f(): pass", {"g": "1.1"})


def test_what_is_revealed_comes_from_earlier_exercises_of_the_same_chapter():
    for exercise in EXERCISES:
        earlier = of_chapter(exercise.split(".")[0])[: of_chapter(exercise.split(".")[0]).index(exercise)]
        known = {(module, name) for e in earlier for module, name in references(e)}
        revealed = {(module, name) for module, name, _ in revealed_before(exercise)}
        assert revealed == known - set(references(exercise))


def test_a_source_has_its_decorators():
    for exercise in EXERCISES:
        for module, name in references(exercise):
            node = ast.parse(source_of(module, name)).body[0]
            whole = next(n for n in ast.parse(module_texts()[module]).body if getattr(n, "name", "") == name)
            assert ast.unparse(node) == ast.unparse(whole)


# Handed in as the answer -------------------------------------------------------------------------------------


def handed_over(exercise: str) -> str:
    """An answer cell that gives the course's own definitions as the answer."""
    lines = [f"import {module}\n{name} = {module}.{name}" for module, name in references(exercise)]
    return "\n".join(lines)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_reference_itself_earns_nothing(mark, chapter):
    answers = {exercise: handed_over(exercise) for exercise in of_chapter(chapter) if references(exercise)}
    points = mark(chapter, answers).points
    assert {exercise: points[exercise] for exercise in answers} == dict.fromkeys(answers, 0)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_wrapper_or_subclass_of_the_reference_earns_nothing(mark, chapter):
    answers = {}
    for exercise in of_chapter(chapter):
        lines = []
        for (module, name), answer in zip(
            references(exercise), as_answers(EXERCISES[exercise].reference), strict=False
        ):
            lines += [f"import {module} as course"]
            if isinstance(answer, type):
                lines += [f"class {name}(course.{name}):\n    pass"]
            else:
                lines += [f"def {name}(*args, **kwargs):\n    import {module} as course"]
                lines += [f"    return course.{name}(*args, **kwargs)"]
        if lines:
            answers[exercise] = "\n".join(lines)
    points = mark(chapter, answers).points
    assert {exercise: points[exercise] for exercise in answers} == dict.fromkeys(answers, 0)


EARLIER = {
    "3.5": """
import torch
from torch import nn
from utils.masking import causal_softmax
class CausalAttention(nn.Module):
    def __init__(self, d_in, d_out, context_length, dropout=0.0, qkv_bias=False):
        super().__init__()
        self.register_buffer("mask", torch.ones(context_length, context_length).tril())
        self.W_query, self.W_key, self.W_value = (nn.Linear(d_in, d_out, bias=qkv_bias) for _ in range(3))
        self.dropout = nn.Dropout(dropout)
    def forward(self, x):
        if x.shape[-2] > len(self.mask):
            raise ValueError(f"{x.shape[-2]} tokens are too many for {len(self.mask)}")
        q, k, v = self.W_query(x), self.W_key(x), self.W_value(x)
        return self.dropout(causal_softmax(q @ k.transpose(-1, -2) / k.shape[-1] ** 0.5)) @ v
""",
    "4.1": """
import torch
from torch import nn
from utils.attention import CausalAttention
class MultiHeadAttentionWrapper(nn.Module):
    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        super().__init__()
        one = (d_in, d_out, context_length, dropout, qkv_bias)
        self.heads = nn.ModuleList([CausalAttention(*one) for _ in range(num_heads)])
    def forward(self, x):
        return torch.cat([head(x) for head in self.heads], dim=-1)
""",
    "4.5": """
from utils.attention import MultiHeadAttention
def gpt2_attention():
    return MultiHeadAttention(768, 768, 1024, 0.1, 12)
""",
    "6.4": """
from torch import nn
from utils.attention import MultiHeadAttention
from utils.gpt import FeedForward, LayerNorm
class TransformerBlock(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.att = MultiHeadAttention(
            cfg.emb_dim, cfg.emb_dim, cfg.context_length, cfg.drop_rate, cfg.n_heads, cfg.qkv_bias
        )
        self.ff, self.norm1, self.norm2 = FeedForward(cfg), LayerNorm(cfg.emb_dim), LayerNorm(cfg.emb_dim)
        self.drop_shortcut = nn.Dropout(cfg.drop_rate)
    def forward(self, x):
        x = x + self.drop_shortcut(self.att(self.norm1(x)))
        return x + self.drop_shortcut(self.ff(self.norm2(x)))
""",
}


@pytest.mark.parametrize("exercise", EARLIER)
def test_the_reference_of_an_earlier_exercise_may_be_used(mark, exercise):
    marked = mark(exercise.split(".")[0], {exercise: EARLIER[exercise]})
    assert marked.points[exercise] == EXERCISES[exercise].points, marked.said[exercise]


@pytest.mark.parametrize("exercise", EARLIER)
def test_it_may_be_imported_long_before_it_is_revealed(mark, exercise):
    """The notebook's first cells import all they use, when the chapter's own references are still hidden."""
    lines = EARLIER[exercise].strip().splitlines()
    imports = [line for line in lines if line.startswith(("import", "from"))]
    rest = "\n".join(line for line in lines if line not in imports)
    marked = mark(exercise.split(".")[0], {exercise: rest}, before=["\n".join(imports)])
    assert marked.points[exercise] == EXERCISES[exercise].points, marked.said[exercise]


def test_a_hidden_reference_says_which_exercise_asks_for_it(mark):
    marked = mark("3", {"3.2": "from utils.masking import causal_softmax as theirs\ncausal_softmax = theirs"})
    assert "exercise 3.2 asks for" in marked.said["3.2"]


# Every name of the course, for every exercise ------------------------------------------------------------------

TRIES = '''
"""Tries every public name of the course as the answer to every exercise of a chapter, each in a process of its own."""

import importlib, inspect, json, os, signal, socket, subprocess, sys

inside, order = sys.argv[1:]
ALL = bool(os.environ.get("GRADING_ALL_NAMES"))  # also those with an underscore in front
sys.path.insert(0, inside)
import course

order = json.load(open(order))
sys.meta_path.insert(0, course.CourseFinder(order["texts"]))
import wire

forbidden = importlib.import_module("utils.checks.forbidden")
observe = importlib.import_module("utils.checks.probes.observe")
probes = importlib.import_module(order["probes"]).PROBES


class TooSlow(KeyboardInterrupt):  # the one kind that trying an answer lets through
    pass


def refuse(*_, **__):
    raise OSError("nothing is fetched here")


socket.create_connection = socket.getaddrinfo = subprocess.Popen.__init__ = refuse


def too_slow(*_):
    raise TooSlow


signal.signal(signal.SIGALRM, too_slow)
names = {}
for module in order["modules"]:
    for name, value in vars(importlib.import_module(module)).items():
        is_ours = callable(value) and getattr(value, "__module__", "").startswith("utils")
        if not is_ours or (name.startswith("_") and not ALL):
            continue
        names.setdefault(f"{value.__module__}.{name}", value)
        if inspect.isclass(value):
            for key in vars(value):
                if (ALL or not key.startswith("_")) and callable(getattr(value, key)):
                    names.setdefault(f"{value.__module__}.{name}.{key}", getattr(value, key))

for exercise in order["exercises"]:
    for definition in exercise["reveal"]:
        course.reveal(*definition)
    if os.fork():
        os.wait()
        continue
    cases = wire.unpack(open(exercise["cases"], "rb").read())
    found = {}
    for name, value in names.items():
        if exercise["is_class"] and not inspect.isclass(value):
            continue
        watch = forbidden.Watch(exercise["forbid"])
        answer = (value,) * exercise["answers"] if exercise["answers"] > 1 else value
        signal.setitimer(signal.ITIMER_REAL, 3)
        try:
            seen = {}
            with watch:
                parts = probes[exercise["id"]].items()
                first = [o for part, probe in parts for o in observe.trials(probe, answer, cases[part][:1])]
                if any(not isinstance(value, observe.Raised) for o in first for value in o.values()):
                    seen = {part: list(observe.trials(probe, answer, cases[part])) for part, probe in parts}
        except BaseException:
            seen = {}
        signal.setitimer(signal.ITIMER_REAL, 0)
        if seen and not watch.used:
            found[name] = wire.pack(seen)
    with open(exercise["found"], "wb") as file:
        for name, message in found.items():
            file.write(name.encode() + b"\\n" + str(len(message)).encode() + b"\\n" + message)
    os._exit(0)
'''
# these reach outside or know nothing
NOT_TRIED = {f"utils.{name}" for name in ("fetching", "hub", "data", "distributed", "environment", "checks")}


@functools.cache
def yardstick_of(exercise_id: str) -> Yardstick:
    """An exercise's cases; the reference is tried on them once."""
    return Yardstick(EXERCISES[exercise_id], SEED)


def earned(exercise: Exercise, seen: Any) -> int:
    """The points that what was seen earns."""
    yardstick = yardstick_of(exercise.id)
    formed = well_formed(seen, yardstick.inputs)
    faults = exercise.judge(formed, yardstick.expected, yardstick.inputs)
    return sum(row_for(part, faults, formed, False).points for part in exercise.parts)


def messages_in(path: Path) -> Iterator[tuple[str, bytes]]:
    """What the program wrote for one exercise."""
    content = path.read_bytes()
    while content:
        name, length, content = content.split(b"\n", 2)
        yield name.decode(), content[: int(length)]
        content = content[int(length) :]


def giveaways(chapter: str, texts: dict[str, str], folder: Path) -> dict[str, int]:
    """By exercise and name, the points that names of the course earn as answers where the course reads like this."""
    (folder / "tries.py").write_text(TRIES, encoding="utf-8")
    exercises, known = [], []
    for exercise_id in of_chapter(chapter):
        exercise = EXERCISES[exercise_id]
        cases, found = folder / f"{exercise_id}.cases", folder / f"{exercise_id}.found"
        cases.write_bytes(pack(yardstick_of(exercise_id).inputs))
        revealed = [list(d) for d in revealed_before(exercise_id)] if texts != module_texts() else []
        exercises.append(
            {
                "id": exercise_id,
                "cases": str(cases),
                "found": str(found),
                "forbid": sorted(exercise.forbid),
                "answers": exercise.num_answers,
                "is_class": isinstance(as_answers(exercise.reference)[0], type),
                "reveal": [definition for definition in revealed if definition not in known],
            }
        )
        known += exercises[-1]["reveal"]
    order = {
        "texts": texts,
        "probes": f"utils.checks.probes.chapter{int(chapter):02}",
        "modules": sorted(m for m in texts if m.startswith("utils.") and m not in NOT_TRIED),
        "exercises": exercises,
    }
    (folder / "order.json").write_text(json.dumps(order), encoding="utf-8")
    command = [sys.executable, folder / "tries.py", UTILS / "grading" / "inside", folder / "order.json"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120, cwd=folder)
    return {
        f"{order['id']}: {name}": points
        for order in exercises
        for name, message in messages_in(Path(order["found"]))
        if (points := earned(EXERCISES[order["id"]], unpack(message)))
    }


@pytest.mark.parametrize("chapter", CHAPTERS if os.environ.get("GRADING_ALL_NAMES") else ("1", "2", "5"))
def test_no_name_of_the_course_earns_a_point(chapter, tmp_path):
    assert giveaways(chapter, shared_texts() | texts_for(chapter), tmp_path) == {}


def test_a_name_that_is_not_hidden_would_be_found(tmp_path):
    """Otherwise the test above would say little."""
    found = giveaways("1", module_texts(), tmp_path)
    for exercise in of_chapter("1"):
        (reference,) = references(exercise)
        assert found[f"{exercise}: {reference.module}.{reference.name}"] == EXERCISES[exercise].points
