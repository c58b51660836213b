"""Marking one student: what runs in the sandbox is asked for here, what comes back is judged here.

What is right in the cases of a secret seed earns points. What is wrong there is tried on the notebook's own cases, too,
and the learner reads about those: what ``check`` shows at home, so feedback gives nothing away and is the same in every
run, and nobody gets more points than at home.
"""

import json
import threading
import time
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from utils.checks import EXERCISES
from utils.checks.exercise import Exercise, Seen, well_formed
from utils.checks.report import Report, Row
from utils.checks.run import SEED, done_with, nothing_earned, report_on, row_for, undisturbed, wrong_kind
from utils.checks.yardstick import Yardstick
from utils.grading.course import chapters, names_of
from utils.grading.hiding import revealed_before, texts_for
from utils.grading.inside.reading import facts_of, fingerprint, read_cell
from utils.grading.inside.wire import WireError, pack, unpack
from utils.grading.results import ExerciseResult, StudentResult
from utils.grading.sandbox import Kind, Sandbox, SandboxUnavailableError
from utils.grading.submissions import HandedIn, Submission, hand_in

READING_SECONDS = 20
CELLS_SECONDS = 15  # for all of a learner's own cells in one notebook
ANSWER_SECONDS = 10  # for one exercise; the slowest right answer known takes less than one
MAX_LATE = 2  # after so many answers that take longer, the student's others get
SHORT_SECONDS = 2
JUDGING = threading.Lock()  # judges draw from PyTorch's global random numbers

NOT_ATTEMPTED = "Not attempted yet."
NOT_FOUND = "No cell with this exercise was found."
TOO_SLOW = (
    f"Your answer takes more than {ANSWER_SECONDS} seconds on this exercise's cases. Is there a loop without end?"
)
KILLED = "Your answer ended the process it ran in, so nothing of it could be seen."
ELSEWHERE = "Right in the cases that the notebook tries, wrong in others of the same kind."
UNREADABLE = "What your answer gives back can't be read."


@dataclass(frozen=True)
class Run:
    """What holds for a whole class.

    Attributes:
        seed: the secret one; the cases that earn points are drawn from it.
        kind: how learners' code is kept in.
        hidden: folders that nobody may see inside, such as the submissions.
    """

    seed: int
    kind: Kind
    hidden: tuple[Path, ...] = ()


@cache
def yardstick(exercise_id: str, seed: int) -> Yardstick:
    """An exercise's cases for a seed, and how its reference and misconceptions do on them; made once."""
    return Yardstick(EXERCISES[exercise_id], seed)


def mark_student(folder: Path, submission: Submission, run: Run) -> StudentResult:
    """Read, try and judge everything that one student handed in.

    Args:
        folder: where the submissions lie.
        submission: from ``find_submissions``.
        run: what holds for the class.
    """
    began = time.monotonic()
    handed_in, flags = hand_in(folder, submission)
    flags += [] if run.kind.is_contained else ["unprotected: marked without a sandbox"]
    exercises: dict[str, ExerciseResult] = {}
    written: dict[str, str] = {}
    late = 0
    with Sandbox(run.kind, run.hidden) as sandbox:
        for chapter, notebook in handed_in.items():
            marking = ChapterMarking(notebook, run, sandbox, late=late)
            exercises |= marking.results()
            flags += [f"chapter {chapter}: {flag}" for flag in marking.flags]
            written |= notebook.written
            late = marking.late
    return StudentResult(
        student=submission.student,
        exercises=exercises,
        written=written,
        files={chapter: notebook.file for chapter, notebook in handed_in.items()},
        flags=tuple(dict.fromkeys(flags)),
        seconds=round(time.monotonic() - began, 2),
        is_protected=run.kind.is_contained,
    )


@dataclass
class ChapterMarking:
    """Marking one notebook in a sandbox."""

    notebook: HandedIn
    run: Run
    sandbox: Sandbox
    flags: list[str] = field(default_factory=list)
    plan: dict[str, Any] = field(default_factory=dict)
    extent: str = "all"  # which cells run: all, those that "some" answers need, or those of "each" answer by itself
    late: int = 0  # how many answers have been too slow
    revealed: list[tuple[str, str, str]] = field(default_factory=list)  # to the process that runs the notebook

    def results(self) -> dict[str, ExerciseResult]:
        """The mark of every exercise of the chapter, in the course's order."""
        self.plan = self._read()
        exercises = list(chapters()[self.notebook.chapter].answers)
        answered = [e for e in exercises if self._found(e)["state"] == "answered" and not self._found(e)["error"]]
        results = {}
        is_loaded, forbid = False, frozenset[str]()
        for exercise_id in exercises:
            if exercise_id in answered:
                is_fit = is_loaded and self.extent != "each" and forbid == EXERCISES[exercise_id].forbid
                forbid = EXERCISES[exercise_id].forbid
                is_loaded = is_fit or self._load(exercise_id, answered)
                results[exercise_id], is_loaded = self._mark_safely(exercise_id, is_loaded)
            else:
                results[exercise_id] = self._not_tried(exercise_id)
        return dict(sorted(results.items()))

    # Reading ------------------------------------------------------------------------------------------

    def _read(self) -> dict[str, Any]:
        """Where the answers are and what they need; see ``inside/reading.py``."""
        order = {
            "cells": [vars(cell) for cell in self.notebook.code],
            **course_facts(self.notebook.chapter),
        }
        status, reply = self.sandbox.ask("read", {}, json.dumps(order).encode("ascii"), READING_SECONDS)
        plan = json.loads(reply) if status == "done" else None  # written by our own code, which ran nobody else's
        if plan is None:
            self.flags.append("its code can't be read in reasonable time")
            return {"exercises": {}, "course": [], "cells": []}
        copies = [e for e, found in plan["exercises"].items() if found["copies"] > 1]
        self.flags += [f"exercise {e} has {plan['exercises'][e]['copies']} answer cells (duplicated)" for e in copies]
        lost = [e for e, found in plan["exercises"].items() if found["state"] == "missing"]
        self.flags += [f"no answer cell of {', '.join(lost)} was found"] if lost else []
        return plan

    def _found(self, exercise_id: str) -> dict[str, Any]:
        """What reading the notebook found of an exercise."""
        lost = {"state": "missing", "cell": None, "copies": 0, "error": "", "used": [], "needs": []}
        return self.plan["exercises"].get(exercise_id, lost)

    def _not_tried(self, exercise_id: str) -> ExerciseResult:
        """The result where there is nothing to run."""
        found = self._found(exercise_id)
        said = {"open": NOT_ATTEMPTED, "missing": NOT_FOUND}.get(found["state"], found["error"])
        status = "failed" if found["state"] == "answered" else "open"
        return ExerciseResult(nothing_earned(EXERCISES[exercise_id], status, said))

    # Running ------------------------------------------------------------------------------------------

    def _load(self, exercise_id: str, answered: list[str]) -> bool:
        """Run the notebook's cells; where that fails, fewer and fewer of them. Whether it worked in the end."""
        while True:
            wanted = [exercise_id] if self.extent == "each" else answered
            if self._run_cells(wanted, EXERCISES[exercise_id].forbid):
                return True
            if self.extent == "all":
                self.flags.append(f"its own cells take over {CELLS_SECONDS} s or end the process; they were skipped")
            elif self.extent == "each":
                return False
            self.extent = {"all": "some", "some": "each"}[self.extent]

    def _run_cells(self, wanted: list[str], forbid: frozenset[str]) -> bool:
        """Run the cells in a new process, which keeps the answers to the wanted exercises and in which PyTorch lacks
        what is forbidden; whether it got to the end."""
        chapter = self.notebook.chapter
        capture: dict[int, dict[str, list[str]]] = {}
        needed: dict[int, list[int]] = {}
        for exercise_id in wanted:
            found = self._found(exercise_id)
            capture.setdefault(found["cell"], {})[exercise_id] = names_of(exercise_id)
            for cell, place in found["needs"]:
                needed.setdefault(cell, []).append(place)
        order = {
            "sources": texts_for(chapter),
            "probes": f"utils.checks.probes.chapter{int(chapter):02d}",
            "course": self.plan["course"],
            "cells": [
                [number, source, None if self.extent == "all" else needed[number]]
                for number, source in self.plan["cells"]
                if self.extent == "all" or number in needed
            ],
            "capture": capture,
            "forbid": sorted(forbid),
        }
        self.revealed = []
        seconds = 5 if self.extent == "each" else CELLS_SECONDS
        status, reply = self.sandbox.ask("chapter", {}, json.dumps(order).encode("ascii"), seconds)
        if status == "done" and (tampered := names_in(reply)):
            self.flags.append(f"changes what PyTorch or the checks are made of: {', '.join(tampered)}")
        return status == "done"

    def _mark_safely(self, exercise_id: str, loaded: bool) -> tuple[ExerciseResult, bool]:
        """As ``_mark``; a reply that nobody foresaw costs its own exercise, and the instructor is told."""
        try:
            return self._mark(exercise_id, loaded)
        except SandboxUnavailableError:
            raise
        except Exception as error:
            self.flags.append(
                f"exercise {exercise_id} could not be judged ({type(error).__name__}): look at it yourself"
            )
            return ExerciseResult(nothing_earned(EXERCISES[exercise_id], "failed", UNREADABLE)), False

    def _mark(self, exercise_id: str, loaded: bool) -> tuple[ExerciseResult, bool]:
        """Try one answer on the secret cases, and on the notebook's if it is wrong there.

        Returns:
            the result, and whether the notebook is still loaded.
        """
        exercise = EXERCISES[exercise_id]
        if not loaded:
            return ExerciseResult(nothing_earned(exercise, "failed", KILLED)), False
        found = self._try(exercise, self.run.seed)
        if isinstance(found, str):
            return ExerciseResult(nothing_earned(exercise, "failed", found)), False
        if problem := self._refusal(exercise, found):
            return ExerciseResult(problem), True
        secret = well_formed(found["seen"], yardstick(exercise_id, self.run.seed).inputs)
        with JUDGING, undisturbed(()):
            measure = yardstick(exercise_id, self.run.seed)
            faults = exercise.judge(secret, measure.expected, measure.inputs)
        if not any(faults.values()):
            rows = tuple(row_for(part, faults, secret, False) for part in exercise.parts)
            return ExerciseResult(Report(exercise.id, exercise.title, "", rows)), True
        public = self._try(exercise, SEED)
        loaded = not isinstance(public, str)
        shown = public["seen"] if loaded and not self._refusal(exercise, public) else {}
        with JUDGING, undisturbed(()):
            return explained(exercise, faults, secret, shown, self.run.seed), loaded

    def _try(self, exercise: Exercise, seed: int) -> dict[str, Any] | str:
        """What the answer does in the cases of a seed, or why that can't be said."""
        order = {
            "exercise": exercise.id,
            "cases": yardstick(exercise.id, seed).inputs,
            "seed": SEED,
        }
        known = [definition for definition in revealed_before(exercise.id) if definition not in self.revealed]
        self.revealed += known
        patience = ANSWER_SECONDS if self.late < MAX_LATE else SHORT_SECONDS
        status, reply = self.sandbox.ask("exercise", {"reveal": known}, pack(order), patience)
        self.late += status == "late"
        if status != "done":
            return TOO_SLOW if status == "late" else KILLED
        try:
            found = unpack(reply)
        except WireError:
            return UNREADABLE
        return found if is_reply(found) else UNREADABLE

    def _refusal(self, exercise: Exercise, found: dict[str, Any]) -> Report | None:
        """The report on an answer that is of the wrong kind or uses what its exercise is about doing without."""
        references = exercise.reference if isinstance(exercise.reference, tuple) else (exercise.reference,)
        for (kind, type_name), reference in zip(found["kinds"], references, strict=False):
            if kind == "object" or (kind == "function" and isinstance(reference, type)):
                return nothing_earned(exercise, "failed", wrong_kind(reference, type_name[:60]))
        used = exercise.forbid & {*found["used"], *self._found(exercise.id)["used"]}
        if used:
            return done_with(exercise, used)
        if found["tampered"]:
            changed = ", ".join(f"`{name[:60]}`" for name in found["tampered"][:3])
            self.flags.append(f"exercise {exercise.id} changes {changed} while it runs")
            return nothing_earned(exercise, "failed", f"Your answer changes {changed}, which is not its own to change.")
        return None


@cache
def course_facts(chapter: str) -> dict[str, Any]:
    """What reading a notebook needs to know of the chapter as it was handed out."""
    facts = chapters()[chapter]
    return {
        "course": facts_of(facts.course),
        "exercises": {
            e: {"names": names_of(e), "stub": fingerprint(read_cell(0, stub)), "forbid": sorted(EXERCISES[e].forbid)}
            for e, stub in facts.answers.items()
        },
    }


def names_in(reply: bytes) -> list[str]:
    """The names of what a notebook's cells changed, as its process says; it may say anything.

    Example:
        >>> names_in(b'{"tampered": ["torch.equal"]}')
        ['torch.equal']
    """
    try:
        found = json.loads(reply)["tampered"]
        return [str(name)[:60] for name in found[:5]]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ["something that can't be read"]


def is_reply(found: Any) -> bool:
    """Whether an exercise's reply has the form that ours have; what it says may still be anything."""
    if not isinstance(found, dict) or found.keys() != {"seen", "used", "kinds", "tampered"}:
        return False
    kinds = found["kinds"]
    if not isinstance(kinds, list) or not all(isinstance(kind, tuple) and len(kind) == 2 for kind in kinds):
        return False
    texts = [found["used"], found["tampered"], *kinds]
    return isinstance(found["seen"], dict) and all(
        isinstance(some, list | tuple) and len(some) <= 20 and all(isinstance(text, str) for text in some)
        for some in texts
    )


def explained(exercise: Exercise, faults: dict[str, str | None], secret: Seen, shown: Any, seed: int) -> ExerciseResult:
    """The report on a wrong answer: what is right in the secret and in the notebook's cases earns points, the words
    come from the notebook's.

    Args:
        exercise: which.
        faults: by part, what was wrong in the secret cases.
        secret: what the answer did in them.
        shown: what it did in the notebook's cases; anything, if that could not be seen.
        seed: of the secret cases.
    """
    public = report_on(yardstick(exercise.id, SEED), well_formed(shown, yardstick(exercise.id, SEED).inputs))
    if public.points == public.max_points:  # wrong only where the notebook does not look
        public = replace(report_on(yardstick(exercise.id, seed), secret), summary=ELSEWHERE)
    rows = []
    for part, row in zip(exercise.parts, public.rows, strict=True):
        passed = row_for(part, faults, secret, True).status == "passed"
        if passed and public.summary == ELSEWHERE:
            row = Row(part.title, part.points, part.points, "passed")
        elif not passed and (row.status == "passed" or public.summary == ELSEWHERE):
            row = Row(part.title, 0, part.points, "failed", "" if faults[part.name] else row.fault, part.hint)
        rows.append(row)
    names = tuple(m.name for m in exercise.misconceptions if m.sentence in public.teaching)
    return ExerciseResult(replace(public, rows=tuple(rows)), names)
