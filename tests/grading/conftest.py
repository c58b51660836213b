"""What the tests of marking share: marks for cells that are given as texts."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import pytest

from utils.grading.marking import ChapterMarking, Run
from utils.grading.sandbox import Kind, Sandbox
from utils.grading.submissions import sorted_out


class Marked(NamedTuple):
    """What marking a notebook gave: points and sentences by exercise, and the flags."""

    points: dict[str, int]
    said: dict[str, str]
    flags: list[str]


Mark = Callable[..., Marked]


@pytest.fixture(scope="session")
def mark(needs_sandbox: Kind) -> Iterator[Mark]:
    """Marks answers: ``mark("3", {"3.2": "def causal_softmax(scores): ..."})``. All share one sandbox."""
    with Sandbox(needs_sandbox) as sandbox:

        def marked(chapter: str, answers: Mapping[str, str], before: Iterable[str] = ()) -> Marked:
            sources = [*before, *(f"# EXERCISE {exercise}\n{source}" for exercise, source in answers.items())]
            cells = [{"cell_type": "code", "source": source, "metadata": {}, "id": ""} for source in sources]
            marking = ChapterMarking(sorted_out(cells, chapter, "notebook.ipynb"), Run(7, needs_sandbox), sandbox)
            reports = {exercise: result.report for exercise, result in marking.results().items()}
            points = {exercise: report.points for exercise, report in reports.items()}
            return Marked(points, {e: "\n".join(report.messages) for e, report in reports.items()}, marking.flags)

        yield marked
