"""The generated class: its answers deserve what they are said to deserve."""

import ast
import itertools
import json
import linecache
import random
import re
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from answer_sources import COPIED, Thing
from answer_variants import Variant, asked_for, chapter_path, notebook_order, parsed, place_of, skipped, variants
from classroom import CHAPTERS, chosen, exercises_in, handed_in, write_class
from habits import HABITS, applied, drawn
from nbformat import NotebookNode

from utils.checks import EXERCISES, check
from utils.release import role_of

pytestmark = pytest.mark.usefixtures("one_thread")

SAMPLE = 150  # of some 2,000 variants; `python tests/grading/test_classroom.py` tries all of them
MOST_SKIPPED = 5
NUMBERS = itertools.count()


def imports_of_the_course(exercise_id: str) -> str:
    """The cells of a chapter that import and do nothing else."""
    code = [cell.source for cell in parsed(chapter_path(exercise_id)).cells if cell.cell_type == "code"]
    return "\n".join(s for s in code if all(isinstance(n, ast.Import | ast.ImportFrom) for n in ast.parse(s).body))


@contextmanager
def notebook_namespace(exercise_id: str) -> Iterator[Callable[[str], dict]]:
    """What runs a cell's text, as a kernel does that has run the chapter's imports; returns the names so far."""
    module = types.ModuleType(f"handed_in_{next(NUMBERS)}")
    sys.modules[module.__name__] = module  # so that the source of classes can be found
    files = []

    def run(source: str) -> dict:
        module.__file__ = f"<cell {next(NUMBERS)}>"
        files.append(module.__file__)
        linecache.cache[module.__file__] = (len(source), None, source.splitlines(True), module.__file__)
        exec(compile(source, module.__file__, "exec"), module.__dict__)  # texts of this repository
        return module.__dict__

    try:
        run(imports_of_the_course(exercise_id))
        yield run
    finally:
        del sys.modules[module.__name__]
        for file in files:
            del linecache.cache[file]


def points_in(namespace: dict, exercise_id: str) -> int:
    """What ``check`` gives the names that an exercise asks for."""
    return check(exercise_id, *(namespace[name] for name in asked_for(exercise_id))).points


def points_as_handed_in(variant: Variant) -> int:
    """What ``check`` gives the text of an answer, run as a notebook runs it."""
    with notebook_namespace(variant.exercise) as run:
        return points_in(run(variant.source), variant.exercise)


def sample() -> list[Variant]:
    """Some variants of every exercise, the solution and the stub among them."""
    draws, found = random.Random(0), []
    for exercise_id in EXERCISES:
        solution, stub, *others = variants(exercise_id)
        found += [solution, stub, *draws.sample(others, SAMPLE // len(EXERCISES) - 1)]
    return found


@pytest.mark.parametrize("exercise_id", EXERCISES)
def test_answers_as_text_earn_what_the_objects_deserve(exercise_id):
    chosen = [variant for variant in sample() if variant.exercise == exercise_id]
    assert {v.name: points_as_handed_in(v) for v in chosen} == {v.name: v.points for v in chosen}


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem[:2])
def test_answers_of_one_notebook_leave_each_other_alone(chapter):
    answers = chosen(chapter, (0.5, 0.5, 0.0), random.Random(0), seed=0)
    with notebook_namespace(chapter.stem[1] + ".1") as run:
        for variant in answers.values():
            names = run(variant.source)
        points = {exercise_id: points_in(names, exercise_id) for exercise_id in answers}
    assert points == {exercise_id: variant.points for exercise_id, variant in answers.items()}


def test_nearly_every_answer_can_be_handed_in():
    assert sum(len(skipped(exercise_id)) for exercise_id in EXERCISES) <= MOST_SKIPPED


@pytest.mark.parametrize("exercise_id", EXERCISES)
def test_no_answer_uses_the_reference_that_it_is_asked_for(exercise_id):
    hidden = place_of(exercise_id).hidden
    for variant in variants(exercise_id):
        for node in ast.walk(ast.parse(variant.source)):
            if isinstance(node, ast.ImportFrom):
                things = {Thing(node.module, alias.name) for alias in node.names}
                assert not things & hidden, variant
                assert not any(thing.is_in(COPIED) for thing in things), variant


# Habits --------------------------------------------------------------------------------------------


def points_despite_habits(notebook: NotebookNode, chapter: Path) -> dict[str, int]:
    """A marker in miniature: runs all that is not the course's own, whatever happens, and checks what is there."""
    course = {cell.source for cell in parsed(chapter).cells}
    with notebook_namespace(chapter.stem[1] + ".1") as run:
        names = run("def input(prompt=''): raise EOFError")
        for cell in notebook.cells:
            is_own = cell.cell_type == "code" and cell.source not in course and "I was here" not in cell.source
            if is_own and role_of(cell)[0] != "check":
                with suppress(BaseException), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    run("\n".join(line for line in cell.source.splitlines() if not line.startswith(("%", "!", "?"))))
        found = {exercise: asked_for(exercise) for exercise in exercises_in(chapter)}
        return {e: points_in(names, e) for e, asked in found.items() if all(name in names for name in asked)}


@pytest.mark.parametrize("name", HABITS)
def test_habits_cost_no_points(name):
    chapter = CHAPTERS[0]
    answers = {e: next(v for v in variants(e) if v.kind == "right" and len(v.binds) > 3) for e in ("1.2", "1.4", "1.6")}
    answers |= {e: variants(e)[0] for e in ("1.1", "1.3", "1.5")}
    before = handed_in(chapter, answers)
    after = HABITS[name](before)
    assert after != before
    assert before == handed_in(chapter, answers), "a habit works on a copy"
    assert points_despite_habits(after, chapter) == {e: EXERCISES[e].points for e in exercises_in(chapter)}


@pytest.mark.parametrize("seed", range(8))
def test_habits_go_together(seed):
    chapter, draws = CHAPTERS[0], random.Random(seed)
    answers = chosen(chapter, (1.0, 0.0, 0.0), draws, seed)
    habits = drawn(draws) | drawn(draws)
    assert points_despite_habits(applied(handed_in(chapter, answers), habits), chapter) == {
        e: EXERCISES[e].points for e in exercises_in(chapter)
    }, habits


# The class -----------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, by their path in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.ipynb")}


def test_the_same_seed_gives_the_same_class(tmp_path):
    expected = [write_class(tmp_path / name, 2, seed=5) for name in ("one", "two")]
    assert expected[0] == expected[1]
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_class_has_a_folder_for_every_student(tmp_path):
    expected = write_class(tmp_path, 3, seed=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(expected)
    for student, marks in expected.items():
        notebooks = list((tmp_path / student).iterdir())
        assert len({exercise_id.split(".")[0] for exercise_id in marks}) == len(notebooks)
        assert all(0 <= points <= EXERCISES[e].points for e, points in marks.items())
        assert all("cells" in json.loads(path.read_text(encoding="utf-8")) for path in notebooks)


def test_a_flat_class_is_named_as_a_platform_exports_it(tmp_path):
    expected = write_class(tmp_path, 2, seed=2, flat=True)
    pattern = re.compile(r"(student_\d{3}_\d{5})_0\d_\w+( \(1\))?\.ipynb")
    assert {pattern.fullmatch(path.name)[1] for path in tmp_path.iterdir()} == set(expected)


if __name__ == "__main__":
    wrong = total = 0
    for exercise_id in notebook_order():
        for variant in variants(exercise_id):
            total += 1
            try:
                got = points_as_handed_in(variant)
            except Exception as error:
                got = repr(error)
            if got != variant.points:
                wrong += 1
                print(exercise_id, variant.kind, variant.name, "deserves", variant.points, "got", got, flush=True)
    print(f"{wrong} of {total} differ")
