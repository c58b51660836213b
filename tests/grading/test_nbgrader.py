"""Stock nbgrader gives honest submissions the marks that they deserve."""

import importlib.util
import os
import random

import pytest
from classroom import CHAPTERS, PROFILES, chosen, handed_in, written
from nbgrader_course import NbgraderCourse

from utils.checks import EXERCISES

IS_INSTALLED = importlib.util.find_spec("nbgrader") is not None
QUICK = (CHAPTERS[0], CHAPTERS[2])  # together they run for a few seconds
SEED = 6  # a draw in which some answers earn a part of their points

pytestmark = pytest.mark.skipif(
    not IS_INSTALLED and os.environ.get("CI") != "true",
    reason="nbgrader is not installed: pip install -r tests/requirements.txt",
)


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """The marks that three students deserve, and those that nbgrader gives."""
    assert IS_INSTALLED, "CI has to compare with nbgrader, which is not installed"
    folder = tmp_path_factory.mktemp("nbgrader")
    course = NbgraderCourse.made(folder / "course", [chapter.stem for chapter in QUICK])
    deserved = {}
    for student, profile in (("all_right", "right"), ("partly_right", "partly right"), ("unsolved", "unsolved")):
        deserved[student] = {}
        for chapter in QUICK:
            answers = chosen(chapter, PROFILES[profile][0], random.Random(SEED), SEED)
            course.hand_in(student, written(handed_in(chapter, answers), folder / student / chapter.name))
            deserved[student] |= {exercise_id: variant.points for exercise_id, variant in answers.items()}
    course.autograde()
    return deserved, course.marks()


@pytest.mark.parametrize("student", ["all_right", "partly_right", "unsolved"])
def test_nbgrader_gives_the_points_that_an_honest_student_deserves(graded, student):
    deserved, given = graded
    assert given[student] == deserved[student]


def test_the_three_students_differ(graded):
    """Otherwise equal marks would say little."""
    deserved, _ = graded
    assert all(points == EXERCISES[e].points for e, points in deserved["all_right"].items())
    assert any(0 < points < EXERCISES[e].points for e, points in deserved["partly_right"].items())
    assert not any(deserved["unsolved"].values())
