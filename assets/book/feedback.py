"""An example of what the course says to an answer, made by the same code that says it to learners."""

from utils.checks import EXERCISES, check
from utils.checks.report import Report
from utils.grading.feedback import feedback_page
from utils.grading.results import ExerciseResult, StudentResult

WRONG, OPEN = "1.3", "1.5"  # the exercises of the example whose answer is a common mistake, or missing
EXAMPLE_PAGE = "feedback_example.html"


def report_of_a_mistake() -> Report:
    """The report on the commonest mistake of exercise 1.3."""
    return check(WRONG, EXERCISES[WRONG].misconceptions[0].answer)


def example_page() -> str:
    """A page of feedback on chapter 1: one answer wrong, one missing, the others right."""
    exercises = [exercise for exercise in EXERCISES.values() if exercise.id.startswith("1.")]
    reports = {exercise.id: check(exercise.id, exercise.reference) for exercise in exercises}
    reports[WRONG] = report_of_a_mistake()
    reports[OPEN] = check(OPEN, not_written_yet)
    results = {exercise_id: ExerciseResult(report) for exercise_id, report in reports.items()}
    return feedback_page(StudentResult("example", exercises=results), {})


def not_written_yet(*_: object) -> None:
    """What a learner's cell holds before it is solved."""
    raise NotImplementedError
