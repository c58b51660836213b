"""Stock nbgrader on this course: its own commands, its own gradebook, nothing of ours but the notebooks.

>>> course = NbgraderCourse.made(folder, chapters=["01_dot_product_attention"])  # doctest: +SKIP
>>> course.hand_in("student_001", path)  # doctest: +SKIP
>>> course.autograde(), course.marks()  # doctest: +SKIP

A course of nbgrader's is a folder with ``source/ASSIGNMENT/NOTEBOOK.ipynb``; here every chapter is an assignment of
one notebook, both called like the file. nbgrader runs a submission inside ``autograded/STUDENT/ASSIGNMENT``, and the
notebooks' first cell looks for ``utils/checks`` in the folders above: so ``utils`` lies in the course's folder.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from utils.release import ROOT, SOLUTIONS

# nbgrader gives a cell 30 seconds unless told otherwise; the longest training cells need more.
CONFIG = """\
c = get_config()
c.CourseDirectory.course_id = "attention"
c.Execute.timeout = 600
"""
Marks = dict[str, dict[str, float]]  # by student and exercise


class NbgraderError(RuntimeError):
    """A command of nbgrader's failed; the message is what it said."""


@dataclass(frozen=True)
class NbgraderCourse:
    """A course in nbgrader's layout."""

    folder: Path
    chapters: tuple[str, ...]

    @classmethod
    def made(cls, folder: Path, chapters: Iterable[str]) -> "NbgraderCourse":
        """Set up a course as an instructor does, and let nbgrader generate the assignments.

        Args:
            folder: an empty or new one.
            chapters: names of notebooks in ``solutions/``, without ``.ipynb``.
        """
        course = cls(folder, tuple(chapters))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "nbgrader_config.py").write_text(CONFIG, encoding="utf-8")
        (folder / "utils").symlink_to(ROOT / "utils")  # a copy does as well, where there are no links
        for chapter in course.chapters:
            source = folder / "source" / chapter
            source.mkdir(parents=True)
            shutil.copy(SOLUTIONS / f"{chapter}.ipynb", source)
            course.run("generate_assignment", chapter)
        return course

    def run(self, *arguments: str) -> None:
        """One command of nbgrader's, in the course's folder."""
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # nbgrader calls alembic
        done = subprocess.run(
            [sys.executable, "-m", "nbgrader", *arguments],
            cwd=self.folder,
            env=os.environ | {"PATH": programs},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise NbgraderError(f"nbgrader {' '.join(arguments)}: {done.stderr[-2000:]}")

    def hand_in(self, student: str, notebook: Path) -> None:
        """Put a student's notebook where nbgrader looks for it; it has to keep its name."""
        folder = self.folder / "submitted" / student / notebook.stem
        folder.mkdir(parents=True)
        shutil.copy(notebook, folder)

    def autograde(self) -> float:
        """Mark everything that was handed in, a chapter at a time; returns the seconds that it took."""
        start = time.perf_counter()
        for chapter in self.chapters:
            if any(self.folder.glob(f"submitted/*/{chapter}")):
                self.run("autograde", chapter)
        return time.perf_counter() - start

    def marks(self) -> Marks:
        """The points in the gradebook; answers in words wait for a person and are left out."""
        from nbgrader.api import Gradebook

        found: Marks = {}
        with Gradebook(f"sqlite:///{self.folder / 'gradebook.db'}", "attention") as gradebook:
            for chapter in self.chapters:
                for submission in gradebook.assignment_submissions(chapter):
                    marks = found.setdefault(submission.student.id, {})
                    for grade in (grade for notebook in submission.notebooks for grade in notebook.grades):
                        role, exercise = grade.name.split("-", 1)
                        if role == "check":
                            marks[exercise.replace("-", ".")] = grade.auto_score
        return found


@dataclass(frozen=True)
class Measured:
    """What marking a class took, and what came out."""

    seconds: float
    notebooks: int
    marks: Marks

    @property
    def seconds_per_notebook(self) -> float:
        """On average, with nbgrader's own start in it."""
        return self.seconds / max(1, self.notebooks)


def measure(submissions: Path, work: Path, chapters: Iterable[str] = (), num_students: int | None = None) -> Measured:
    """How long stock nbgrader takes for a class; generating the assignments is not counted.

    Args:
        submissions: a folder per student, with notebooks that keep their names (``write_class(..., untidy=False)``).
        work: a new folder for nbgrader's course.
        chapters: names without ``.ipynb``; all of them if left out.
        num_students: only the first so many.
    """
    chapters = tuple(chapters) or tuple(sorted(path.stem for path in SOLUTIONS.glob("*.ipynb")))
    course, notebooks = NbgraderCourse.made(work, chapters), 0
    for student in sorted(path for path in submissions.iterdir() if path.is_dir())[:num_students]:
        for chapter in chapters:
            if (student / f"{chapter}.ipynb").exists():
                course.hand_in(student.name, student / f"{chapter}.ipynb")
                notebooks += 1
    return Measured(course.autograde(), notebooks, course.marks())
