"""Every answer to an exercise that this repository knows, right or wrong, as a learner would write it in a cell.

>>> variants("1.1")[0].kind
'solution'
"""

import ast
import functools
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import course_path  # noqa: F401
import nbformat
from answer_sources import CannotCopyError, Place, Source, Thing, answer_source, bound_by, imported
from nbformat import NotebookNode

from utils.checks import EXERCISES, check
from utils.checks.exercise import as_answers
from utils.release import NOTEBOOKS, SOLUTIONS, role_of

MARKS = re.compile(r"^[ \t]*### (BEGIN|END) SOLUTION[ \t]*\n?", re.M)


@dataclass(frozen=True)
class Variant:
    """One answer to an exercise.

    Attributes:
        exercise: its id.
        kind: "solution", "right", "misconception", "mistake" or "stub".
        name: what tells it from others of its kind.
        source: the text of the answer cell.
    """

    exercise: str
    kind: str
    name: str
    source: str
    _answer: Any = field(default=None, repr=False, compare=False)

    @cached_property
    def points(self) -> int:
        """What it deserves: for a wrong answer what ``check`` gives the object that the source was made from."""
        if self.kind == "stub":
            return 0
        if self.kind in ("solution", "right"):
            return EXERCISES[self.exercise].points
        return check(self.exercise, *as_answers(self._answer)).points

    @cached_property
    def binds(self) -> dict[str, str]:
        """What each name of the cell's top level is bound to, as text: two answers that differ there clash."""
        found: dict[str, str] = {}
        for statement in ast.parse(self.source).body:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                found |= {name: str(thing) for name, thing in imported(statement).items()}
            else:
                found |= dict.fromkeys(bound_by(statement), ast.unparse(statement))
        return found


def chapter_path(exercise_id: str, folder: Path = NOTEBOOKS) -> Path:
    """The notebook that an exercise is in."""
    return next(folder.glob(f"{int(exercise_id.split('.')[0]):02}_*.ipynb"))


@functools.cache
def parsed(path: Path) -> NotebookNode:
    """A notebook, read once: don't change it."""
    return nbformat.read(path, as_version=4)


def cells_of(exercise_id: str, role: str, folder: Path = NOTEBOOKS) -> list[NotebookNode]:
    """The cells of an exercise that have this role."""
    return [cell for cell in parsed(chapter_path(exercise_id, folder)).cells if role_of(cell) == (role, exercise_id)]


@functools.cache
def notebook_order() -> tuple[str, ...]:
    """The ids of all exercises with a check, as a reader meets them.

    Example:
        >>> notebook_order()[-1]
        '8.4'
    """
    chapters = (parsed(path) for path in sorted(NOTEBOOKS.glob("*.ipynb")))
    return tuple(e for chapter in chapters for role, e in map(role_of, chapter.cells) if role == "answer")


@functools.cache
def asked_for(exercise_id: str) -> tuple[str, ...]:
    """The names that an exercise's check takes.

    Example:
        >>> asked_for("4.3")
        ('split_heads', 'merge_heads')
    """
    call = ast.parse(cells_of(exercise_id, "check")[0].source).body[-1].value
    return tuple(argument.id for argument in call.args[1:])


@functools.cache
def taken_names(chapter: str) -> dict[str, Thing | None]:
    """The names that a chapter's notebook gives to something, and what that is if it is imported."""
    found: dict[str, Thing | None] = {}
    for cell in parsed(chapter_path(chapter)).cells:
        if cell.cell_type == "code":
            for statement in ast.parse(cell.source).body:
                if isinstance(statement, ast.Import | ast.ImportFrom):
                    for name, thing in imported(statement).items():
                        found.setdefault(name, thing)
                else:
                    found |= dict.fromkeys(bound_by(statement))
    return found


def course_thing(thing: Thing) -> Thing:
    """Where a class or function of the course really lives; a module as what it is."""
    if thing.module == "utils" and thing.name:
        return Thing(f"utils.{thing.name}")
    return thing


@functools.cache
def place_of(exercise_id: str) -> Place:
    """Where its answer goes, and what it can't use there: the references of this exercise and of all later ones."""
    order = notebook_order()
    later = order[order.index(exercise_id) :]
    references = [answer for e in later for answer in as_answers(EXERCISES[e].reference)]
    taken = {name: thing and course_thing(thing) for name, thing in taken_names(exercise_id.split(".")[0]).items()}
    return Place(
        exercise_id,
        asked_for(exercise_id),
        {name: thing for name, thing in taken.items() if name not in asked_for(exercise_id)},
        frozenset(Thing(answer.__module__, answer.__qualname__) for answer in references),
    )


# Where the objects stand in their files --------------------------------------------------------------


def misconceptions_of(exercise_id: str) -> Iterator[tuple[str, str, ast.expr, Any]]:
    """Name, module, expression and object of each misconception."""
    module = f"utils.checks.chapters.chapter{int(exercise_id.split('.')[0]):02}"
    exercises = [
        s for s in Source.of(module).statements if bound_by(s) == [f"EXERCISE_{exercise_id.replace('.', '_')}"]
    ]
    calls = [n for s in exercises for n in ast.walk(s) if isinstance(n, ast.Call) and len(n.args) >= 2]
    written = {c.args[0].value: c.args[1] for c in calls if ast.unparse(c.func) == "Misconception"}
    for misconception in EXERCISES[exercise_id].misconceptions:
        yield misconception.name, module, written[misconception.name], misconception.answer


def right_answers_of(exercise_id: str) -> Iterator[tuple[str, str, ast.expr, Any]]:
    """Name, module, expression and object of each other right answer."""
    module = f"right_answers.chapter{int(exercise_id.split('.')[0]):02}"
    table = last_value(module, "RIGHT_ANSWERS")
    written = {key.value: value for key, value in zip(table.keys, table.values, strict=True)}[exercise_id]
    found = importlib.import_module(module).RIGHT_ANSWERS[exercise_id]
    for element, (name, answer) in zip(written.elts, found, strict=True):
        yield name, module, element.elts[1], answer


def mistakes_of(exercise_id: str) -> Iterator[tuple[str, str, ast.expr, Any]]:
    """Name, module, expression and object of each subtle mistake."""
    module = f"subtle_mistakes.chapter{int(exercise_id.split('.')[0]):02}"
    table = last_value(module, "SUBTLE_MISTAKES")
    pieces = [table] if isinstance(table, ast.ListComp) else table.elts
    written = [row for piece in pieces for row in rows_of(module, piece)]
    found = importlib.import_module(module).SUBTLE_MISTAKES
    for expression, (of_exercise, answer) in zip(written, found, strict=True):
        if of_exercise == exercise_id:
            expression = expression or expression_for(module, answer)
            yield ast.unparse(expression)[:60], module, expression, answer


def last_value(module: str, name: str) -> ast.expr:
    """The expression that a name of a module was given."""
    source = Source.of(module)
    return source.statements[source.binds[name][-1]].value


def rows_of(module: str, piece: ast.expr) -> list[ast.expr | None]:
    """The answers' expressions in one piece of a table of mistakes; None where only the object is known."""
    if isinstance(piece, ast.Tuple):
        return [piece.elts[1]]
    comprehension = piece.value if isinstance(piece, ast.Starred) else piece
    first = comprehension.generators[0]
    values = first.iter
    if isinstance(values, ast.Name) and values.id in Source.of(module).binds:
        values = last_value(module, values.id)
    is_plain = len(comprehension.generators) == 1 and not first.ifs and isinstance(values, ast.Tuple | ast.List)
    answer = comprehension.elt.elts[1]
    if is_plain and isinstance(answer, ast.Name) and not any(isinstance(e, ast.Starred) for e in values.elts):
        return list(values.elts)
    namespace = vars(importlib.import_module(module))
    return [None] * len(eval(f"[*({ast.unparse(comprehension)})]", namespace))  # text of this repository


def expression_for(module: str, answer: Any) -> ast.expr:
    """What to write for an object, found by what the module calls it."""
    if isinstance(answer, tuple):
        return ast.Tuple([expression_for(module, part) for part in answer], ast.Load())
    source, namespace = Source.of(module), vars(importlib.import_module(module))
    for name in [*source.binds, *source.imports]:
        if namespace[name] is answer:
            return ast.Name(name, ast.Load())
    for name in source.binds:
        values = getattr(source.statements[source.binds[name][-1]], "value", None)
        if isinstance(values, ast.List | ast.Tuple) and len(values.elts) == len(namespace[name]):
            for expression, value in zip(values.elts, namespace[name], strict=True):
                if value is answer:
                    return expression
    raise LookupError(f"{module} has no name for {answer!r}")


# The answers ---------------------------------------------------------------------------------------


@functools.cache
def collected(exercise_id: str) -> tuple[list[Variant], list[tuple[str, str, str]]]:
    """All variants of an exercise, and (kind, name, reason) of those that can't be made self-contained."""
    solution = MARKS.sub("", cells_of(exercise_id, "answer", SOLUTIONS)[0].source)
    found = [
        Variant(exercise_id, "solution", "solution", solution),
        Variant(exercise_id, "stub", "stub", cells_of(exercise_id, "answer")[0].source),
    ]
    skipped: list[tuple[str, str, str]] = []
    tables = {"right": right_answers_of, "misconception": misconceptions_of, "mistake": mistakes_of}
    for kind, table in tables.items():
        for name, module, expression, answer in table(exercise_id):
            try:
                source = answer_source(module, expression, place_of(exercise_id))
                found.append(Variant(exercise_id, kind, name, source, answer))
            except (CannotCopyError, LookupError) as error:
                skipped.append((kind, name, str(error)))
    return found, skipped


def variants(exercise_id: str) -> list[Variant]:
    """All answers to an exercise, the solution first."""
    return collected(exercise_id)[0]


def skipped(exercise_id: str) -> list[tuple[str, str, str]]:
    """Kind, name and reason of the answers that can't be handed in as text."""
    return collected(exercise_id)[1]
