"""The page about the class: right numbers, pictures with texts, and a warning where it is due."""

import re
from dataclasses import replace
from html import unescape

import matplotlib
import matplotlib.pyplot as plt
import pytest

from utils.checks import EXERCISES, check
from utils.grading.feedback import feedback_names
from utils.grading.results import ExerciseResult, StudentResult
from utils.grading.summary import misconceptions, success_rates, summary_page
from utils.grading.tables import MAX_POINTS, Mark, points_of

RIGHT = ExerciseResult(check("1.1", EXERCISES["1.1"].reference))
FIRST, SECOND = EXERCISES["1.1"].misconceptions[:2]
WRONG = ExerciseResult(check("1.1", FIRST.answer), (FIRST.name,))
ALSO_WRONG = ExerciseResult(check("1.1", SECOND.answer), (SECOND.name,))
CLASS = [
    StudentResult("ada", {"1.1": RIGHT}, {"2.6": "a"}, seconds=1.5),
    StudentResult("sam lee", {"1.1": WRONG}, {"2.6": "b"}, flags=("Late & short.",), seconds=2.5),
    StudentResult("zoe", {"1.1": WRONG}, seconds=0.5),
    StudentResult("<b>", {"1.1": ALSO_WRONG}),
    StudentResult("nobody"),
]
POSSIBLE = sum(points for exercise_id, points in MAX_POINTS.items() if exercise_id[0] in "12")
MARKS = {("ada", "2.6"): Mark("3"), ("sam lee", "2.6"): Mark("lots")}


def alts(page: str) -> list[str]:
    return [unescape(alt) for alt in re.findall(r'<svg role="img" aria-label="([^"]+)"', page)]


def test_success_is_the_share_among_those_who_handed_the_chapter_in():
    rates = success_rates(CLASS, [points_of(result, MARKS) for result in CLASS])
    assert rates["1.1"] == pytest.approx(sum(r.exercises["1.1"].report.points for r in CLASS[:4]) / 12)
    assert rates["2.6"] == 0.75  # one is not marked yet
    assert "3.1" not in rates


def test_misconceptions_are_counted_commonest_first():
    assert misconceptions(CLASS) == [(("1.1", FIRST.name), 2), (("1.1", SECOND.name), 1)]


def test_every_picture_says_what_is_to_be_seen():
    success, totals, wrong, seconds = alts(summary_page(CLASS, MARKS))
    assert "A bar for each of 12 exercises. Lowest: 1.2 (0 %), 1.3 (0 %), 1.4 (0 %)." in success
    assert "0 to 10 %: 4" in totals
    assert "10 to 20 %: 1" in totals  # 6 of 48 points
    assert f"1.1 {FIRST.name}: 2, 1.1 {SECOND.name}: 1." in wrong
    assert "Together 4 s, median 0.5 s, at most 2.5 s." in seconds


def test_misconceptions_come_with_what_learners_were_told():
    page = summary_page(CLASS, MARKS)
    assert FIRST.sentence in unescape(page)
    assert SECOND.sentence in unescape(page)


def test_numbers_are_of_the_points_that_the_class_could_earn():
    page = re.sub("<.*?>", "", summary_page(CLASS, MARKS))
    points = sorted(6 if r.student == "ada" else sum(e.report.points for e in r.exercises.values()) for r in CLASS)
    assert f"5 students · mean {sum(points) / 5:.1f} and median {points[2]} of {POSSIBLE} points" in page
    assert "Answers that wait for their marks in written.csv: 1." in page


def test_students_are_listed_with_flags_and_links_to_their_pages():
    page = summary_page(CLASS, MARKS)
    for student, file in feedback_names(result.student for result in CLASS).items():
        assert f'<a href="feedback/{file}">{student.replace("<", "&lt;").replace(">", "&gt;")}</a>' in page
    assert "Late &amp; short." in page
    assert "lots" in page


def test_nothing_is_loaded_and_no_name_becomes_markup():
    page = summary_page([StudentResult("<script>$x_\udce9", {"1.1": RIGHT}, flags=("<script>",))], {})
    assert "<script" not in page
    assert not re.search(r"src=|@import|url\((?!#)", page)
    page.encode("utf-8")


def test_the_page_warns_when_code_ran_unprotected():
    assert "Not protected" not in summary_page(CLASS, MARKS)
    page = summary_page([replace(CLASS[0], is_protected=False), *CLASS[1:]], MARKS)
    assert "1 of 5 students ran without a sandbox" in page


def test_the_same_class_gives_the_same_bytes_whatever_was_drawn_before():
    page = summary_page(CLASS, MARKS)
    figures, looks = plt.get_fignums(), dict(matplotlib.rcParams)
    assert summary_page(list(reversed(CLASS)), MARKS) == page
    assert plt.get_fignums() == figures
    assert dict(matplotlib.rcParams) == looks


def test_ids_are_unique_and_every_reference_has_its_target():
    page = summary_page(CLASS, MARKS)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(|href=")#([^)"]+)', page)) <= set(ids)


@pytest.mark.parametrize("results", [[], [StudentResult("ada")], [StudentResult("ada", {"1.1": RIGHT})]])
def test_a_class_of_nearly_nothing_has_its_page(results):
    assert f"<b>{len(results)}</b> student" in summary_page(results, {})
