"""grades.csv and written.csv: what stands in them, and that nothing typed by a person is lost."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.checks import EXERCISES, WRITTEN, check
from utils.grading.results import ExerciseResult, StudentResult
from utils.grading.tables import (
    CHANGED,
    LONGEST_ANSWER,
    Mark,
    csv_text,
    decoded,
    neutral,
    original,
    points_of,
    read_written,
    remarks_on,
    rows_in,
    shown,
    total,
    unclaimed,
    up_to_date,
    write_grades,
    write_written,
)

anything = st.text(st.characters())  # halves of surrogate pairs, quotes, line breaks and the character 0 included

FIRST_CHAPTER = {"1.1": ExerciseResult(check("1.1", EXERCISES["1.1"].reference))}
ADA = StudentResult("ada", FIRST_CHAPTER, {"2.6": "The variance is d_k.", "3.6": ""}, flags=("First.", "Second."))


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def grades(path: Path, results, marks=None) -> list[dict[str, str]]:
    write_grades(path / "grades.csv", results, marks or {})
    return read(path / "grades.csv")


# grades.csv


def test_grades_have_a_column_per_exercise_in_natural_order_then_totals(tmp_path):
    (row,) = grades(tmp_path, [ADA])
    columns = list(row)
    assert columns[0] == "student"
    assert len(columns[1:51]) == len({*EXERCISES, *WRITTEN}) == 50
    assert columns[1:51] == sorted({*EXERCISES, *WRITTEN}, key=lambda i: [int(n) for n in i.split(".")])
    assert columns[51:] == [*(f"chapter {c}" for c in range(1, 9)), "total", "flags"]


def test_grades_are_zero_where_nothing_was_handed_in_and_blank_where_a_mark_is_missing(tmp_path):
    (row,) = grades(tmp_path, [ADA])
    assert (row["1.1"], row["1.2"], row["2.6"], row["3.6"], row["8.5"]) == ("3", "0", "", "", "0")
    assert (row["chapter 1"], row["chapter 2"], row["total"], row["flags"]) == ("3", "0", "3", "First.; Second.")


def test_written_marks_enter_chapter_and_total(tmp_path):
    (row,) = grades(tmp_path, [ADA], {("ada", "2.6"): Mark("2,5"), ("ada", "3.6"): Mark("0")})
    assert (row["2.6"], row["3.6"], row["chapter 2"], row["total"]) == ("2.5", "0", "2.5", "5.5")


def test_marks_for_a_chapter_that_was_not_handed_in_do_not_count():
    assert total(points_of(StudentResult("ada"), {("ada", "2.6"): Mark("4")})) == 0


def test_every_student_has_a_row_and_rows_are_sorted(tmp_path):
    rows = grades(tmp_path, [StudentResult("sam lee"), StudentResult("ada"), StudentResult("")])
    assert [row["student"] for row in rows] == ["", "ada", "sam lee"]


def test_grades_have_no_byte_order_mark(tmp_path):
    grades(tmp_path, [ADA])
    assert (tmp_path / "grades.csv").read_bytes().startswith(b"student,")


# Cells


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(1)", "\tx", "\rx", "\n=1", "  =1", "\u00a0=1", "＝1", "'=1"]
)
def test_formulas_are_neutralised_and_come_back(text):
    assert neutral(text) == f"'{text}"
    assert original(neutral(text)) == text


@pytest.mark.parametrize("text", ["", "ada", "a=1", "'quoted'", "1 - 1"])
def test_ordinary_texts_stay_as_they_are(text):
    assert neutral(text) == text


@given(anything)
def test_what_is_neutralised_comes_back_exactly(text):
    assert original(neutral(text)) == text
    assert neutral(text).lstrip()[:1] not in tuple("=+-@")


@given(st.lists(anything, min_size=3, max_size=3))
def test_any_text_survives_in_a_cell(texts):
    rows = rows_in(csv_text([["student", "exercise", "points"], texts]))
    assert [original(cell) for cell in rows[1]] == [shown(text) for text in texts]


def test_the_character_0_never_reaches_a_file():
    assert "\0" not in shown("a\0b")  # Python 3.10 can't read a table that holds one


# written.csv


def test_written_has_a_row_for_each_answer_with_its_rubric(tmp_path):
    write_written(tmp_path / "written.csv", up_to_date({}, [StudentResult("zoe", written={"2.6": "=x"}), ADA]))
    rows = read(tmp_path / "written.csv")
    assert [(row["student"], row["exercise"], row["max_points"], row["points"]) for row in rows] == [
        ("ada", "2.6", "4", ""),
        ("ada", "3.6", "4", ""),
        ("zoe", "2.6", "4", ""),
    ]
    assert [row["answer"] for row in rows] == ["The variance is d_k.", "(nothing written)", "'=x"]
    assert all(criterion.text in rows[0]["rubric"] for criterion in WRITTEN["2.6"].rubric)
    assert list(rows[0])[:5] == ["student", "exercise", "max_points", "points", "comment"]


@given(student=anything, typed=anything, comment=anything, answer=anything)
def test_what_was_filled_in_survives_any_number_of_runs(tmp_path_factory, student, typed, comment, answer):
    path = tmp_path_factory.getbasetemp() / "round_trip.csv"
    results = [StudentResult(student, written={"2.6": answer}), StudentResult(f"{student} too", written={"2.6": "b"})]
    marks = up_to_date({}, results)
    key = (shown(student), "2.6")
    marks[key] = replace(marks[key], typed=typed, comment=comment)
    write_written(path, marks)
    first, before = read_written(path), path.read_bytes()
    assert (first[key].typed, first[key].comment) == (shown(typed).strip(), shown(comment))
    write_written(path, up_to_date(first, results))
    assert read_written(path) == first
    write_written(path, up_to_date(read_written(path), results))
    assert typed != typed.strip() or path.read_bytes() == before


def test_without_a_file_there_are_no_marks(tmp_path):
    assert read_written(tmp_path / "written.csv") == {}


TABLE = [
    ["student", "exercise", "points", "comment", "answer"],
    ["Zoë", "2.6", "2,5", "fürs Erste; gut", "weil √d, nicht d"],
    ["sam lee", "3.6", "4", "", "(nothing written)"],
]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 2, 1, 0, 3)])
def test_tables_saved_by_other_programs_are_read(tmp_path, delimiter, encoding, quoting, order):
    path = tmp_path / "written.csv"
    with path.open("w", encoding=encoding, errors="replace", newline="") as file:
        csv.writer(file, delimiter=delimiter, quoting=quoting).writerows([row[i] for i in order] for row in TABLE)
    marks = read_written(path)
    assert marks["Zoë", "2.6"].points("2.6") == 2.5
    assert marks["Zoë", "2.6"].comment == "fürs Erste; gut"
    assert marks["sam lee", "3.6"].points("3.6") == 4
    current = up_to_date(marks, [StudentResult("Zoë", written={"2.6": "weil √d,\nnicht d"})])
    assert not current["Zoë", "2.6"].changed  # other line breaks and a lost root are no other answer


def test_a_table_that_mixes_two_encodings_is_read():
    assert decoded("Zoë √".encode() + "ü".encode("cp1252") + b"\x81") == "Zoë √ü\ufffd"


def test_columns_that_the_instructor_added_are_kept(tmp_path):
    path = tmp_path / "written.csv"
    path.write_text("Student,EXERCISE,points,marked by,\nada,2.6,3,me,\n,,,,\n")
    write_written(path, up_to_date(read_written(path), [ADA]))
    rows = read(path)
    assert [row["marked by"] for row in rows] == ["me", ""]
    assert rows[0]["points"] == "3"


@pytest.mark.parametrize("typed", ["five", "5", "-1", "4.1", "2/4", "nan", "inf", "1e0", "1_0", "٣", "9" * 400])
def test_points_that_are_no_number_in_range_are_kept_and_named_but_do_not_count(tmp_path, typed):
    path = tmp_path / "written.csv"
    marks = {("ada", "2.6"): Mark(typed)}
    write_written(path, up_to_date(marks, [ADA]))
    marks = read_written(path)
    assert marks["ada", "2.6"].typed == typed
    assert points_of(ADA, marks)["2.6"] is None
    assert typed in remarks_on(ADA, marks)[0]
    assert remarks_on(ADA, marks)[0].startswith("2.6: ")


@pytest.mark.parametrize(
    ("typed", "points"), [("0", 0), ("4", 4), (" 2.5", 2.5), ("2,5", 2.5), (",5", 0.5), ("4.0", 4)]
)
def test_points_in_range_count(tmp_path, typed, points):
    path = tmp_path / "written.csv"
    write_written(path, {("ada", "2.6"): Mark(typed)})
    marks = read_written(path)
    assert points_of(ADA, marks)["2.6"] == points
    assert remarks_on(ADA, marks) == []


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "lacks"),
        (b"student,exercise,comment\nada,2.6,good\n", "points"),
        (b"PK\x03\x04\xff\x00\x81 a workbook", "lacks"),
        (b'student,exercise,points\nada,2.6,"3\nsam,2.6,4\n', "unexpected end"),
        (b"student,exercise,points,comment\nada,2.6,3,good, but short\n", "row 2 has more cells"),
        (b"student,exercise,points\nada,2.6,3\nada,2.6,4\n", "row 3 is the second"),
        (b"student,exercise,points,points\nada,2.6,3,4\n", "two columns"),
    ],
)
def test_tables_that_cannot_be_understood_are_refused_by_name(tmp_path, content, complaint):
    path = tmp_path / "written.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=complaint) as caught:
        read_written(path)
    assert str(path) in str(caught.value)


def test_a_folder_in_place_of_the_table_is_refused(tmp_path):
    with pytest.raises(ValueError, match="can't be read"):
        read_written(tmp_path)


def test_rows_of_students_who_are_gone_are_kept_at_the_end_and_named(tmp_path):
    gone = Mark("3", "Good.", answer="an old answer")
    marks = up_to_date({("Zoe\n", "2.6"): gone, ("ada", "2.6"): Mark("4"), ("x", "3.6"): Mark()}, [ADA])
    assert list(marks) == [("ada", "2.6"), ("ada", "3.6"), ("Zoe\n", "2.6"), ("x", "3.6")]
    assert marks["Zoe\n", "2.6"] == gone
    (sentence,) = unclaimed(marks, [ADA])  # nothing is lost with the row of x
    assert "2.6 by 'Zoe\\n'" in sentence
    write_written(tmp_path / "written.csv", marks)
    assert read(tmp_path / "written.csv")[2]["answer"] == "an old answer"


def test_an_answer_that_changes_keeps_its_points_and_is_flagged_until_somebody_looks(tmp_path):
    path = tmp_path / "written.csv"
    write_written(path, up_to_date({("ada", "2.6"): Mark("3", answer="Another answer.")}, [ADA]))
    for _ in range(2):
        marks = up_to_date(read_written(path), [ADA])
        assert points_of(ADA, marks)["2.6"] == 3
        assert marks["ada", "2.6"].answer == "The variance is d_k."
        assert remarks_on(ADA, marks) == ["2.6: the answer changed after it was marked (see written.csv)."]
        write_written(path, marks)
    path.write_bytes(path.read_bytes().replace(CHANGED.encode(), b""))
    assert remarks_on(ADA, up_to_date(read_written(path), [ADA])) == []


def test_an_answer_that_changes_before_it_is_marked_is_no_news():
    marks = up_to_date({("ada", "2.6"): Mark(answer="Another answer.")}, [ADA])
    assert remarks_on(ADA, marks) == []


def test_a_number_that_lost_its_zeros_in_a_spreadsheet_still_finds_its_student():
    results = [StudentResult("007", written={"2.6": "a"})]
    assert list(up_to_date({("7", "2.6"): Mark("3")}, results)) == [("007", "2.6")]
    both = [*results, StudentResult("7", written={"2.6": "b"})]
    assert up_to_date({("7", "2.6"): Mark("3")}, both)["007", "2.6"].typed == ""


def test_a_very_long_answer_fits_in_a_cell(tmp_path):
    path = tmp_path / "written.csv"
    result = StudentResult("ada", written={"2.6": "because " * 50_000})
    write_written(path, up_to_date({("ada", "2.6"): Mark("1")}, [result]))
    marks = up_to_date(read_written(path), [result])
    assert LONGEST_ANSWER < len(marks["ada", "2.6"].answer) < 32_767
    assert not remarks_on(result, marks)
