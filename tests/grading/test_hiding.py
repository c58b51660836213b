"""No name of the course earns a point where it is asked for, and all may be used where they are known."""

import ast
import inspect
import json
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
from utils.grading.course import chapters, names_of
from utils.grading.hiding import (
    course_order,
    module_texts,
    references,
    revealed_before,
    source_of,
    texts_for,
    without,
)
from utils.grading.inside.wire import pack, unpack
from utils.release import ROOT

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
    names = set(texts_for(chapter))
    assert not [name for name in names if name.startswith("utils.grading")]
    assert {name for name in names if name.startswith("utils.checks")} == {
        "utils.checks",
        "utils.checks.forbidden",
        *(name for name in module_texts() if name.startswith("utils.checks.probes")),
    }


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
        for (module, name), answer in zip(references(exercise), as_answers(EXERCISES[exercise].reference), strict=False):
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
        self.context_length = context_length
        self.W_query, self.W_key, self.W_value = (nn.Linear(d_in, d_out, bias=qkv_bias) for _ in range(3))
        self.dropout = nn.Dropout(dropout)
    def forward(self, x):
        if x.shape[-2] > self.context_length:
            raise ValueError(f"{x.shape[-2]} tokens are too many for {self.context_length}")
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

import importlib, inspect, os, signal, sys

folder, order = sys.argv[1:]
sys.path.insert(0, os.path.join(folder, "utils", "grading", "inside"))
import course, json

order = json.load(open(order))
sys.meta_path.insert(0, course.CourseFinder(order["texts"]))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import wire

forbidden = importlib.import_module("utils.checks.forbidden")
observe = importlib.import_module("utils.checks.probes.observe")
probes = importlib.import_module(order["probes"]).PROBES


class TooSlow(Exception):
    pass


def too_slow(*_):
    raise TooSlow


signal.signal(signal.SIGALRM, too_slow)
names = {}
for module in order["modules"]:
    for name, value in vars(importlib.import_module(module)).items():
        if name.startswith("_") or not callable(value) or not getattr(value, "__module__", "").startswith("utils"):
            continue
        names.setdefault(f"{value.__module__}.{name}", value)
        if inspect.isclass(value):
            for key in vars(value):
                if not key.startswith("_") and callable(getattr(value, key)):
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
        if inspect.isclass(value) != exercise["is_class"] and not (exercise["is_class"] is False):
            continue
        watch = forbidden.Watch(exercise["forbid"])
        answer = (value,) * exercise["answers"] if exercise["answers"] > 1 else value
        signal.setitimer(signal.ITIMER_REAL, 5)
        try:
            seen = {}
            with watch:
                for part, probe in probes[exercise["id"]].items():
                    seen[part] = list(observe.trials(probe, answer, cases[part]))
        except BaseException:
            seen = {}
        signal.setitimer(signal.ITIMER_REAL, 0)
        if not watch.used and any("Raised" not in str(o)[:40] for part in seen.values() for o in part):
            try:
                found[name] = wire.pack(seen)
            except BaseException:
                pass
    with open(exercise["found"], "wb") as file:
        for name, message in found.items():
            file.write(name.encode() + b"\\n" + str(len(message)).encode() + b"\\n" + message)
    os._exit(0)
'''
NOT_TRIED = {"utils.fetching", "utils.hub", "utils.data", "utils.distributed", "utils.environment"}  # reach outside


@pytest.fixture(scope="module")
def wire_folder(tmp_path_factory) -> Path:
    """The wire module where the program finds it as a module of its own, as in the sandbox."""
    folder = tmp_path_factory.mktemp("tries")
    (folder / "tries.py").write_text(TRIES)
    return folder


def earned(exercise: Exercise, seen: Any) -> int:
    """The points that what was seen earns."""
    yardstick = Yardstick(exercise, SEED)
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


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_no_other_name_of_the_course_earns_a_point(wire_folder, chapter):
    exercises = []
    for exercise_id in of_chapter(chapter):
        exercise = EXERCISES[exercise_id]
        stem = wire_folder / exercise_id
        stem.with_suffix(".cases").write_bytes(pack(Yardstick(exercise, SEED).inputs))
        exercises.append(
            {
                "id": exercise_id,
                "cases": f"{stem.with_suffix('.cases')}",
                "found": f"{stem.with_suffix('.found')}",
                "forbid": sorted(exercise.forbid),
                "answers": exercise.num_answers,
                "is_class": isinstance(as_answers(exercise.reference)[0], type),
                "reveal": [],
            }
        )
    known: list[Any] = []
    for order in exercises:
        new = [definition for definition in revealed_before(order["id"]) if definition not in known]
        order["reveal"], known = new, known + new
    modules = sorted(m for m in module_texts() if m.count(".") == 1 and m != "utils.checks" and m not in NOT_TRIED)
    order = {
        "texts": texts_for(chapter),
        "probes": f"utils.checks.probes.chapter{int(chapter):02}",
        "modules": modules,
        "exercises": exercises,
    }
    (wire_folder / f"{chapter}.json").write_text(json.dumps(order))
    done = subprocess.run(
        [sys.executable, wire_folder / "tries.py", ROOT, wire_folder / f"{chapter}.json"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=wire_folder,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    giveaways = {}
    for order in exercises:
        for name, message in messages_in(Path(order["found"])):
            if points := earned(EXERCISES[order["id"]], unpack(message)):
                giveaways[f"{order['id']}: {name}"] = points
    assert not giveaways
