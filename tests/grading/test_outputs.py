"""All files of a marked class together: repeated runs, killed runs, and what a person typed in between."""

import csv
import os
from dataclasses import replace
from pathlib import Path

import pytest

from utils.checks import EXERCISES, check
from utils.grading.atomic import remove_leftovers, write_text
from utils.grading.feedback import feedback_names
from utils.grading.outputs import write_outputs
from utils.grading.results import ExerciseResult, StudentResult

RIGHT = ExerciseResult(check("1.1", EXERCISES["1.1"].reference))
CLASS = [
    StudentResult("sam lee", {"1.1": RIGHT}, {"2.6": "because"}, seconds=1.0),
    StudentResult("ada", {"1.1": RIGHT}, {"2.6": "the variance"}, seconds=2.0),
    StudentResult("Zo\udce9\n<=1>", flags=("Nothing \udce9.",)),
]


def files(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def fill_in(path: Path, student: str, **cells: str) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        delimiter = file.readline()[len("student")]
        file.seek(0)
        rows = list(csv.DictReader(file, delimiter=delimiter))
    for row in rows:
        if row["student"] == student:
            row.update(cells)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), delimiter=";")
        table.writeheader()
        table.writerows(rows)


def test_everything_is_written_and_a_second_run_changes_nothing(tmp_path):
    out = tmp_path / "a" / "marks"
    assert write_outputs(out, CLASS) == []
    pages = {f"feedback/{name}" for name in feedback_names(r.student for r in CLASS).values()}
    assert set(files(out)) == {"grades.csv", "written.csv", "summary.html", *pages}
    before = files(out)
    assert write_outputs(out, list(reversed(CLASS))) == []
    assert files(out) == before


def test_marks_typed_between_two_runs_reach_every_file(tmp_path):
    write_outputs(tmp_path, CLASS)
    fill_in(tmp_path / "written.csv", "ada", points="2,5", comment="Well said.")
    fill_in(tmp_path / "written.csv", "sam lee", points="lots")
    (message,) = write_outputs(tmp_path, CLASS)
    assert message == "sam lee, 2.6: 'lots' in written.csv is no number from 0 to 4 and doesn't count."
    with (tmp_path / "grades.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert (rows["ada"]["2.6"], rows["ada"]["total"]) == ("2.5", "5.5")
    assert (rows["sam lee"]["2.6"], rows["sam lee"]["total"]) == ("", "3")
    assert "'lots'" in rows["sam lee"]["flags"]
    assert "Well said." in (tmp_path / "feedback" / "ada.html").read_text(encoding="utf-8")
    assert "'lots'" not in (tmp_path / "feedback" / feedback_names(["sam lee"])["sam lee"]).read_text(encoding="utf-8")
    assert "lots" in (tmp_path / "summary.html").read_text(encoding="utf-8")
    assert b",lots," in (tmp_path / "written.csv").read_bytes()


def test_a_table_that_cannot_be_understood_stops_before_anything_is_written(tmp_path):
    write_outputs(tmp_path, CLASS)
    (tmp_path / "written.csv").write_text("three hours of work")
    before = files(tmp_path)
    with pytest.raises(ValueError, match=r"written\.csv.*lacks"):
        write_outputs(tmp_path, CLASS[:1])
    assert files(tmp_path) == before


def test_marks_of_a_student_who_is_gone_are_kept_until_they_return(tmp_path):
    write_outputs(tmp_path, CLASS)
    fill_in(tmp_path / "written.csv", "ada", points="4")
    (message,) = write_outputs(tmp_path, CLASS[:1])
    assert "2.6 by ada" in message
    assert not (tmp_path / "feedback" / "ada.html").exists()
    assert write_outputs(tmp_path, CLASS) == []
    assert b"\r\nada,3," in (tmp_path / "grades.csv").read_bytes()
    assert b",4,,,the variance," in (tmp_path / "written.csv").read_bytes()


def test_pages_of_other_people_stay_and_leftovers_of_killed_runs_go(tmp_path):
    write_outputs(tmp_path, CLASS)
    (tmp_path / "feedback" / "mine.html").write_text("my own notes")
    (tmp_path / "feedback" / ".ada.html.tmp-me").write_text("my own")
    leftovers = [tmp_path / f".grades.csv.tmp-{'a' * 32}", tmp_path / "feedback" / f".ada.html.tmp-{'b' * 32}"]
    for leftover in leftovers:
        leftover.touch()
    write_outputs(tmp_path, CLASS[:1])
    assert (tmp_path / "feedback" / "mine.html").exists()
    assert (tmp_path / "feedback" / ".ada.html.tmp-me").exists()
    assert not any(leftover.exists() for leftover in leftovers)


def test_an_answer_that_changes_is_in_the_messages(tmp_path):
    write_outputs(tmp_path, CLASS)
    fill_in(tmp_path / "written.csv", "ada", points="4")
    changed = [replace(CLASS[1], written={"2.6": "something else"}), CLASS[0]]
    assert write_outputs(tmp_path, changed)[0] == "ada, 2.6: the answer changed after it was marked (see written.csv)."


def test_a_name_cannot_write_to_the_terminal(tmp_path):
    write_outputs(tmp_path, [StudentResult("\x1b[2J\n", written={"2.6": "a"})])
    fill_in(tmp_path / "written.csv", "\x1b[2J\n", points="\x1b[2J!")
    (message,) = write_outputs(tmp_path, [StudentResult("\x1b[2J\n", written={"2.6": "a"})])
    assert message.isprintable()


# One file


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "grades.csv"
    write_text(path, "old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "new")
    assert files(tmp_path) == {"grades.csv": b"old"}


def test_the_name_of_a_half_written_file_is_known_to_the_cleaner(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda temporary, path: os.link(temporary, f"{temporary}"[:-32] + "c" * 32))
    write_text(tmp_path / "a\nb.csv", "half")
    assert len(files(tmp_path)) == 1
    remove_leftovers(tmp_path)
    assert files(tmp_path) == {}


def test_texts_are_written_as_they_are(tmp_path):
    path = tmp_path / "x"
    write_text(path, "a\r\nb\n\udce9é")
    assert path.read_bytes() == b"a\r\nb\n\\udce9\xc3\xa9"
    assert path.stat().st_mode & 0o777 == 0o644 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
