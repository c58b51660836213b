"""A class of generated students: notebooks as learners hand them in, and the marks that they deserve.

    python tests/grading/classroom.py FOLDER --students 100 --seed 0 [--flat]

Writes the notebooks into FOLDER and the marks into ``expected.json`` beside it. The same seed gives the same class.
Right answers come from ``solutions/`` and ``tests/right_answers``, wrong ones from the misconceptions and
``tests/subtle_mistakes``; see ``answer_variants``. Half of the notebooks are untidy; see ``habits``.
"""

import argparse
import copy
import functools
import json
import random
from collections.abc import Callable
from pathlib import Path

from answer_variants import Variant, parsed, skipped, variants
from habits import HABITS, applied, drawn
from nbformat import NotebookNode
from nbformat.v4.nbjson import writes

from utils.checks import EXERCISES
from utils.release import NOTEBOOKS, role_of

__all__ = ["HABITS", "Variant", "handed_in", "skipped", "variants", "write_class", "written"]

Marks = dict[str, int]  # by exercise; absent where the chapter was not handed in
CHAPTERS = tuple(sorted(NOTEBOOKS.glob("*.ipynb")))

# For every profile: how likely an answer is right, wrong, or missing, and how likely a chapter is not handed in.
PROFILES = {
    "right": ((1.0, 0.0, 0.0), 0.0),
    "partly right": ((0.6, 0.25, 0.15), 0.0),
    "wrong": ((0.05, 0.85, 0.1), 0.0),
    "unsolved": ((0.0, 0.0, 1.0), 0.0),
    "missing chapters": ((0.7, 0.15, 0.15), 0.4),
}
SHARES = (40, 25, 10, 10, 15)  # percent of the class
VARIETY = 5  # so many right and so many wrong answers to an exercise go around in a class
RENAMED: tuple[Callable[[str], str], ...] = (
    *[str] * 6,
    lambda name: f"Copy of {name}",
    lambda name: f"{name.removesuffix('.ipynb')} (1).ipynb",
    lambda name: f"{name.removesuffix('.ipynb')}_final.ipynb",
    lambda name: name.replace("_", " "),
)


def exercises_in(chapter: Path) -> list[str]:
    """The exercises of a chapter that have a check, in its order."""
    return [exercise for role, exercise in map(role_of, parsed(chapter).cells) if role == "answer"]


def handed_in(chapter: Path, answers: dict[str, Variant]) -> NotebookNode:
    """A chapter's released notebook with these answers by exercise; the others stay stubs.

    Example:
        >>> solved = handed_in(CHAPTERS[0], {"1.1": variants("1.1")[0]})
    """
    notebook = copy.deepcopy(parsed(chapter))
    for cell in notebook.cells:
        role, exercise = role_of(cell)
        if exercise not in answers:
            continue
        if role == "answer":
            cell.source = answers[exercise].source
        elif role == "check":  # the stored output belongs to the stub
            cell.outputs, cell.execution_count = [], None
    return notebook


def written(notebook: NotebookNode, path: Path) -> Path:
    """Write as front ends do, without adding or mending anything."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(writes(notebook), encoding="utf-8")
    return path


@functools.cache
def in_circulation(exercise_id: str, seed: int) -> dict[str, list[Variant]]:
    """The answers to an exercise that a class knows: some right ones, some wrong ones, the stub."""
    draws = random.Random(f"{seed} {exercise_id}")
    found = {"right": [], "wrong": [], "stub": []}
    for variant in variants(exercise_id):
        kind = {"solution": "right", "misconception": "wrong", "mistake": "wrong"}.get(variant.kind, variant.kind)
        found[kind].append(variant)
    return {kind: draws.sample(those, min(VARIETY, len(those))) for kind, those in found.items()}


def chosen(chapter: Path, chances: tuple[float, ...], draws: random.Random, seed: int) -> dict[str, Variant]:
    """One answer to each exercise, none of which takes a helper's name that another one uses otherwise."""
    answers: dict[str, Variant] = {}
    bound: dict[str, str] = {}
    for exercise_id in exercises_in(chapter):
        known = in_circulation(exercise_id, seed)
        kind = draws.choices(("right", "wrong", "stub"), chances)[0]
        candidates = draws.sample(known[kind], len(known[kind])) + variants(exercise_id)[:1]
        fits = (v for v in candidates if all(bound.get(name, text) == text for name, text in v.binds.items()))
        answers[exercise_id] = next(fits)
        bound |= answers[exercise_id].binds
    return answers


def answer_in_words(notebook: NotebookNode) -> None:
    """Something in the cells that a person marks."""
    for cell in notebook.cells:
        role, exercise = role_of(cell)
        if role == "written":
            cell.source = f"**EXERCISE {exercise}**\n\nNo. The sum cancels, since every weight is divided by it."


def write_class(
    folder: Path | str, students: int = 100, seed: int = 0, flat: bool = False, untidy: bool = True
) -> dict[str, Marks]:
    """Write the notebooks of a class.

    Args:
        folder: gets a folder per student, or with ``flat`` all files, named as a learning platform exports them.
        students: how many.
        seed: another one, another class.
        flat: one folder for all.
        untidy: whether notebooks have habits and files other names.

    Returns:
        for every student the points that they deserve by exercise; chapters that they didn't hand in are absent.
    """
    folder, expected = Path(folder), {}
    for number in range(1, students + 1):
        draws = random.Random(f"{seed} student {number}")
        student = f"student_{number:03}" + (f"_{10_000 + number}" if flat else "")
        chances, missing = PROFILES[draws.choices(list(PROFILES), SHARES)[0]]
        chapters = [c for c in CHAPTERS if draws.random() >= missing] or [CHAPTERS[0]]
        marks: Marks = {}
        for chapter in chapters:
            answers = chosen(chapter, chances, draws, seed)
            marks |= {exercise_id: variant.points for exercise_id, variant in answers.items()}
            notebook = handed_in(chapter, answers)
            if chances[2] < 1:
                answer_in_words(notebook)
            habits, rename = drawn(draws), draws.choice(RENAMED)
            notebook = applied(notebook, habits) if untidy else notebook
            name = rename(chapter.name) if untidy and not flat else chapter.name
            if flat:
                again = draws.choice(["", "", " (1)"]) if untidy else ""
                written(notebook, folder / f"{student}_{chapter.stem}{again}.ipynb")
            else:
                written(notebook, folder / student / name)
        expected[student] = {exercise_id: marks[exercise_id] for exercise_id in EXERCISES if exercise_id in marks}
    return expected


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--students", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--flat", action="store_true", help="all files in one folder, named as by a platform")
    options = parser.parse_args()
    expected = write_class(options.folder, options.students, options.seed, options.flat)
    path = options.folder.resolve().parent / "expected.json"
    path.write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")
    print(f"{len(expected)} students in {options.folder}, their marks in {path}")


if __name__ == "__main__":
    main()
