"""Marking a folder of students: what is written, what is kept, and what a stop leaves behind."""

import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from answer_variants import variants
from classroom import CHAPTERS, exercises_in, handed_in, written

from utils.checks import EXERCISES
from utils.grading import batch
from utils.grading.__main__ import main
from utils.grading.batch import Store
from utils.grading.sandbox import pick_kind
from utils.grading.submissions import Submission
from utils.release import ROOT

CHAPTER = CHAPTERS[2]  # holds a written answer, too
FULL = {e: EXERCISES[e].points for e in exercises_in(CHAPTER)}
MOMENTS = int(os.environ.get("GRADING_KILLS", "3"))  # 10 before a release
TEXT = "Nothing leaks: every row is divided by the sum of what is left."


def hand_in(folder: Path, student: str, *right: str) -> Path:
    """Put a notebook there in which these exercises are right, the others open."""
    notebook = handed_in(CHAPTER, {e: variants(e)[0] for e in right})
    for cell in notebook.cells:
        if cell.source.startswith("**EXERCISE 3.6**"):
            cell.source = f"**EXERCISE 3.6**\n\n{TEXT}"
    path = folder / student / CHAPTER.name
    written(notebook, path)
    os.utime(path, (1_000_000, 1_000_000))
    return path


@pytest.fixture
def submissions(tmp_path) -> Path:
    """Two students and one who handed nothing in."""
    folder = tmp_path / "in"
    hand_in(folder, "student_1", *FULL)
    hand_in(folder, "student_2", "3.2")
    (folder / "student_3").mkdir()
    return folder


@pytest.fixture
def out(tmp_path) -> Path:
    """Where the marks go."""
    return tmp_path / "out"


def run(folder: Path, out: Path, *options: str) -> int:
    """The command line in this process."""
    return main([str(folder), "--out", str(out), "--jobs", "2", *options])


def grades(out: Path) -> dict[str, dict[str, str]]:
    """The rows of grades.csv by student."""
    with (out / "grades.csv").open(newline="", encoding="utf-8") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


def everything(out: Path) -> dict[str, bytes]:
    """What people get: the tables and the pages."""
    files = [out / "grades.csv", out / "written.csv", *sorted((out / "feedback").glob("*"))]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def fill_in(out: Path, student: str, points: str, comment: str = "") -> None:
    """Mark a written answer as a person does."""
    path = out / "written.csv"
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    for row in rows:
        if row[0] == student:
            row[header.index("points")], row[header.index("comment")] = points, comment
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def times(out: Path) -> dict[str, int]:
    """When each student's result was stored."""
    return {path.name: path.stat().st_mtime_ns for path in (out / ".work").glob("*.json")}


# A run -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("needs_sandbox")
def test_a_run_writes_marks_pages_written_answers_and_the_summary(submissions, out, capsys):
    assert run(submissions, out) == 0
    rows = grades(out)
    assert list(rows) == ["student_1", "student_2", "student_3"]
    assert {e: int(rows["student_1"][e]) for e in FULL} == FULL
    assert rows["student_2"]["total"] == rows["student_2"]["chapter 3"] == str(FULL["3.2"])
    assert rows["student_3"]["total"] == "0" and "no notebook" in rows["student_3"]["flags"]
    assert sorted(path.name for path in (out / "feedback").iterdir()) == [f"student_{n}.html" for n in (1, 2, 3)]
    assert TEXT in (out / "written.csv").read_text(encoding="utf-8")
    assert {path.name for path in out.iterdir()} == {"grades.csv", "written.csv", "feedback", "summary.html", ".work"}
    assert (out / ".work").stat().st_mode & 0o077 == 0  # the seed is nobody else's business
    assert "3 students" in capsys.readouterr().out


@pytest.mark.usefixtures("needs_sandbox")
def test_marks_may_lie_inside_the_submissions(submissions):
    assert run(submissions, submissions / "marks") == 0
    assert run(submissions, submissions / "marks", "--resume") == 0
    assert list(grades(submissions / "marks")) == ["student_1", "student_2", "student_3"]


@pytest.mark.usefixtures("needs_sandbox")
def test_filled_in_points_survive_every_kind_of_run_and_count(submissions, out):
    run(submissions, out)
    fill_in(out, "student_2", "2", "Say why.")
    for options in (["--resume"], []):
        assert run(submissions, out, *options) == 0
        assert grades(out)["student_2"]["3.6"] == "2"
        assert grades(out)["student_2"]["total"] == str(FULL["3.2"] + 2)
        assert "Say why." in (out / "feedback" / "student_2.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("needs_sandbox")
def test_one_student_is_marked_again_and_the_others_stay(submissions, out):
    run(submissions, out)
    before = times(out)
    hand_in(submissions, "student_1", "3.1")
    hand_in(submissions, "student_2", *FULL)
    assert run(submissions, out, "--student", "student_2") == 0
    assert len({name for name, when in times(out).items() if when != before[name]}) == 1
    assert grades(out)["student_1"]["3.2"] == str(FULL["3.2"])  # as it was before
    assert grades(out)["student_2"]["3.1"] == str(FULL["3.1"])


@pytest.mark.usefixtures("needs_sandbox")
def test_going_on_marks_who_is_new_or_changed_and_nobody_else(submissions, out):
    run(submissions, out)
    before, seed = times(out), (out / ".work" / "seed").read_text()
    assert run(submissions, out, "--resume") == 0
    assert times(out) == before
    hand_in(submissions, "student_4", "3.1")
    os.utime(hand_in(submissions, "student_2", *FULL), (2_000_000, 2_000_000))
    assert run(submissions, out, "--resume") == 0
    changed = {name for name, when in times(out).items() if before.get(name) != when}
    assert len(changed) == 2
    assert (out / ".work" / "seed").read_text() == seed
    assert {e: int(grades(out)["student_2"][e]) for e in FULL} == FULL
    assert list(grades(out))[-1] == "student_4"


@pytest.mark.usefixtures("needs_sandbox")
def test_a_fresh_run_forgets_who_is_gone_and_draws_a_new_seed(submissions, out):
    run(submissions, out)
    seed = (out / ".work" / "seed").read_text()
    shutil.rmtree(submissions / "student_2")
    assert run(submissions, out) == 0
    assert list(grades(out)) == ["student_1", "student_3"]
    assert not (out / "feedback" / "student_2.html").exists()
    assert (out / ".work" / "seed").read_text() != seed


# What stops a run --------------------------------------------------------------------------------------------


def test_without_a_sandbox_nothing_is_written(submissions, out, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr("utils.grading.__main__.pick_kind", pick_kind.__wrapped__)
    assert run(submissions, out) == 2
    assert "apt install bubblewrap" in capsys.readouterr().err
    assert not out.exists()


def test_without_protection_every_page_says_so(submissions, out, capsys):
    assert run(submissions, out, "--no-sandbox") == 0
    assert "WARNING: --no-sandbox" in capsys.readouterr().err
    assert {e: int(grades(out)["student_1"][e]) for e in FULL} == FULL
    assert "without a sandbox" in (out / "feedback" / "student_1.html").read_text(encoding="utf-8")
    assert "sandbox" in (out / "summary.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("needs_sandbox")
def test_a_table_that_can_not_be_read_stops_the_run_before_marking(submissions, out, capsys, monkeypatch):
    monkeypatch.setattr(batch, "mark_student", lambda *_: pytest.fail("it has begun to mark"))
    out.mkdir()
    (out / "written.csv").write_text("hours of work", encoding="utf-8")
    assert run(submissions, out) == 2
    assert "written.csv" in capsys.readouterr().err
    assert (out / "written.csv").read_text(encoding="utf-8") == "hours of work"
    assert not (out / "grades.csv").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--student", "nobody"], "no student is called nobody"), (["--jobs", "0"], "--jobs: expected at least 1")],
)
@pytest.mark.usefixtures("needs_sandbox")
def test_a_wrong_option_is_told(submissions, out, capsys, options, said):
    assert run(submissions, out, *options) == 2
    assert said in capsys.readouterr().err and not out.exists()


def test_a_folder_without_students_is_told(tmp_path, out, capsys):
    assert run(tmp_path / "nowhere", out) == 2
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty", out) == 2
    assert "no student was found" in capsys.readouterr().err and not out.exists()


@pytest.mark.usefixtures("needs_sandbox")
def test_an_error_while_marking_one_student_stops_no_other(submissions, out, capsys, monkeypatch):
    right = batch.mark_student

    def fails_once(folder, submission, run):
        if submission.student == "student_2":
            raise RuntimeError("odd \udce9")
        return right(folder, submission, run)

    monkeypatch.setattr(batch, "mark_student", fails_once)
    assert run(submissions, out) == 1
    assert "student_2 could not be marked (RuntimeError: odd" in capsys.readouterr().err
    assert {"student_1", "student_3"} <= set(grades(out))
    monkeypatch.setattr(batch, "mark_student", right)
    assert run(submissions, out, "--resume") == 0
    assert "student_2" in grades(out)


@pytest.mark.usefixtures("needs_sandbox")
def test_a_student_who_could_not_be_marked_still_has_a_row(submissions, out, monkeypatch):
    def fails(*_):
        raise RuntimeError

    monkeypatch.setattr(batch, "mark_student", fails)
    run(submissions, out)
    assert list(grades(out)) == ["student_1", "student_2", "student_3"]


# The store -----------------------------------------------------------------------------------------------------


def test_a_damaged_result_counts_as_none(tmp_path):
    store = Store(tmp_path / "work")
    store.seed(keep=False)
    for content in ("", "{", "[]", "3", "null", '{"stamp": "x"}', '{"stamp": "x", "result": "{}"}', "\0" * 100):
        store._file("student_1").write_text(content)
        assert store.load("student_1") is None


def test_a_damaged_seed_starts_afresh(tmp_path):
    store = Store(tmp_path / "work")
    seed = store.seed(keep=True)
    assert store.seed(keep=True) == seed
    (tmp_path / "work" / "seed").write_text("half")
    assert store.seed(keep=True) != seed


# Killed ------------------------------------------------------------------------------------------------------------


def started(folder: Path, out: Path, *options: str) -> subprocess.Popen:
    """The real program, in a process group of its own."""
    command = [sys.executable, "-m", "utils.grading", str(folder), "--out", str(out), *options]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def family_of(process: subprocess.Popen) -> list[psutil.Process]:
    """All that a run has started, sandboxes included."""
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def are_gone(family: list[psutil.Process]) -> bool:
    """Whether none of these processes is left, some time later."""
    _, alive = psutil.wait_procs(family, timeout=10)
    return all(process.status() == psutil.STATUS_ZOMBIE for process in alive if process.is_running())


@pytest.mark.usefixtures("needs_sandbox")
def test_a_run_that_is_killed_goes_on_to_the_same_end(submissions, tmp_path):
    began = time.monotonic()
    assert started(submissions, tmp_path / "whole", "--jobs", "2").wait(120) == 0
    seconds = time.monotonic() - began
    whole = everything(tmp_path / "whole")
    draws = random.Random()
    for number in range(MOMENTS):
        out, moment = tmp_path / f"killed {number}", draws.uniform(0.3, 1) * seconds
        process = started(submissions, out, "--jobs", "2")
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            family = family_of(process)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert are_gone(family), f"after {moment:.2f} s sandboxes go on"
        assert run(submissions, out, "--resume") == 0
        assert everything(out) == whole, f"killed after {moment:.2f} of {seconds:.2f} s"
        assert not list(out.rglob("*.tmp-*"))


def test_an_interrupt_does_not_wait_for_students_who_are_left():
    begun: list[Submission] = []

    def task(submission):
        begun.append(submission)
        time.sleep(0.05)

    outcomes = batch.on_this_machine(task, [Submission(str(number)) for number in range(40)], 1)
    next(outcomes)
    with pytest.raises(KeyboardInterrupt):
        outcomes.throw(KeyboardInterrupt)
    assert len(begun) < 10


@pytest.mark.usefixtures("needs_sandbox")
def test_an_interrupted_run_leaves_no_process_and_goes_on(submissions, out):
    process = started(submissions, out, "--jobs", "1")
    family = []
    while not (list((out / ".work").glob("*.json")) and family):  # between two students there is no sandbox
        assert process.poll() is None
        time.sleep(0.05)
        family = family_of(process)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(60) != 0
    assert are_gone(family)
    assert run(submissions, out, "--resume") == 0
    assert list(grades(out)) == ["student_1", "student_2", "student_3"]
