"""Hostile submissions gain no point, reach nothing outside, and cost nobody else's marks.

All of them are marked in one run of the command line, together with honest students. Needs bubblewrap.
"""

import contextlib
import csv
import hashlib
import json
import os
import shutil
import stat
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import safetensors.torch
import torch
from answer_variants import variants
from classroom import CHAPTERS, exercises_in, handed_in, written
from hostile import ATTACKS, LEAK, Attack, write_hostile

from utils.checks import EXERCISES
from utils.grading import marking
from utils.grading.__main__ import main
from utils.grading.inside.wire import unpack
from utils.grading.sandbox import FIRST_UID, Kind
from utils.grading.submissions import sorted_out
from utils.grading.tables import shown
from utils.release import ROOT

ANSWER_SECONDS, CELLS_SECONDS = 2, 5  # shorter than in earnest: many attacks use all the time that they get
HONEST = {"honest_1": ("solution", 0), "honest_3": ("solution", 2), "mistaken_2": ("misconception", 1)}


@dataclass(frozen=True)
class Marked:
    """What one run over all hostile submissions left behind."""

    exit_code: int
    rows: dict[str, dict[str, str]]
    attacks: dict[str, Attack]
    deserved: dict[str, dict[str, int]]
    grades: Path
    changed: list[str]
    left_running: list[str]


def contents(folder: Path) -> dict[str, str]:
    """What each entry of a folder holds: a hash, the target of a link, or what kind of thing it is."""
    found = {}
    for place, names, files in os.walk(folder):
        for name in [*names, *files]:
            path = os.path.join(place, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                found[path] = os.readlink(path)
            elif stat.S_ISREG(mode):
                found[path] = f"{mode} {hashlib.sha256(Path(path).read_bytes()).hexdigest()}"
            else:
                found[path] = str(mode)
    return found


def tracked() -> dict[str, str]:
    """The repository's own files."""
    if not shutil.which("git"):
        return {}
    names = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=False).stdout
    paths = [ROOT / os.fsdecode(name) for name in names.split(b"\0") if name]
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths if is_kept(p) and p.is_file()}


def is_kept(path: Path) -> bool:
    """Whether nobody edits a file while tests run: what others read, not what is being written."""
    return path.relative_to(ROOT).parts[0] in {"notebooks", "solutions", "data", "assets", "utils"}


def processes() -> set[tuple[int, float]]:
    """Processes in sandboxes of this run, or in sandboxes that nobody looks after any more."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            uid, family = process.uids().real, [process, *process.parents()]
            outermost = [member for member in family if member.name() == "bwrap"][-1:]
            has_a_users_id = FIRST_UID <= uid < FIRST_UID + 1_000_000
            is_ours = bool(outermost) and outermost[0].ppid() in (1, os.getpid())
            if is_ours or (has_a_users_id and not outermost):
                found.add((process.pid, process.create_time()))
    return found


def still_running_after(before: set[tuple[int, float]], patience: float = 5) -> list[str]:
    """The new ones that don't go by themselves; the system takes a moment to clear away what was killed."""
    deadline = time.monotonic() + patience
    while (left := processes() - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    return [str(pid) for pid, _ in left]


def write_honest(folder: Path) -> dict[str, dict[str, int]]:
    """Students whose marks must not depend on who else is there; what they deserve by exercise."""
    deserved = {}
    for student, (kind, place) in HONEST.items():
        chapter = CHAPTERS[place]
        answers = {e: next(v for v in variants(e) if v.kind == kind) for e in exercises_in(chapter)}
        written(handed_in(chapter, answers), folder / student / chapter.name)
        deserved[student] = {exercise: variant.points for exercise, variant in answers.items()}
    return deserved


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory, needs_sandbox: Kind) -> Iterator[Marked]:
    """The one run."""
    place = tmp_path_factory.mktemp("class")
    submissions, canary, grades = place / "submissions", place / "canary", place / "grades"
    canary.mkdir()
    (canary / "secret.txt").write_text("nobody may see or change this\n", encoding="utf-8")
    attacks = write_hostile(submissions)
    deserved = write_honest(submissions)
    before = contents(submissions) | contents(canary) | tracked()
    running = processes()
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(marking, "ANSWER_SECONDS", ANSWER_SECONDS)
        patch.setattr(marking, "CELLS_SECONDS", CELLS_SECONDS)
        torch.set_num_threads(1)
        exit_code = main([str(submissions), "--out", str(grades), "--jobs", "2"])
        torch.set_num_threads(threads)
    after = contents(submissions) | contents(canary) | tracked()
    with (grades / "grades.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["student"].removeprefix("'"): row for row in csv.DictReader(file)}
    yield Marked(
        exit_code,
        rows,
        attacks,
        deserved,
        grades,
        sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path)),
        still_running_after(running),
    )


def test_there_are_many_attacks_and_each_says_what_it_tries():
    assert len(ATTACKS) >= 55
    assert all(entry.tries.endswith(".") for entry in ATTACKS.values())
    assert len({entry.student for entry in ATTACKS.values()}) == len(ATTACKS)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_gains_no_point(name: str, marked: Marked):
    entry = ATTACKS[name]
    row = marked.rows[shown(entry.student)]
    assert float(row["total"]) <= entry.deserves, row["flags"]
    assert not reached(marked, entry)


def reached(marked: Marked, entry: Attack) -> list[str]:
    """The files of marks in which an attack says that it reached something."""
    digest = hashlib.sha256(entry.student.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    stored = (marked.grades / ".work" / f"{digest}.json").read_text(encoding="utf-8")
    return [report["report"]["title"] for report in json.loads(json.loads(stored)["result"])["exercises"].values()
            if any(f"ValueError: {LEAK}" in row["fault"] for row in report["report"]["rows"])]  # fmt: skip


def test_honest_students_get_exactly_what_they_deserve(marked: Marked):
    found = {
        student: {exercise: float(marked.rows[student][exercise]) for exercise in points}
        for student, points in marked.deserved.items()
    }
    assert found == marked.deserved
    assert any(max(points.values()) > 0 for points in found.values())
    assert not any(marked.rows[student]["flags"] for student in found)


def test_every_student_has_a_row_and_the_run_ends_well(marked: Marked):
    students = {shown(student) for student in [*marked.attacks, *marked.deserved]}
    assert students <= marked.rows.keys()
    assert marked.exit_code == 0


def test_nothing_outside_the_folder_of_marks_changes(marked: Marked):
    assert marked.changed == []


def test_nothing_is_left_running(marked: Marked):
    assert marked.left_running == []


def test_pages_hold_no_markup_and_tables_no_formula_of_an_attack(marked: Marked):
    pages = "".join(path.read_text(encoding="utf-8") for path in marked.grades.rglob("*.html"))
    assert "<img src=x" not in pages
    assert "<script" not in pages
    for table in marked.grades.glob("*.csv"):
        with table.open(encoding="utf-8", newline="") as file:
            assert not any(cell.startswith(("=", "+", "@")) for row in csv.reader(file) for cell in row)


def test_files_of_marks_stay_small(marked: Marked):
    sizes = {path.name: path.stat().st_size for path in marked.grades.rglob("*") if path.is_file()}
    assert max(sizes.values()) < 2**20, {name: size for name, size in sizes.items() if size >= 2**20}


def test_a_tensor_that_is_named_often_takes_memory_once():
    text = json.dumps([{"tensor": "0"}] * 50).encode()
    message = struct.pack(">Q", len(text)) + text + safetensors.torch.save({"0": torch.ones(8, dtype=torch.bool)})
    found = unpack(message)
    assert len({tensor.data_ptr() for tensor in found}) == 1


def test_a_long_run_of_blanks_is_read_at_once():
    began = time.process_time()
    marked_cell = {"cell_type": "code", "source": " " * 30_000 + "x", "metadata": {}, "id": ""}
    sorted_out([marked_cell], "1", "x.ipynb")
    assert time.process_time() - began < 0.5


def test_the_points_that_attacks_deserve_are_no_more_than_there_are():
    for entry in ATTACKS.values():
        assert entry.deserves <= sum(EXERCISES[exercise].points for exercise in entry.answers) or not entry.answers
