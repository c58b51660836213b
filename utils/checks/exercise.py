"""What an exercise is: data. Marks, misconceptions and the parts they are made of."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from utils.checks.compare import judge_observation
from utils.checks.probes.observe import Case, Observation, Probe, trials

Judge = Callable[[Observation, Observation, Case], str | None]
Inputs = dict[str, list[Case]]  # the cases of every part, by the part's name
Seen = dict[str, list[Observation]]  # what an answer did in each of them


@dataclass(frozen=True)
class Part:
    """One row of the report.

    Attributes:
        name: key of the part's probe.
        title: what the learner reads.
        points: earned when every case passes.
        hint: one sentence for an answer that fails here.
        judge: compares one observation with the reference's; returns what is wrong, or None.
        needs: parts that must pass too. A part that a constant answer could earn needs one that it can't.
    """

    name: str
    title: str
    points: int
    hint: str
    judge: Judge = judge_observation
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Misconception:
    """A plausible wrong answer and what a good teacher says to it.

    ``answer`` is a function or class, or a tuple of them where the exercise asks for several.
    """

    name: str
    answer: Any
    sentence: str


@dataclass(frozen=True)
class Exercise:
    """One exercise of the contract.

    Attributes:
        id: as in the notebook, "3.2".
        title: as in the notebook.
        reference: the right answer (a tuple where the exercise asks for several).
        parts: the rows of the report, each with its points.
        probes: by part name, how to try an answer; see ``utils.checks.probes``.
        misconceptions: plausible wrong answers, commonest first.
        forbid: names that would skip the exercise.

    Example:
        >>> from utils.checks import EXERCISES
        >>> EXERCISES["1.1"].title
        'The dot product'
    """

    id: str
    title: str
    reference: Any
    parts: tuple[Part, ...]
    probes: Mapping[str, Probe]
    misconceptions: tuple[Misconception, ...]
    forbid: frozenset[str] = frozenset()

    @property
    def points(self) -> int:
        """Full marks."""
        return sum(part.points for part in self.parts)

    @property
    def num_answers(self) -> int:
        """How many functions or classes ``check`` takes after the id."""
        return len(as_answers(self.reference))

    def part(self, name: str) -> Part:
        """The part of that name."""
        return next(part for part in self.parts if part.name == name)

    def inputs(self, generator: torch.Generator) -> Inputs:
        """The cases of every part, drawn from ``generator``."""
        return {part.name: self.probes[part.name].cases(generator) for part in self.parts}

    def probe(self, answer: Any, inputs: Inputs) -> Seen:
        """What an answer does in every case. With ``trials`` the only method that runs the learner's code."""
        return {name: list(self.trials(answer, name, cases)) for name, cases in inputs.items()}

    def trials(self, answer: Any, part_name: str, cases: list[Case]) -> Iterator[Observation]:
        """What an answer does in one part, case by case; see ``observe.trials``."""
        return trials(self.probes[part_name], answer, cases)

    def judge(self, seen: Seen, expected: Seen, inputs: Inputs) -> dict[str, str | None]:
        """For every part in ``inputs`` the first thing that is wrong, or None. Looks at data only."""
        faults: dict[str, str | None] = {}
        seen = well_formed(seen, inputs)
        for name in inputs:
            trials = zip(seen[name], expected[name], inputs[name], strict=True)
            found = (fault_in(self.part(name).judge, *trial) for trial in trials)
            faults[name] = next(filter(None, found), None)
        return faults


def fault_in(judge: Judge, got: Observation, expected: Observation, case: Case) -> str | None:
    """What the judge says; what a judge can't read is a fault, too."""
    try:
        return judge(got, expected, case)
    except Exception:
        return "What your code gives back can't be compared with what is asked for."


def well_formed(seen: Any, inputs: Inputs) -> Seen:
    """One observation for every case; what is missing or malformed becomes ``{}``, which passes no judge.

    Example:
        >>> well_formed({"values": [{"result": 1}]}, {"values": [{}], "manners": [{}, {}]})
        {'values': [{'result': 1}], 'manners': [{}, {}]}
    """
    by_part = seen if isinstance(seen, dict) else {}
    formed: Seen = {}
    for name, cases in inputs.items():
        found = by_part.get(name)
        if not isinstance(found, list) or len(found) != len(cases):
            found = [None] * len(cases)
        formed[name] = [observation if isinstance(observation, dict) else {} for observation in found]
    return formed


def as_answers(answer: Any) -> tuple[Any, ...]:
    """One answer or several, as a tuple.

    Example:
        >>> as_answers(abs)
        (<built-in function abs>,)
    """
    return answer if isinstance(answer, tuple) else (answer,)
