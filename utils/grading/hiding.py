"""What the sandbox may know of the course: its modules without the right answers that are still to be given.

Chapter 4's exercises may use ``CausalAttention``, the answer to 3.5, but not ``MultiHeadAttention`` before 4.4 is over.
So a chapter starts with the references of its own and of all later exercises hidden: their bodies are replaced
before the text is sent. Each is revealed once its exercise has been tried, for the exercises after it.
"""

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from utils.checks import EXERCISES
from utils.checks.exercise import as_answers
from utils.grading.course import chapters

UTILS = Path(__file__).resolve().parent.parent
LEFT_OUT = {"bench", "release"}  # no answer needs them
SHARED = (
    "utils",
    "utils.checks",
    "utils.checks.forbidden",
    "utils.checks.probes",
    "utils.checks.probes.observe",
    "utils.checks.probes.modules",
    "utils.gpt_config",
)
PROBES_OF_A_CHAPTER = re.compile(r"utils\.checks\.probes\.chapter\d\d")
CHECKS = '''"""Stands for the course's checks while a class is marked: says nothing, and knows nothing."""


class NoReport:
    """What ``check`` returns here."""

    points = max_points = 0
    messages: list = []

    def __repr__(self):
        return "0"


def check(exercise_id, *answers):
    """Nothing is checked in here."""
    return NoReport()


EXERCISES: dict = {}
WRITTEN: dict = {}
'''


class Definition(NamedTuple):
    """A function or class of the course, by its module and name."""

    module: str
    name: str


@cache
def course_order() -> dict[str, int]:
    """Where each exercise stands among all, in the order of the notebooks: what comes before is known by then."""
    return {
        exercise: place for place, exercise in enumerate(e for chapter in chapters().values() for e in chapter.answers)
    }


def references(exercise_id: str) -> list[Definition]:
    """What in ``utils`` would answer an exercise.

    Example:
        >>> references("3.2")
        [Definition(module='utils.masking', name='causal_softmax')]
    """
    answers = as_answers(EXERCISES[exercise_id].reference)
    found = [Definition(answer.__module__, answer.__qualname__) for answer in answers]
    return [definition for definition in found if not definition.module.startswith("utils.checks")]


@cache
def module_texts() -> dict[str, str]:
    """The course's modules as they are, by full name; of ``utils.checks`` only the probes, which know no answer."""
    texts = {"utils": "", "utils.checks": CHECKS}
    files = [path for path in UTILS.glob("*.py") if path.stem not in LEFT_OUT | {"__init__"}]
    files += [UTILS / "checks" / "forbidden.py", *(UTILS / "checks" / "probes").glob("*.py")]
    for path in files:
        parts = path.relative_to(UTILS.parent).with_suffix("").parts
        texts[".".join(part for part in parts if part != "__init__")] = path.read_text(encoding="utf-8")
    return texts


def shared_texts() -> dict[str, str]:
    """The modules that every notebook's sandbox needs, none of which knows an answer.

    Example:
        >>> "utils.checks.probes.observe" in shared_texts()
        True
    """
    return {name: module_texts()[name] for name in SHARED}


@cache
def texts_for(chapter: str) -> dict[str, str]:
    """The modules for a chapter's sandbox, without its own and all later references, and without others' probes.

    Example:
        >>> "masked_fill" in texts_for("3")["utils.masking"], "masked_fill" in texts_for("4")["utils.masking"]
        (False, True)
    """
    hidden: dict[str, dict[str, str]] = {}
    for exercise_id in course_order():
        if int(exercise_id.split(".")[0]) >= int(chapter):
            for module, name in references(exercise_id):
                hidden.setdefault(module, {})[name] = exercise_id
    probes = probes_for(chapter)
    return {
        name: without(text, hidden[name]) if name in hidden else text
        for name, text in module_texts().items()
        if name in probes or not (name in SHARED or PROBES_OF_A_CHAPTER.fullmatch(name))
    }


def probes_for(chapter: str) -> set[str]:
    """The modules of probes that a chapter's own uses, itself included: models that others try could be handed in.

    Example:
        >>> sorted(probes_for("7"))
        ['utils.checks.probes.chapter05', 'utils.checks.probes.chapter07']
    """
    found, waiting = set[str](), {f"utils.checks.probes.chapter{int(chapter):02d}"}
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= set(PROBES_OF_A_CHAPTER.findall(module_texts()[name])) - found
    return found


def without(text: str, hidden: dict[str, str]) -> str:
    """A module's text in which some definitions only say that they are hidden.

    Args:
        text: Python source.
        hidden: by name of a top-level function or class, the exercise that asks for it.

    Raises:
        KeyError: the text defines no such name.

    Example:
        >>> print(without("def f(x):\\n    return x", {"f": "1.1"}))
        def f(x):
            raise RuntimeError('`f` is what exercise 1.1 asks for: while that is marked, the course has none')
    """
    tree = ast.parse(text)
    left = dict(hidden)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in left:
            exercise_id = left.pop(node.name)
            said = f"`{node.name}` is what exercise {exercise_id} asks for: while that is marked, the course has none"
            refusal = ast.parse(f"raise RuntimeError({said!r})").body
            if isinstance(node, ast.ClassDef):
                constructor = ast.parse("def __init__(self, *args, **kwargs):\n    pass").body[0]
                constructor.body = refusal
                refusal = [constructor]
            node.body = refusal
    if left:
        raise KeyError(f"expected a definition of {', '.join(left)}, found none")
    return ast.unparse(tree)


@cache
def revealed_before(exercise_id: str) -> list[tuple[str, str, str]]:
    """What to fill in before an exercise is tried: the references of its chapter's earlier exercises.

    Returns:
        (module, name, source) of each.
    """
    order, chapter = course_order(), exercise_id.split(".")[0]
    earlier = [e for e in order if order[e] < order[exercise_id] and e.split(".")[0] == chapter]
    own = set(references(exercise_id))
    return [
        (module, name, source_of(module, name))
        for earlier_id in earlier
        for module, name in references(earlier_id)
        if (module, name) not in own
    ]


@cache
def source_of(module: str, name: str) -> str:
    """The text of a definition, decorators included."""
    text = module_texts()[module]
    node = next(node for node in ast.parse(text).body if getattr(node, "name", "") == name)
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return "\n".join(text.splitlines()[first - 1 : node.end_lineno]) + "\n"
