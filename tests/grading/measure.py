"""What the guide says about speed and safety, measured again: a class with hostile students, and stock nbgrader.

python tests/grading/measure.py WORK                     100 students, 8 chapters, hostile ones among them
python tests/grading/measure.py WORK --nbgrader 1        and the same honest notebooks of so many students by nbgrader

Prints what it finds and writes it to WORK/measured.json. WORK is a new folder.
"""

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import course_path
from classroom import Marks, write_class
from hostile import ATTACKS, write_hostile
from nbgrader_course import measure as nbgrader_on

from utils.grading.tables import shown


def marked(submissions: Path, out: Path, jobs: int) -> float:
    """Seconds that our own command takes, from its start to its end."""
    command = [sys.executable, "-m", "utils.grading", str(submissions), "--out", str(out), "--jobs", str(jobs)]
    began = time.monotonic()
    subprocess.run(command, check=True, cwd=course_path.ROOT)
    return time.monotonic() - began


def rows_in(out: Path) -> dict[str, dict[str, str]]:
    """By student, the row of grades.csv."""
    with open(out / "grades.csv", encoding="utf-8", newline="") as file:
        return {row["student"].removeprefix("'"): row for row in csv.DictReader(file)}


def wrong_marks(rows: dict[str, dict[str, str]], expected: dict[str, Marks]) -> list[str]:
    """Every mark that is not what an honest answer deserves."""
    return [
        f"{student} {exercise}: deserves {points}, got {rows[student][exercise]}"
        for student, marks in expected.items()
        for exercise, points in marks.items()
        if float(rows[student][exercise] or 0) != points
    ]


def gained(rows: dict[str, dict[str, str]], deserved: dict[str, float]) -> list[str]:
    """Hostile students who have more points than their answers deserve."""
    totals = {student: float(rows[student]["total"]) for student in deserved}
    return [
        f"{student}: {totals[student]} for {deserved[student]}"
        for student in deserved
        if totals[student] > deserved[student]
    ]


def main() -> None:
    """The command line."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("work", type=Path)
    words.add_argument("--students", type=int, default=100, help="honest and hostile together")
    words.add_argument("--hostile", type=int, default=10, help="so many of them")
    words.add_argument("--jobs", type=int, default=2)
    words.add_argument("--nbgrader", type=int, default=0, metavar="K", help="compare on K students who are all right")
    options = words.parse_args()
    found: dict[str, object] = {"machine": platform.machine(), "cores": os.cpu_count(), "jobs": options.jobs}

    submissions, out = options.work / "class", options.work / "grades"
    expected = write_class(submissions, options.students - options.hostile, seed=0)
    chosen = list(ATTACKS)[:: max(1, len(ATTACKS) // max(1, options.hostile))][: options.hostile]
    hostile = write_hostile(submissions, chosen)
    deserved = {shown(student): attack.deserves for student, attack in hostile.items()}
    seconds = marked(submissions, out, options.jobs)
    rows = rows_in(out)
    found |= {
        "students": len(rows),
        "minutes": round(seconds / 60, 2),
        "seconds per student": round(seconds / len(rows), 2),
        "honest marks": sum(map(len, expected.values())),
        "honest marks that are wrong": wrong_marks(rows, expected),
        "hostile students": len(deserved),
        "hostile students who gained points": gained(rows, deserved),
    }
    if options.nbgrader:
        submissions, out = options.work / "honest", options.work / "honest_grades"
        write_class(submissions, options.nbgrader, seed=1, untidy=False)
        theirs = nbgrader_on(submissions, options.work / "nbgrader")
        ours = marked(submissions, out, jobs=1)
        found |= {
            "notebooks compared": theirs.notebooks,
            "nbgrader autograde, seconds a notebook": round(theirs.seconds / theirs.notebooks, 2),
            "this grader, one job, seconds a notebook": round(ours / theirs.notebooks, 2),
            "times as fast": round(theirs.seconds / ours, 1),
        }
    text = json.dumps(found, indent=1)
    print(text)
    (options.work / "measured.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
