"""The two tables: grades.csv for the record, and written.csv, in which a person marks the answers in words."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from utils.checks import EXERCISES, WRITTEN
from utils.grading.atomic import write_text
from utils.grading.results import StudentResult


def chapter_of(exercise_id: str) -> str:
    """The chapter that an exercise belongs to.

    Example:
        >>> chapter_of("3.2")
        '3'
    """
    return exercise_id.partition(".")[0]


MAX_POINTS: dict[str, int] = {
    exercise_id: exercise.points
    for exercise_id, exercise in sorted(
        {**EXERCISES, **WRITTEN}.items(), key=lambda item: [int(number) for number in item[0].split(".")]
    )
}
CHAPTERS: tuple[str, ...] = tuple(dict.fromkeys(map(chapter_of, MAX_POINTS)))

NEEDED = ("student", "exercise", "points")
COLUMNS = ("student", "exercise", "max_points", "points", "comment", "changed", "answer", "rubric")
NOTHING_WRITTEN = "(nothing written)"
CHANGED = "The answer changed after it was marked. Empty this cell once you have looked."
LONGEST_ANSWER = 30_000  # a cell of a spreadsheet holds 32,767 characters


@dataclass(frozen=True)
class Mark:
    """What stands in written.csv for one answer.

    Attributes:
        typed: the points, exactly as typed.
        comment: for the learner.
        changed: not empty if the answer changed after it was marked and nobody has looked since.
        answer: the answer as the table shows it; None where the column is missing.
        extra: the cells of columns that the instructor added.
    """

    typed: str = ""
    comment: str = ""
    changed: str = ""
    answer: str | None = None
    extra: dict[str, str] = field(default_factory=dict)

    def points(self, exercise_id: str) -> float | None:
        """The points if they are a number from 0 to full marks, else None.

        Example:
            >>> Mark("2,5").points("2.6"), Mark("5").points("2.6")
            (2.5, None)
        """
        if not re.fullmatch(r"[0-9]*[.,]?[0-9]+", self.typed):
            return None
        points = float(self.typed.replace(",", "."))
        return points if points <= MAX_POINTS[exercise_id] else None


Marks = dict[tuple[str, str], Mark]  # by student, as ``shown``, and exercise


# Points


def points_of(result: StudentResult, marks: Marks) -> dict[str, float | None]:
    """Points by exercise of the whole course: 0 for what was not handed in, None for what waits for its mark.

    Example:
        >>> points = points_of(StudentResult("ada", written={"2.6": "because"}), {})
        >>> points["2.5"], points["2.6"]
        (0, None)
    """
    points: dict[str, float | None] = dict.fromkeys(MAX_POINTS, 0)
    points |= {exercise_id: found.report.points for exercise_id, found in result.exercises.items()}
    for exercise_id in result.written:
        points[exercise_id] = marks.get((shown(result.student), exercise_id), Mark()).points(exercise_id)
    return points


def total(points: dict[str, float | None], chapter: str = "") -> float:
    """The sum of the points that are known, of one chapter or of all.

    Example:
        >>> total({"1.1": 3, "2.5": 1, "2.6": None}), total({"1.1": 3, "2.6": 0.5}, "2")
        (4, 0.5)
    """
    return number(sum(p or 0 for exercise_id, p in points.items() if chapter in ("", chapter_of(exercise_id))))


def handed_in(result: StudentResult) -> list[str]:
    """The chapters that a student handed in.

    Example:
        >>> handed_in(StudentResult("ada", written={"2.6": ""}))
        ['2']
    """
    found = {*map(chapter_of, (*result.exercises, *result.written)), *result.files}
    return [chapter for chapter in CHAPTERS if chapter in found]


def number(points: float) -> float:
    """Points as people write them.

    Example:
        >>> number(2.0), number(2.5)
        (2, 2.5)
    """
    return int(points) if points == int(points) else round(points, 2)


def by_name(results: Iterable[StudentResult]) -> list[StudentResult]:
    """Sorted by student.

    Example:
        >>> [result.student for result in by_name([StudentResult("sam"), StudentResult("ada")])]
        ['ada', 'sam']
    """
    return sorted(results, key=lambda result: result.student)


# Cells


def shown(text: str) -> str:
    r"""A text as a file can hold it: halves of surrogate pairs, which UTF-8 has no place for, are spelled out.

    Example:
        >>> print(shown("Zo\udce9"))
        Zo\udce9
    """
    # some readers of CSV stop at the character 0
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


# what makes spreadsheets take a text for a formula; signs of full width count where East Asian keyboards are used
FORMULA = re.compile(r"'*(?:\s*[=+\-@＝＋－＠]|[\t\r\n])")


def neutral(text: str) -> str:
    """A text that spreadsheets don't take for a formula; ``original`` is the way back.

    Example:
        >>> neutral("=1+1"), neutral("ada")
        ("'=1+1", 'ada')
    """
    return f"'{text}" if FORMULA.match(text) else text


def original(text: str) -> str:
    """The text before ``neutral``. A quote that was there before has got another one, so that this is exact.

    Example:
        >>> original("'=1+1"), original(neutral("'=1+1"))
        ('=1+1', "'=1+1")
    """
    return text[1:] if text.startswith("'") and FORMULA.match(text[1:]) else text


def csv_text(rows: Iterable[Sequence[str | float | None]]) -> str:
    r"""Rows as CSV; every text is made harmless.

    Example:
        >>> csv_text([["=x", 2, 2.5, None]])
        "'=x,2,2.5,\r\n"
    """
    file = io.StringIO()
    writer = csv.writer(file)
    for row in rows:
        writer.writerow([neutral(shown(cell)) if isinstance(cell, str) else cell for cell in row])
    return file.getvalue()


# grades.csv


def write_grades(path: Path, results: Iterable[StudentResult], marks: Marks) -> None:
    """Write grades.csv: a row per student, a column per exercise and per chapter, the total and the flags.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "grades.csv"
        >>> write_grades(path, [StudentResult("ada", flags=("Late.",))], {})
        >>> path.read_text().splitlines()[1][-13:]
        '0,0,0,0,Late.'
    """
    rows: list[list[str | float | None]] = [
        ["student", *MAX_POINTS, *(f"chapter {chapter}" for chapter in CHAPTERS), "total", "flags"]
    ]
    for result in by_name(results):
        points = points_of(result, marks)
        cells = [None if p is None else number(p) for p in points.values()]
        totals = [total(points, chapter) for chapter in CHAPTERS]
        flags = "; ".join((*result.flags, *remarks_on(result, marks)))
        rows.append([result.student, *cells, *totals, total(points), flags])
    write_text(path, csv_text(rows))


# written.csv


def read_written(path: Path) -> Marks:
    """What an instructor filled in, whatever program saved it. No file: nothing.

    Raises:
        ValueError: the file can't be understood. It must not be overwritten then, for it may hold hours of work.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "written.csv"
        >>> _ = path.write_text("exercise;student;points\\n2.6;ada;2,5\\n")
        >>> read_written(path)["ada", "2.6"].points("2.6")
        2.5
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror or error}") from error
    try:
        header, *rows = rows_in(decoded(content))
        marks: Marks = {}
        for row_number, cells in enumerate(rows, start=2):
            if not any(cell.strip() for cell in cells):
                continue
            if any(cell.strip() for cell, name in zip_long(cells, header) if not name):
                raise ValueError(f"row {row_number} has more cells than there are columns")
            key, mark = mark_in({name: original(cell) for cell, name in zip_long(cells, header) if name})
            if marks.setdefault(key, mark) != mark:
                raise ValueError(f"row {row_number} is the second one for exercise {key[1]} of {key[0]!r}")
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: {error}. Mend the file, or move it away to start a new one.") from error
    return marks


def decoded(content: bytes) -> str:
    """Text in UTF-8 or in Windows' own encoding, or in a mixture, which Excel makes of UTF-8 without a mark.

    Example:
        >>> decoded("é".encode() + "é".encode("cp1252"))
        'éé'
    """
    text = content.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    return re.sub("[\udc80-\udcff]", lambda byte: bytes([ord(byte[0]) - 0xDC00]).decode("cp1252", "replace"), text)


def rows_in(text: str) -> list[list[str]]:
    """The rows of a table between whose cells stand commas, semicolons or tabs; first the columns' names.

    Raises:
        ValueError, csv.Error: there is no such table.

    Example:
        >>> rows_in("Student;exercise;points\\nada;2.6;1")
        [['student', 'exercise', 'points'], ['ada', '2.6', '1']]
    """
    for delimiter in ",;\t":
        # strict: a quotation mark that is never closed would swallow the rows below it
        table = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        try:
            header = [known(name) for name in next(table, [])]
        except csv.Error:
            continue
        if set(NEEDED) <= set(header):
            if twice := {name for name in header if name and header.count(name) > 1}:
                raise ValueError(f"two columns are named {', '.join(sorted(twice))}")
            return [header, *table]
    raise ValueError(f"the first row lacks at least one of the columns {', '.join(NEEDED)}")


def known(name: str) -> str:
    """A column's name without what spreadsheets and people add.

    Example:
        >>> known(" Points "), known("Marked by")
        ('points', 'Marked by')
    """
    plain = name.strip().lower()
    return plain if plain in COLUMNS else original(name) if plain else ""


def zip_long(cells: list[str], header: list[str]) -> list[tuple[str, str]]:
    """Cells with their columns' names, as many as there are of either.

    Example:
        >>> zip_long(["ada"], ["student", "points"])
        [('ada', 'student'), ('', 'points')]
    """
    length = max(len(cells), len(header))
    return list(zip(cells + [""] * (length - len(cells)), header + [""] * (length - len(header)), strict=True))


def mark_in(row: dict[str, str]) -> tuple[tuple[str, str], Mark]:
    """Whom a row is about and what it says.

    Example:
        >>> mark_in({"student": "ada", "exercise": "2,6", "points": " 3 "})
        (('ada', '2.6'), Mark(typed='3', comment='', changed='', answer=None, extra={}))
    """
    key = (row["student"], row["exercise"].strip().replace(",", "."))
    extra = {name: cell for name, cell in row.items() if name not in COLUMNS}
    filled_in = (row["points"].strip(), row.get("comment", ""), row.get("changed", "").strip())
    return key, Mark(*filled_in, row.get("answer"), extra)


def up_to_date(marks: Marks, results: Iterable[StudentResult]) -> Marks:
    """A mark for every answer that there is now, by student and exercise, then those whose answer is gone.

    Example:
        >>> marks = {("zoe", "2.6"): Mark("1"), ("ada", "2.6"): Mark("3")}
        >>> list(up_to_date(marks, [StudentResult("ada", written={"2.6": "because"})]))
        [('ada', '2.6'), ('zoe', '2.6')]
    """
    results, left = by_name(results), dict(marks)
    students = {shown(result.student) for result in results}
    current: Marks = {}
    for result in results:
        student = shown(result.student)
        for exercise_id in sorted(result.written):
            mark = left.pop((student, exercise_id), None)
            stripped = student.lstrip("0")
            if mark is None and student.isdecimal() and stripped not in students:
                mark = left.pop((stripped, exercise_id), None)  # spreadsheets make 7 of 007
            current[student, exercise_id] = on_new_answer(mark or Mark(), result.written[exercise_id])
    return current | left


def on_new_answer(mark: Mark, text: str) -> Mark:
    """The mark with the answer as it is now, and with a word if another one was marked.

    Example:
        >>> on_new_answer(Mark("3", answer="the root"), "the  root ").changed
        ''
    """
    answer = shown(text.strip()) or NOTHING_WRITTEN
    if len(answer) > LONGEST_ANSWER:
        answer = f"{answer[:LONGEST_ANSWER]} … (the feedback page has the rest)"
    # what a program that saves in Windows' own encoding makes of the other characters
    poorer = answer.encode("cp1252", "replace").decode("cp1252")
    is_same = mark.answer is None or mark.answer.split() in (answer.split(), poorer.split())
    changed = (mark.changed if is_same else CHANGED) if mark.typed else ""
    return replace(mark, answer=answer, changed=changed)


def write_written(path: Path, marks: Marks) -> None:
    """Write written.csv: a row for every answer in words, with its rubric and what was filled in before.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "written.csv"
        >>> write_written(path, {("ada", "2.6"): Mark("3", "Well done.", answer="It keeps the variance at 1.")})
        >>> read_written(path)["ada", "2.6"].comment
        'Well done.'
    """
    extra = list(dict.fromkeys(name for mark in marks.values() for name in mark.extra))
    rows: list[list[str | float | None]] = [[*COLUMNS, *extra]]
    for (student, exercise_id), mark in marks.items():
        cells = [mark.typed, mark.comment, mark.changed, mark.answer or "", rubric_of(exercise_id)]
        added = [mark.extra.get(name, "") for name in extra]
        rows.append([student, exercise_id, MAX_POINTS.get(exercise_id), *cells, *added])
    write_text(path, csv_text(rows))


def rubric_of(exercise_id: str) -> str:
    """What earns points, one criterion per line, and the remark for the marker.

    Example:
        >>> rubric_of("3.6").splitlines()[0]
        '1 point: Gives a clear verdict: with the renormalisation nothing leaks.'
    """
    if exercise_id not in WRITTEN:
        return ""
    exercise = WRITTEN[exercise_id]
    criteria = [f"{c.points} point{'s' * (c.points != 1)}: {c.text}" for c in exercise.rubric]
    return "\n".join([*criteria, exercise.remark])


def remarks_on(result: StudentResult, marks: Marks) -> list[str]:
    """What is odd about the marks of a student's written answers, one sentence each.

    Example:
        >>> remarks_on(StudentResult("ada", written={"2.6": ""}), {("ada", "2.6"): Mark("lots")})
        ["2.6: 'lots' in written.csv is no number from 0 to 4 and doesn't count."]
    """
    remarks = []
    for exercise_id in sorted(result.written):
        mark = marks.get((shown(result.student), exercise_id), Mark())
        if mark.typed and mark.points(exercise_id) is None:
            limits = f"from 0 to {MAX_POINTS[exercise_id]}"
            remarks.append(f"{exercise_id}: {mark.typed!r} in written.csv is no number {limits} and doesn't count.")
        if mark.changed:
            remarks.append(f"{exercise_id}: the answer changed after it was marked (see written.csv).")
    return remarks


def unclaimed(marks: Marks, results: Iterable[StudentResult]) -> list[str]:
    """One sentence for each mark in the table that counts for nobody.

    Example:
        >>> unclaimed({("ada", "2.6"): Mark("3")}, [])
        ["written.csv: there is no answer to 2.6 by ada; the row is kept, but doesn't count."]
    """
    answers = {(shown(result.student), exercise_id) for result in results for exercise_id in result.written}
    return [
        f"written.csv: there is no answer to {named(exercise_id)} by {named(student)}; "
        "the row is kept, but doesn't count."
        for (student, exercise_id), mark in marks.items()
        if (student, exercise_id) not in answers and (mark.typed or mark.comment)
    ]


def named(student: str) -> str:
    r"""A student's name for the terminal, where a line break or an escape code in it must do nothing.

    Example:
        >>> print(named("sam lee"), named("sam\nlee"))
        sam lee 'sam\nlee'
    """
    return student if student.isprintable() else ascii(student)
