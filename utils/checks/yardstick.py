"""What an answer is held against: how the right answer and the plausible wrong ones behave in the same cases."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch

from utils.checks.exercise import Exercise, Inputs, Misconception, Seen
from utils.checks.probes.observe import Observation


class Trials:
    """What an answer does in one part, case by case; each case is tried once, when it is first asked for."""

    def __init__(self, exercise: Exercise, answer: Any, part_name: str, inputs: Inputs):
        self._rest = exercise.trials(answer, part_name, inputs[part_name])
        self._tried: list[Observation] = []
        self._random_state: torch.Tensor | None = None
        self._length = len(inputs[part_name])

    def __iter__(self) -> Iterator[Observation]:
        for number in range(self._length):
            if number == len(self._tried):
                if self._random_state is not None:  # go on where the last case stopped, whoever drew since
                    torch.set_rng_state(self._random_state)
                self._tried.append(next(self._rest))
                self._random_state = torch.get_rng_state()
            yield self._tried[number]


class Yardstick:
    """An exercise's reference and misconceptions in the cases of one seed, for as many answers as there are to judge.

    Nothing is tried before it is needed, and nothing twice.

    Attributes:
        inputs: the cases. A learner's code may change those it gets: hand it ``fresh_inputs()`` instead.

    Example:
        >>> from utils.checks import EXERCISES
        >>> yardstick = Yardstick(EXERCISES["1.1"], seed=0)
        >>> yardstick.expected.keys() == yardstick.inputs.keys()
        True
    """

    def __init__(self, exercise: Exercise, seed: int):
        self.exercise, self.seed = exercise, seed
        self.inputs = self.fresh_inputs()
        self._trials: dict[tuple[str, str], Trials] = {}

    def fresh_inputs(self) -> Inputs:
        """The same cases once more, sharing no memory with any other."""
        return self.exercise.inputs(torch.Generator().manual_seed(self.seed))

    @cached_property
    def expected(self) -> Seen:
        """What the reference does."""
        return self.exercise.probe(self.exercise.reference, self.inputs)

    def behaviour(self, misconception: Misconception, part_name: str) -> Trials:
        """What a misconception does in one part."""
        key = (misconception.name, part_name)
        if key not in self._trials:
            self._trials[key] = Trials(self.exercise, misconception.answer, part_name, self.inputs)
        return self._trials[key]
