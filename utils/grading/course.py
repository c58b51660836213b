"""The course as it was handed out: for each chapter its exercises, stubs and the course's own cells."""

from dataclasses import dataclass, field
from functools import cache

import nbformat

from utils.checks import EXERCISES
from utils.checks.exercise import as_answers
from utils.release import NOTEBOOKS, role_of


@dataclass(frozen=True)
class ChapterFacts:
    """What marking needs to know of a chapter's notebook.

    Attributes:
        number: "3".
        stem: the name of its file, "03_causal_attention".
        answers: by exercise, the cell as handed out.
        written: by exercise, the markdown cell as handed out.
        course: sources of the course's own code cells that may run, in order; no setup, no training, no checks.
        known: every code cell's text (see ``plain``) and its role.
        roles: by cell id, (role, text).
    """

    number: str
    stem: str
    answers: dict[str, str] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)
    course: list[str] = field(default_factory=list)
    known: dict[str, str] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)


@cache
def chapters() -> dict[str, ChapterFacts]:
    """All chapters by number, read from ``notebooks/``.

    Example:
        >>> list(chapters()["3"].answers)
        ['3.1', '3.2', '3.3', '3.4', '3.5']
    """
    found = {}
    for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")):
        facts = ChapterFacts(str(int(path.stem[:2])), path.stem)
        for cell in nbformat.read(path, as_version=4).cells:
            role, exercise = role_of(cell)
            role = next(iter(set(cell.metadata.get("tags", [])) & {"setup", "training"}), role)
            facts.roles[cell.id] = role
            if role == "answer":
                facts.answers[exercise] = cell.source
            elif role == "written":
                facts.written[exercise] = cell.source
            elif cell.cell_type == "code":
                facts.known[plain(cell.source)] = role
                if role == "course":
                    facts.course.append(cell.source)
        found[facts.number] = facts
    return found


def names_of(exercise_id: str) -> list[str]:
    """What an answer has to define.

    Example:
        >>> names_of("4.3")
        ['split_heads', 'merge_heads']
    """
    return [answer.__name__ for answer in as_answers(EXERCISES[exercise_id].reference)]


def plain(source: str) -> str:
    """A cell's text without what editors change by themselves: trailing blanks and line ends.

    Example:
        >>> plain("x = 1  \\r\\n") == plain("x = 1")
        True
    """
    return "\n".join(line.rstrip(" \t") for line in source.replace("\r\n", "\n").split("\n")).strip()
