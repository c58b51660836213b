"""Marking all students of a folder: several at a time, on one machine or a cluster, and going on after a stop.

Each student's result is stored in ``OUT/.work`` as soon as it is there, in one step. The seed of the run stands beside
the results, so that a run which goes on uses the same cases.
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from utils.grading.atomic import remove_leftovers, write_text
from utils.grading.marking import Run, mark_student
from utils.grading.results import StudentResult
from utils.grading.sandbox import Kind, pick_kind
from utils.grading.submissions import Submission

SEED_BITS = 62


@dataclass(frozen=True)
class Store:
    """The results of a run, one file a student, in a folder of their own.

    Example:
        >>> import tempfile
        >>> store = Store(Path(tempfile.mkdtemp()))
        >>> store.seed(keep=True) == store.seed(keep=True)
        True
        >>> store.save(StudentResult("ada"), stamp="as it was")
        >>> store.load("ada", "as it was").student, store.load("ada", "changed since")
        ('ada', None)
    """

    folder: Path

    def _file(self, student: str) -> Path:
        digest = hashlib.sha256(student.encode("utf-8", "surrogatepass")).hexdigest()
        return self.folder / f"{digest[:32]}.json"

    def seed(self, keep: bool) -> int:
        """The run's secret seed; a new one, and no results, unless the earlier run is to be kept and there is one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        remove_leftovers(self.folder)
        file = self.folder / "seed"
        try:
            if keep:
                return int(file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            pass
        for old in self.folder.glob("*.json"):
            old.unlink()
        seed = secrets.randbits(SEED_BITS)
        write_text(file, str(seed))
        return seed

    def save(self, result: StudentResult, stamp: str) -> None:
        """Keep a result, and what the student's files looked like when they were read."""
        write_text(self._file(result.student), json.dumps({"stamp": stamp, "result": result.to_json()}))

    def load(self, student: str, stamp: str | None = None) -> StudentResult | None:
        """A student's result; None without one, or if their files have changed since (``stamp`` says how they are)."""
        try:
            found = json.loads(self._file(student).read_text(encoding="utf-8"))
            is_current = stamp is None or found["stamp"] == stamp
            return StudentResult.from_json(found["result"]) if is_current else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


def stamp_of(folder: Path, submission: Submission, kind: Kind) -> str:
    """What changes when a student's files change, or the way they are run."""
    facts: list[Any] = [submission.flags, kind.is_contained]
    for file in submission.files:
        try:
            found = (folder / file).lstat()
            facts.append((str(file), found.st_size, found.st_mtime_ns))
        except OSError:
            facts.append((str(file), "gone"))
    return hashlib.sha256(repr(facts).encode("utf-8", "surrogatepass")).hexdigest()


Task = Callable[[Submission], StudentResult]
Outcome = tuple[Submission, StudentResult | Exception]


def on_this_machine(task: Task, submissions: list[Submission], jobs: int) -> Iterator[Outcome]:
    """Mark in ``jobs`` threads: the work is done by the sandboxes' processes, a thread waits and judges."""
    pool = ThreadPoolExecutor(jobs)
    try:
        futures = {pool.submit(task, submission): submission for submission in submissions}
        for future in as_completed(futures):
            error = future.exception()
            yield futures[future], error if isinstance(error, Exception) else future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # after Ctrl-C nobody waits for the others


def on_a_cluster(task: Task, submissions: list[Submission], address: str) -> Iterator[Outcome]:
    """Mark on the workers of a Dask cluster, which see the course and the submissions under the same paths.

    Raises:
        ConnectionError: no scheduler answers there.
    """
    from distributed import Client
    from distributed import as_completed as as_completed_there

    try:
        client = Client(address, timeout="20s")
    except OSError as error:
        raise ConnectionError(f"no Dask scheduler answers at {address}") from error
    with client:
        futures = {client.submit(task, s, pure=False): s for s in submissions}
        for future in as_completed_there(futures):
            error = future.exception()
            yield futures[future], error if isinstance(error, Exception) else future.result()


def mark_here(folder: Path, run: Run, submission: Submission) -> StudentResult:
    """``mark_student`` after making sure that this machine, too, has the sandbox that was asked for."""
    if run.kind.is_contained:
        run = Run(run.seed, pick_kind(), run.hidden)
    return mark_student(folder, submission, run)


def mark_all(
    folder: Path, submissions: list[Submission], run: Run, store: Store, jobs: int, scheduler: str | None = None
) -> dict[str, str]:
    """Mark students and store each result at once, with a progress bar.

    Args:
        folder: where the submissions lie.
        submissions: whom to mark.
        run: what holds for the class.
        store: where results go.
        jobs: how many at a time on this machine.
        scheduler: the address of a Dask scheduler, to use its workers instead.

    Returns:
        what went wrong with the marking itself, by student; empty if every submission was processed.
    """
    stamps = {submission.student: stamp_of(folder, submission, run.kind) for submission in submissions}
    task = partial(mark_here, folder, run)
    outcomes = on_a_cluster(task, submissions, scheduler) if scheduler else on_this_machine(task, submissions, jobs)
    problems: dict[str, str] = {}
    with tqdm(total=len(submissions), desc="students") as progress:
        for submission, outcome in outcomes:
            if isinstance(outcome, StudentResult):
                store.save(outcome, stamps[submission.student])
            else:
                problems[submission.student] = f"could not be marked ({type(outcome).__name__}: {outcome})"
            progress.update()
    return problems
