"""A student's page: complete, harmless, the same on every run, in a file of its own."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.checks import EXERCISES, check
from utils.grading.feedback import MARKER, feedback_names, feedback_page
from utils.grading.results import ExerciseResult, StudentResult
from utils.grading.tables import MAX_POINTS, Mark

WRONG = EXERCISES["1.2"].misconceptions[0]
ADA = StudentResult(
    "ada",
    {
        "1.1": ExerciseResult(check("1.1", EXERCISES["1.1"].reference)),
        "1.2": ExerciseResult(check("1.2", WRONG.answer), (WRONG.name,)),
    },
    {"2.6": "Because <script>alert(1)</script> d_k\nis large."},
    flags=("Two attempts & more.",),
    seconds=3.25,
)
FIRST_CHAPTER = sum(MAX_POINTS[f"1.{i}"] for i in range(1, 7))
SECOND_CHAPTER = sum(MAX_POINTS[f"2.{i}"] for i in range(1, 7))
EVIL = "<script>alert(1)</script>\"'&\udce9\n"


class Tags(HTMLParser):
    """The tags of a page, checked to be closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.seen, self.text = [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_page_shows_points_reports_and_flags():
    page = feedback_page(ADA, {})
    text = Tags(page).text
    assert all(result.report._repr_html_() in page for result in ADA.exercises.values())
    earned = 3 + ADA.exercises["1.2"].report.points
    assert f"{earned} of {sum(MAX_POINTS.values())} points" in text
    assert f"{earned} of {FIRST_CHAPTER}" in text
    assert "Two attempts & more." in text
    assert text.count("not handed in") == 6


def test_bars_are_as_long_as_the_share_of_points():
    widths = re.findall(r"width:([0-9.]+)%\"></div>", feedback_page(ADA, {("ada", "2.6"): Mark("3")}))
    earned = 3 + ADA.exercises["1.2"].report.points
    assert [float(width) for width in widths] == pytest.approx(
        [100 * earned / FIRST_CHAPTER, 100 * 3 / SECOND_CHAPTER], abs=0.1
    )


def test_answers_in_words_show_mark_and_comment_once_marked():
    waiting = Tags(feedback_page(ADA, {("ada", "2.6"): Mark("?", "A draft.")})).text
    assert "Why divide by the root?: not marked yet" in waiting
    assert "A draft." not in waiting
    marked = Tags(feedback_page(ADA, {("ada", "2.6"): Mark("2,5", "See <chapter> 2.")})).text
    assert "Why divide by the root?: 2.5 of 4 points" in marked
    assert "See <chapter> 2." in marked
    assert "Because <script>alert(1)</script> d_k\nis large." in marked
    assert "Nothing written." in feedback_page(replace(ADA, written={"2.6": " "}), {})


def test_nothing_that_a_learner_wrote_becomes_markup():
    result = replace(ADA, student=EVIL, written={"2.6": EVIL}, flags=(EVIL,))
    page = feedback_page(result, {("<script>alert(1)</script>\"'&\\udce9\n", "2.6"): Mark("1", EVIL)})
    tags = Tags(page)
    assert "script" not in tags.seen
    assert tags.text.count("<script>alert(1)</script>\"'&\\udce9") == 5  # title, heading, flag, comment and answer
    page.encode("utf-8")


def test_page_loads_nothing_and_depends_on_the_answer_only():
    page = feedback_page(ADA, {})
    assert page == feedback_page(replace(ADA, seconds=99.0), {})
    assert not re.search(r"https?:|src=|url\(|@import", page)
    assert page.startswith(MARKER)


@pytest.mark.parametrize("is_protected", [True, False])
def test_page_says_whether_the_code_ran_unprotected(is_protected):
    page = feedback_page(replace(ADA, is_protected=is_protected), {})
    assert ("Unprotected" in page) is not is_protected


def test_page_of_somebody_who_handed_nothing_in():
    assert "No chapter was handed in." in Tags(feedback_page(StudentResult("ada"), {})).text


# Names of files

alike = st.text(st.sampled_from("aA.-_~ \u00e9\udce9/"), max_size=4)
names = st.one_of(alike, st.text(st.characters()), st.sampled_from(["con", "NUL.txt", "lpt1", "a" * 300, "..", ""]))


@given(st.sets(names, max_size=30))
def test_files_never_collide_and_do_not_depend_on_who_else_is_there(students):
    files = feedback_names(students)
    assert len({file.lower() for file in files.values()}) == len(students)
    assert all(feedback_names([student]) == {student: file} for student, file in files.items())
    for file in files.values():
        assert re.fullmatch(r"[A-Za-z0-9_~][A-Za-z0-9._~-]*\.html", file)
        assert len(file) <= 100
        assert not re.match(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])\.", file)


@given(names)
def test_no_name_can_take_the_file_of_another(student):
    file = feedback_names([student])[student].removesuffix(".html")
    assert file == student or feedback_names([file])[file].lower() != f"{file}.html".lower()


@pytest.mark.parametrize("student", ["ada", "sam_lee", "007", "lovelace_ada_12345", "o.neil-2"])
def test_readable_names_stay_as_they_are(student):
    assert feedback_names([student])[student] == f"{student}.html"


@pytest.mark.parametrize("student", ["Sam", "sam lee", "../x", ".x", "-x", "con", "con.x", "é", "\udce9", "a" * 81, ""])
def test_other_names_get_a_hash(student):
    assert re.fullmatch(r"[A-Za-z0-9_-]{0,80}~[0-9a-f]{10}\.html", feedback_names([student])[student])
