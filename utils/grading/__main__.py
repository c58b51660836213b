"""The command line: ``python -m utils.grading SUBMISSIONS --out GRADES``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.grading.batch import Store, mark_all, stamp_of
from utils.grading.marking import Run
from utils.grading.outputs import write_outputs
from utils.grading.results import StudentResult
from utils.grading.sandbox import SandboxUnavailableError, pick_kind, unprotected
from utils.grading.submissions import Submission, find_submissions
from utils.grading.tables import named, read_written

WARNING = (
    "WARNING: --no-sandbox. Learners' code runs with all that you may do: it can read, change and send your files, and "
    "can forge marks. Use it only for people you trust."
)


def parser() -> argparse.ArgumentParser:
    """What may be said on the command line."""
    words = argparse.ArgumentParser(
        prog="python -m utils.grading",
        description="Mark a class: notebooks in, marks, feedback and a picture of the class out.",
        epilog="The guide is utils/grading/README.md.",
    )
    words.add_argument("submissions", type=Path, help="a folder with one folder per student, or with flat files")
    words.add_argument("--out", type=Path, required=True, help="where grades.csv and the rest go")
    words.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="students at a time (default: one a core)")
    words.add_argument("--student", action="append", metavar="S", help="mark only this one again; others stay")
    words.add_argument("--resume", action="store_true", help="go on: mark only who is new, changed or not yet marked")
    words.add_argument("--scheduler", metavar="ADDRESS", help="use the workers of this Dask cluster (tcp://host:8786)")
    words.add_argument("--no-sandbox", action="store_true", help="run learners' code unprotected")
    return words


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0 when every submission was processed, whatever its marks."""
    options = parser().parse_args(arguments)
    try:
        return grade(options)
    except KeyboardInterrupt:
        print("Stopped. Go on with --resume.", file=sys.stderr)
        sys.stderr.flush()
        os._exit(130)  # the sandboxes end with this process; their threads would wait for them
    except (SandboxUnavailableError, NotADirectoryError, ConnectionError, LookupError, ValueError) as error:
        print(f"Nothing was marked: {error.args[0] if len(error.args) == 1 else error}", file=sys.stderr)
    except OSError as error:  # a full disk, a folder that may not be written
        print(f"Stopped: {error}. Go on with --resume.", file=sys.stderr)
    return 2


def grade(options: argparse.Namespace) -> int:
    """Mark, then write everything.

    Raises:
        SandboxUnavailableError: learners' code can't be kept in.
        NotADirectoryError: there are no submissions.
        ConnectionError: there is no cluster.
        LookupError: nobody has the name that was given.
        ValueError: an option or ``written.csv`` can't be read.
    """
    folder, out = options.submissions.resolve(), options.out.resolve()
    if options.jobs < 1:
        raise ValueError(f"--jobs: expected at least 1, got {options.jobs}")
    submissions = find_submissions(folder, without=out)
    if not submissions:
        raise LookupError(f"no student was found in {folder}: expected folders with notebooks, or notebooks")
    chosen = [submission for submission in submissions if submission.student in (options.student or ())]
    if options.student and len(chosen) < len(set(options.student)):
        lost = set(options.student) - {submission.student for submission in chosen}
        raise LookupError(f"no student is called {', '.join(sorted(lost))}")
    kind = unprotected() if options.no_sandbox else pick_kind()
    if options.no_sandbox:
        print(WARNING, file=sys.stderr)
    out.mkdir(parents=True, exist_ok=True)
    read_written(out / "written.csv")  # what can't be read should stop the run now, not at its end
    store = Store(out / ".work")
    run = Run(store.seed(keep=options.resume or bool(options.student)), kind, (folder, out))
    todo = chosen if options.student else submissions
    if options.resume and not options.student:
        todo = unmarked(folder, todo, run, store)
        print(f"{len(submissions) - len(todo)} of {len(submissions)} students are marked already.", file=sys.stderr)
    problems = mark_all(folder, todo, run, store, options.jobs, options.scheduler)
    results = [result for s in submissions if (result := in_the_end(s, problems, store))]
    messages = [f"{named(student)} {problem}" for student, problem in problems.items()]
    for message in [*messages, *write_outputs(out, results)]:
        print(message.encode("ascii", "backslashreplace").decode("ascii"), file=sys.stderr)
    print(f"{len(results)} students: {out / 'grades.csv'}, {out / 'summary.html'}")
    return 1 if problems else 0


def in_the_end(submission: Submission, problems: dict[str, str], store: Store) -> StudentResult | None:
    """A student's row: the stored result, or one without points that says why there is none."""
    if problem := problems.get(submission.student):
        return StudentResult(submission.student, flags=(problem,))
    return store.load(submission.student)


def unmarked(folder: Path, submissions: list[Submission], run: Run, store: Store) -> list[Submission]:
    """Those without a result for their files as they are now."""
    return [s for s in submissions if not store.load(s.student, stamp_of(folder, s, run.kind))]


if __name__ == "__main__":
    sys.exit(main())
