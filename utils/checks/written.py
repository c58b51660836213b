"""Exercises that are answered in words and marked by a person, with the rubric to mark them by."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Criterion:
    """One thing that a good answer says, and what it is worth."""

    points: int
    text: str


@dataclass(frozen=True)
class WrittenExercise:
    """A question in a markdown cell that starts with ``**EXERCISE 2.6**``.

    Attributes:
        id: as in the notebook.
        title: as in the notebook.
        rubric: what earns points, each criterion on its own.
        remark: what a marker should know beyond the criteria.

    Example:
        >>> WRITTEN["2.6"].points
        4
    """

    id: str
    title: str
    rubric: tuple[Criterion, ...]
    remark: str

    @property
    def points(self) -> int:
        """Full marks."""
        return sum(criterion.points for criterion in self.rubric)


WRITTEN: dict[str, WrittenExercise] = {
    exercise.id: exercise
    for exercise in (
        WrittenExercise(
            "2.6",
            "Why divide by the root?",
            (
                Criterion(
                    1,
                    "Says why the scores spread: a dot product adds d_k products, each of variance 1, so its variance "
                    "is d_k (or: its typical size is √d_k).",
                ),
                Criterion(
                    1,
                    "Says why the root: dividing by a number divides the variance by its square, so √d_k brings the "
                    "variance back to 1, while d_k would shrink it to 1/d_k.",
                ),
                Criterion(
                    1,
                    "Says what softmax does with unscaled scores: at large d_k nearly all weight falls on one key "
                    "(or: the weights are close to one-hot).",
                ),
                Criterion(
                    1,
                    "Says what that does to learning: where the weights are one-hot, the gradient through the "
                    "softmax is close to zero, so the scores can hardly be corrected.",
                ),
            ),
            "Own words and small slips in notation cost nothing. 'To keep the numbers small' alone earns no point: it "
            "names neither how large they would be nor why that hurts. An example with numbers may stand for a "
            "derivation.",
        ),
        WrittenExercise(
            "3.6",
            "Does the future leak through the denominator?",
            (
                Criterion(
                    1,
                    "Gives a clear verdict: with the renormalisation nothing leaks.",
                ),
                Criterion(
                    1,
                    "Gives the reason: the first denominator is the same factor in the whole row, so it cancels when "
                    "the row is divided by the sum of what is left; the result is the softmax over the visible keys.",
                ),
                Criterion(
                    1,
                    "Says what happens without the last step: the weights that are left still carry the full "
                    "denominator, so they (and their sum) change when a future token changes, and that is a leak.",
                ),
                Criterion(
                    1,
                    "Names a case in which the recipe fails in practice although it is right on paper: a hidden score "
                    "far above the visible ones makes all visible weights round to 0, and 0/0 is NaN; masking "
                    "the scores with -inf avoids it.",
                ),
            ),
            "The formula is one way to give the reason; a worked example with numbers that shows the factor "
            "cancelling is another. Confusing queries with keys, or rows with columns, costs the point of that "
            "criterion only.",
        ),
        WrittenExercise(
            "8.5",
            "Which lever first?",
            (
                Criterion(
                    1,
                    "A: names memory bandwidth as the limit (each token reads all weights) and fewer bytes per token "
                    "as the lever (16 bits or fewer, or several texts at a time), with a measurement.",
                ),
                Criterion(
                    1,
                    "B: names the T × T table as what fills the memory and fused attention as the lever, with a "
                    "measurement.",
                ),
                Criterion(
                    1,
                    "C: names the exchange of gradients as the limit and a lever that makes it rarer or smaller, with "
                    "a measurement.",
                ),
                Criterion(
                    1,
                    "D: refuses with Amdahl's law worked out (at most about 1.09), and says what to do or measure "
                    "instead.",
                ),
            ),
            "Half a point if the measurement is missing. Another lever that fits the cause counts: speculative "
            "decoding for A, recomputing activations for B, a faster network for C.",
        ),
    )
}
