"""Mutants of the references: one small change each. What the checks accept must behave like the reference.

Every mutant that earns full points is compared with the reference on many more random cases, written here
independently of the probes. A mutant that differs there but passed the check is a hole in the check.
"""

import __future__

import ast
import copy
import inspect
import signal
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import torch
from stress import STRESS
from stress.draws import outcome

from utils.checks import EXERCISES
from utils.checks.exercise import Exercise, as_answers
from utils.checks.run import SEED, undisturbed

# at least so many per chapter
MUTANTS_WANTED = {"1": 40, "2": 90, "3": 180, "4": 180, "5": 60, "6": 400, "7": 100, "8": 140}
MUTANTS_OF_ATTENTION = 200  # at least so many in chapters 1 to 4 together
SECONDS = 2  # per mutant; a loop without end is stopped and earns nothing

pytestmark = pytest.mark.usefixtures("one_thread")


# Making mutants -------------------------------------------------------------------------------------

SWAPS: dict[type, tuple[type, ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult, ast.FloorDiv),
    ast.FloorDiv: (ast.Div,),
    ast.Pow: (ast.Mult,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
NAMES = {
    "min": "max",
    "max": "min",
    "amax": "amin",
    "amin": "amax",
    "sum": "mean",
    "mean": "sum",
    "exp": "exp2",
    "log": "log2",
    "sorted": "list",
    "double": "half",
    "float": "double",
    "eval": "train",
    "len": "id",
}


def constants(value: Any) -> list[Any]:
    """Other constants that someone might have written."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return list(dict.fromkeys([value + 1, value - 1, -value, 0])) if value else [1, -1]
    return [value * 2, -value] if isinstance(value, float) else []


def changes(node: ast.AST) -> Iterator[Callable[[], None]]:
    """Every change of this one node, as an action upon it."""
    if isinstance(node, ast.BinOp | ast.AugAssign):
        for kind in SWAPS.get(type(node.op), ()):
            yield lambda kind=kind: setattr(node, "op", kind())
        if isinstance(node, ast.BinOp):
            yield lambda: (lambda left: (setattr(node, "left", node.right), setattr(node, "right", left)))(node.left)
    if isinstance(node, ast.Compare):
        for kind in SWAPS.get(type(node.ops[0]), ()):
            yield lambda kind=kind: node.ops.__setitem__(0, kind())
    if isinstance(node, ast.Constant):
        for value in constants(node.value):
            yield lambda value=value: setattr(node, "value", value)
    if isinstance(node, ast.Call):
        for position in range(len(node.keywords)):
            yield lambda position=position: node.keywords.pop(position)
        if len(node.args) == 2:
            yield lambda: node.args.reverse()
        if node.args:
            yield lambda: node.args.pop()
    if isinstance(node, ast.If | ast.IfExp):
        yield lambda: setattr(node, "test", ast.UnaryOp(ast.Not(), node.test))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield lambda: setattr(node, "op", ast.UAdd())
    if isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield lambda: setattr(node, "attr", NAMES[node.attr])
    if isinstance(node, ast.Name) and node.id in NAMES:
        yield lambda: setattr(node, "id", NAMES[node.id])
    if isinstance(node, ast.Slice):
        yield lambda: (setattr(node, "lower", None), setattr(node, "upper", None))
    for name in ("body", "orelse"):
        block = getattr(node, name, None)
        if isinstance(block, list):
            for position, statement in enumerate(block):
                if not is_docstring(statement):
                    yield lambda block=block, position=position: block.__setitem__(position, ast.Pass())
    for name, value in ast.iter_fields(node):  # `x.sum(...)` becomes `x`
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
            yield lambda name=name, inner=value.func.value: setattr(node, name, inner)


def is_docstring(statement: ast.AST) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and is_docstring(node.body[0]) and len(node.body) > 1:
            node.body.pop(0)
    return tree


def mutated_sources(answer: Any) -> list[str]:
    """The source of an answer with one change each, every text once."""
    tree = without_docstrings(ast.parse(textwrap.dedent(inspect.getsource(answer))))
    texts = {ast.unparse(tree): None}
    for number, node in enumerate(ast.walk(tree)):
        for position in range(sum(1 for _ in changes(node))):
            mutant = copy.deepcopy(tree)
            place = list(ast.walk(mutant))[number]
            list(changes(place))[position]()
            with suppress(ValueError, RecursionError):
                texts[ast.unparse(ast.fix_missing_locations(mutant))] = None
    return list(texts)[1:]


def built(answer: Any, source: str) -> Any:
    """The mutant, in a copy of its module's namespace; None where the source no longer makes one."""
    namespace = dict(vars(inspect.getmodule(inspect.unwrap(answer))))
    with suppress(Exception):
        exec(
            compile(source, "<mutant>", "exec", __future__.annotations.compiler_flag), namespace
        )  # the source is the reference's own, changed above
        return namespace[answer.__name__]
    return None


# Comparing with the reference -----------------------------------------------------------------------


class TimeIsUpError(BaseException):
    """A mutant that runs without end; no Exception, so that no mutant catches it."""


@contextmanager
def time_limit(seconds: int):
    def stop(number, frame):
        raise TimeIsUpError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.1)  # again and again, should the check report it as an error
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def equal(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        close = first.is_floating_point() and second.is_floating_point()
        same = first.shape == second.shape and first.dtype == second.dtype
        tolerance = {"rtol": 1e-4, "atol": 1e-5} if close else {"rtol": 0, "atol": 0}
        return same and torch.allclose(first, second, equal_nan=True, **tolerance)
    if isinstance(first, tuple | list) and isinstance(second, tuple | list):
        return len(first) == len(second) and all(map(equal, first, second))
    return type(first) is type(second) and first == second


TRIES = {"4.5": 2, "5.2": 6, "6.4": 8, "6.5": 4, "6.7": 8, "7.6": 15, "7.7": 3, "8.1": 15, "8.3": 15}


def first_difference(exercise: Exercise, mutant: Any) -> str:
    """Where a mutant and the reference part ways; empty if they never do."""
    stress = STRESS[exercise.id]
    for seed in range(TRIES.get(exercise.id, 40)):
        seen = []
        for answer in (mutant, exercise.reference):
            torch.manual_seed(0)
            generator = torch.Generator().manual_seed(seed)
            seen.append(outcome(lambda a=answer, g=generator: stress(a, g)))
        if not equal(*seen):
            return f"seed {seed}: got {seen[0]!r}, expected {seen[1]!r}"
    return ""


# The tests ------------------------------------------------------------------------------------------


def chooses_another_kernel(answer: Any, source: str) -> bool:
    """Whether a mutant only takes the fused kernel or leaves it: right, but not equal to the last bit."""
    original = ast.unparse(without_docstrings(ast.parse(textwrap.dedent(inspect.getsource(answer)))))
    lost = set(original.splitlines()) - set(source.splitlines())
    return bool(lost) and all("fused" in line for line in lost)


def variants(exercise: Exercise) -> list[tuple[str, Any]]:
    """All mutants of an exercise: the answer, or one of its answers, changed in one place."""
    answers = as_answers(exercise.reference)
    found = []
    for place, answer in enumerate(answers):
        for source in mutated_sources(answer):
            if chooses_another_kernel(answer, source):
                continue
            mutant = built(answer, source)
            if isinstance(mutant, type) == isinstance(answer, type) and callable(mutant):
                found.append((source, (*answers[:place], mutant, *answers[place + 1 :])))
    return found


COVERED = [exercise for exercise in EXERCISES.values() if exercise.id in STRESS]


@pytest.mark.parametrize("exercise", COVERED, ids=lambda exercise: exercise.id)
def test_mutants_that_pass_behave_like_the_reference(exercise, record_property):
    mutants, accepted, holes = variants(exercise), 0, []
    inputs = exercise.inputs(torch.Generator().manual_seed(SEED))
    expected = exercise.probe(exercise.reference, inputs)
    for source, answers in mutants:
        answer = answers if len(answers) > 1 else answers[0]
        with suppress(TimeIsUpError), time_limit(SECONDS):
            with undisturbed(answers):  # what `check` does, without looking for the mistake's name
                faults = exercise.judge(exercise.probe(answer, inputs), expected, inputs)
            if not any(faults.values()):
                accepted += 1
                if found := first_difference(exercise, answer):
                    holes.append(f"{source}\n{found[:500]}")
    record_property("mutants", len(mutants))
    record_property("equal", accepted - len(holes))
    assert not holes, f"{len(holes)} of {len(mutants)} mutants passed though they differ:\n\n" + "\n\n".join(holes)
    assert accepted < len(mutants)


def test_there_are_enough_mutants():
    counts: dict[str, int] = {}
    for exercise in COVERED:
        chapter = exercise.id.split(".")[0]
        counts[chapter] = counts.get(chapter, 0) + len(variants(exercise))
    assert all(counts[chapter] >= wanted for chapter, wanted in MUTANTS_WANTED.items()), counts
    assert sum(counts.get(chapter, 0) for chapter in "1234") >= MUTANTS_OF_ATTENTION, counts


def test_the_stress_comparison_tells_answers_apart():
    """It finds each misconception that changes numbers; without it, holes would go unseen."""
    for exercise in COVERED:
        assert first_difference(exercise, exercise.reference) == ""
        told_apart = [m for m in exercise.misconceptions if first_difference(exercise, m.answer)]
        assert len(told_apart) >= len(exercise.misconceptions) / 2


def test_a_loop_without_end_is_stopped():
    with pytest.raises(TimeIsUpError), time_limit(1):
        while True:
            pass
