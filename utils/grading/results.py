"""What marking one student gives, as plain data that survives a trip through JSON."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from utils.checks.report import Report, Row


@dataclass(frozen=True)
class ExerciseResult:
    """The mark of one exercise.

    Attributes:
        report: points, rows and sentences, as the learner will read them.
        misconceptions: the names of those that the answer behaves like.
    """

    report: Report
    misconceptions: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudentResult:
    """All that is known of one student after marking.

    Attributes:
        student: the name of their folder, or their part of a flat file's name.
        exercises: by id, in the course's order; what belongs to a chapter that was not handed in is absent.
        written: by id, the texts of the answers in words; empty where nothing was written.
        files: by chapter ("3"), the file that counts, relative to the submissions' folder.
        flags: what the instructor should know, one sentence each.
        seconds: how long marking took.
        is_protected: whether the learner's code ran in a sandbox.
    """

    student: str
    exercises: dict[str, ExerciseResult] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    seconds: float = 0.0
    is_protected: bool = True

    def to_json(self) -> str:
        """As JSON text; lone surrogates are escaped, so any encoding can hold it.

        Example:
            >>> StudentResult.from_json(StudentResult("ada", flags=("late",)).to_json()).flags
            ('late',)
        """
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "StudentResult":
        """Back from ``to_json``.

        Raises:
            ValueError, KeyError, TypeError: the text is something else.
        """
        found = json.loads(text)
        exercises = {exercise_id: _exercise(value) for exercise_id, value in found.pop("exercises").items()}
        return cls(**found | {"exercises": exercises, "flags": tuple(found["flags"])})


def _exercise(value: dict[str, Any]) -> ExerciseResult:
    report = value["report"]
    rows = tuple(Row(**row) for row in report["rows"])
    return ExerciseResult(
        Report(**report | {"rows": rows, "teaching": tuple(report["teaching"])}), tuple(value["misconceptions"])
    )
