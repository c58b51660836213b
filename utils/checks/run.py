"""``check``: run an answer against its exercise and report, leaving the notebook as it was."""

import io
import random
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from typing import Any

import numpy as np
import torch
from torch import nn

from utils.checks.chapters import EXERCISES
from utils.checks.compare import difference, judge_observation
from utils.checks.exercise import Exercise, Misconception, Part, Seen, as_answers, fault_in, well_formed
from utils.checks.forbidden import Watch, mentioned, spoken
from utils.checks.probes.observe import Observation, Raised
from utils.checks.report import Report, Row
from utils.checks.written import WRITTEN
from utils.checks.yardstick import Yardstick

SEED = 2017  # the year of "Attention Is All You Need"; any other number would do


def check(exercise_id: str, *answers: Any) -> Report:
    """Check an answer on this machine, with the same cases every time.

    Never raises and prints nothing; the global random state and the modes of modules stay as they were.

    Args:
        exercise_id: "1.1", as in the notebook.
        answers: the function or class that the exercise asks for (two of them where it asks for two).

    Returns:
        a report; put the call on the last line of a cell to see it.

    Example:
        >>> check("1.1", lambda query, key: (query * key).sum())
        3
    """
    name = str(exercise_id) if isinstance(exercise_id, str | float) else ""
    exercise = EXERCISES.get(name)
    if name in WRITTEN:
        said = "This exercise is answered in words, in its own cell, and marked by a person."
        return Report(name, WRITTEN[name].title, said, ())
    if exercise is None:
        known = ", ".join(EXERCISES)
        return Report(
            name or "?", "", f'Expected an exercise\'s id, as in `check("1.1", ...)`. There are: {known}.', ()
        )
    if problem := wrong_arguments(exercise, answers):
        return nothing_earned(exercise, "failed", problem)
    try:
        with undisturbed(answers):
            return evaluate(answers, Yardstick(exercise, SEED))
    except KeyboardInterrupt:
        return nothing_earned(exercise, "failed", "Stopped. Your code ran until you interrupted it.")


def evaluate(answers: tuple[Any, ...], yardstick: Yardstick) -> Report:
    """Probe an answer on the yardstick's cases, and judge it."""
    exercise = yardstick.exercise
    answer = answers if exercise.num_answers > 1 else answers[0]
    watch = Watch(exercise.forbid)
    with watch if exercise.forbid else nullcontext():
        seen = exercise.probe(answer, yardstick.fresh_inputs())
    used = watch.used.union(*(mentioned(a, exercise.forbid) for a in answers))
    if used:
        return done_with(exercise, used)
    return report_on(yardstick, seen)


def report_on(yardstick: Yardstick, seen: Seen) -> Report:
    """The report on what an answer did with the yardstick's cases, however little of it can be read."""
    exercise = yardstick.exercise
    seen = well_formed(seen, yardstick.inputs)
    faults = exercise.judge(seen, yardstick.expected, yardstick.inputs)
    if all(is_stub(seen, part.name) for part in exercise.parts if faults[part.name]) and any(faults.values()):
        summary = "Not attempted yet." if all(faults.values()) else "Some of it is not attempted yet."
    else:
        summary = ""
    explained = [misconception.sentence for misconception in explain(yardstick, seen, faults)]
    rows = tuple(row_for(part, faults, seen, bool(explained)) for part in exercise.parts)
    return Report(exercise.id, exercise.title, summary, rows, tuple(explained))


def row_for(part: Part, faults: dict[str, str | None], seen: Seen, is_explained: bool) -> Row:
    """The report's row for one part. What is known from a row above is not said again."""
    fault, names = faults[part.name], list(faults)
    if not fault and any(faults[name] for name in part.needs):
        return Row(part.title, 0, part.points, "failed", "Counts once the rows above are right.")
    if not fault:
        return Row(part.title, part.points, part.points, "passed")
    if is_stub(seen, part.name):
        return Row(part.title, 0, part.points, "open")
    if fault in [faults[name] for name in names[: names.index(part.name)]]:
        return Row(part.title, 0, part.points, "failed", "As above.")
    builds_on_faults = any(faults[name] for name in part.needs)
    hint = "" if is_explained or builds_on_faults else part.hint
    return Row(part.title, 0, part.points, "failed", fault + where_raised(fault, seen[part.name]), hint)


def where_raised(fault: str, observations: list[Observation]) -> str:
    """The line of the learner's code at which it raised, if that is the fault and the line is known."""
    lines = [v.line for o in observations for v in o.values() if isinstance(v, Raised) and v.line]
    return f" (in the line `{lines[0]}`)" if lines and "raised" in fault else ""


def is_stub(seen: Seen, part_name: str) -> bool:
    """Whether a part met the exception of an unsolved exercise."""
    return any(
        isinstance(value, Raised) and value.is_stub for observation in seen[part_name] for value in observation.values()
    )


def explain(yardstick: Yardstick, seen: Seen, faults: dict[str, str | None]) -> list[Misconception]:
    """The misconceptions that behave like the answer wherever it is wrong.

    One that explains every fault wins; otherwise each fault gets the first one that explains it. The same
    behaviour explains most. Where a judge of its own looks at random draws, the same fault has to do.
    """
    exercise = yardstick.exercise
    failed = [name for name, fault in faults.items() if fault and not is_stub(seen, name)]
    if not failed:
        return []
    exact: dict[str, list[Misconception]] = {name: [] for name in failed}
    alike: dict[str, list[Misconception]] = {name: [] for name in failed}
    for misconception in exercise.misconceptions:
        for name in failed:
            fault, is_same = behaviour_of(misconception, yardstick, name, seen[name])
            if fault and is_same:
                exact[name].append(misconception)
            elif fault == faults[name] and exercise.part(name).judge is not judge_observation:
                alike[name].append(misconception)
        if all(misconception in exact[name] for name in failed):
            return [misconception]
    alike = {name: exact[name] + alike[name] for name in failed}
    for misconception in exercise.misconceptions:
        if all(misconception in alike[name] for name in failed):
            return [misconception]
    firsts = [alike[name][0] for name in failed if alike[name]]
    return [first for number, first in enumerate(firsts) if first not in firsts[:number]]


def behaviour_of(
    misconception: Misconception, yardstick: Yardstick, part_name: str, seen: list[Observation]
) -> tuple[str | None, bool]:
    """A misconception's fault in one part, and whether it behaves like ``seen``. Stops when both are clear."""
    judge = yardstick.exercise.part(part_name).judge
    fault, is_same = None, True
    behaviour = yardstick.behaviour(misconception, part_name)
    trials = zip(yardstick.inputs[part_name], behaviour, seen, yardstick.expected[part_name], strict=False)
    for case, its, mine, wanted in trials:
        is_same = is_same and same_behaviour(its, mine)
        fault = fault or fault_in(judge, its, wanted, case)
        if not is_same and (fault or judge is judge_observation):
            break
    return fault, is_same


def same_behaviour(first: Observation, second: Observation) -> bool:
    """Whether two answers did the same in one case."""
    try:
        return first.keys() == second.keys() and not any(differs(first[name], second[name]) for name in first)
    except Exception:  # values that can't be compared are not the same
        return False


def differs(first: Any, second: Any) -> bool:
    """Whether two observed values differ, gradients that are absent included."""
    if isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys():
        return any(differs(first[name], second[name]) for name in first)
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        return any(differs(a, b) for a, b in zip(first, second, strict=True))
    if (first is None) != (second is None):
        return True
    return difference(first, second) is not None


def wrong_arguments(exercise: Exercise, answers: tuple[Any, ...]) -> str:
    """What is wrong with the call of ``check`` itself; empty if nothing."""
    if len(answers) != exercise.num_answers:
        return f"Expected {exercise.num_answers} answer(s) after the id, got {len(answers)}."
    for answer, reference in zip(answers, as_answers(exercise.reference), strict=True):
        if not (isinstance(answer, type) or (callable(answer) and not isinstance(reference, type))):
            return wrong_kind(reference, type(answer).__name__)
    return ""


def wrong_kind(reference: Any, kind: str) -> str:
    """What to say to an answer that is no class or function, but an object of the type ``kind``."""
    wanted = "class" if isinstance(reference, type) else "function"
    return f"Expected the {wanted} `{reference.__name__}` itself, got a {kind}. Pass the name without brackets."


def done_with(exercise: Exercise, used: Iterable[str]) -> Report:
    """The report on an answer that uses names that would skip the exercise."""
    return nothing_earned(exercise, "failed", f"This exercise is about doing without {spoken(used)}.")


def nothing_earned(exercise: Exercise, status: str, summary: str) -> Report:
    """A report without points, for an answer that can't be or must not be tried."""
    rows = tuple(Row(part.title, 0, part.points, status) for part in exercise.parts)
    return Report(exercise.id, exercise.title, summary, rows)


def plain_device() -> AbstractContextManager[Any]:
    """Tensors are made on the CPU inside; where they are anyway, nothing is done, which is twice as fast."""
    return nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")


@contextmanager
def undisturbed(answers: tuple[Any, ...]) -> Iterator[None]:
    """Known settings inside; afterwards random states, defaults, modes and printing are as they were."""
    modes = {m: m.training for a in answers if isinstance(a, nn.Module) for m in a.modules()}
    python_state, numpy_state = random.getstate(), np.random.get_state()
    default_dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with (
            torch.random.fork_rng(devices=range(torch.cuda.device_count())),
            torch.enable_grad(),
            plain_device(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            torch.manual_seed(SEED)
            yield
    finally:
        torch.set_default_dtype(default_dtype)
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        for module, mode in modes.items():
            module.training = mode
