"""Exercises of chapter 3, causal attention."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from utils.attention import CausalAttention
from utils.checks.chapters.chapter01 import judge_roughly
from utils.checks.chapters.dropout import judge_dropout
from utils.checks.chapters.parts import READY_MADE_ATTENTION, any_input, manners, values
from utils.checks.compare import judge_error, judge_observation, show
from utils.checks.exercise import Exercise, Misconception, Part
from utils.checks.probes.chapter03 import PROBES
from utils.checks.probes.observe import Case, Observation, Raised
from utils.masking import apply_dropout, causal_mask, causal_softmax, is_causal, running_mean

Attention = Callable[[Tensor], Tensor]


# 3.1 ------------------------------------------------------------------------------------------------


def lower_triangle(x: Tensor) -> Tensor:
    """(T, T): ones up to the diagonal, zeros above, in the dtype of ``x`` (B, T, C)."""
    return torch.ones(x.shape[1], x.shape[1], dtype=x.dtype).tril()


def mean_of_everything(x: Tensor) -> Tensor:
    return x.mean(dim=1, keepdim=True).expand_as(x)


def running_sum(x: Tensor) -> Tensor:
    return lower_triangle(x) @ x


def divided_by_all(x: Tensor) -> Tensor:
    return lower_triangle(x) @ x / x.shape[1]


def counted_from_zero(x: Tensor) -> Tensor:
    return lower_triangle(x) @ x / torch.arange(x.shape[1], dtype=x.dtype)[:, None]


def without_itself(x: Tensor) -> Tensor:
    before = lower_triangle(x).tril(-1)
    return before / before.sum(dim=-1, keepdim=True).clamp(min=1) @ x


def mean_of_the_future(x: Tensor) -> Tensor:
    upper = lower_triangle(x).mT
    return upper / upper.sum(dim=-1, keepdim=True) @ x


def columns_add_to_one(x: Tensor) -> Tensor:
    lower = lower_triangle(x)
    return lower / lower.sum(dim=0) @ x


def rows_and_columns_swapped(x: Tensor) -> Tensor:
    lower = lower_triangle(x)
    return (lower / lower.sum(dim=-1, keepdim=True)).mT @ x


def zeros_kept_in_softmax(x: Tensor) -> Tensor:
    return lower_triangle(x).softmax(dim=-1) @ x


def mean_over_channels(x: Tensor) -> Tensor:
    return running_mean(x.mT).mT


def mean_over_the_batch(x: Tensor) -> Tensor:
    return running_mean(x.transpose(0, 1)).transpose(0, 1)


def always_float32(x: Tensor) -> Tensor:
    weights = torch.ones(x.shape[1], x.shape[1]).tril()
    return weights / weights.sum(dim=-1, keepdim=True) @ x


def one_position_at_a_time(x: Tensor) -> Tensor:
    return torch.stack(list(map(lambda t: x[:, : t + 1].mean(dim=1), range(x.shape[1]))), dim=1)  # noqa: C417


EXERCISE_3_1 = Exercise(
    id="3.1",
    title="The mean of the past",
    reference=running_mean,
    parts=(
        values(
            2,
            "Make a (T, T) table of weights: row t holds 1/(t+1) up to and including column t, then zeros. "
            "Multiply it with `x`.",
            "Right numbers, all positions at once",
        ),
        any_input(1, "One position, one channel, long sequences, float32 and float64, any memory layout"),
        manners(1),
    ),
    probes=PROBES["3.1"],
    misconceptions=(
        Misconception(
            "float32 only",
            always_float32,
            "Your table of weights is always float32, and PyTorch doesn't multiply it with float64. Make it with "
            "`dtype=x.dtype`.",
        ),
        Misconception(
            "one position at a time",
            one_position_at_a_time,
            "Right numbers, but your answer still works through the positions one after the other, with a call of "
            "PyTorch for each. Put all the weights into one (T, T) matrix and multiply once.",
        ),
        Misconception(
            "mean of everything",
            mean_of_everything,
            "Every position gets the mean of the whole sequence, its future included. Row t of the weights should "
            "be zero after column t: `torch.tril`.",
        ),
        Misconception(
            "sum",
            running_sum,
            "These are the sums of the past. Divide row t of the triangle by its number of ones, t + 1, so that "
            "each row of weights adds to one.",
        ),
        Misconception(
            "divided by T",
            divided_by_all,
            "You divide every sum by the length of the sequence. Position t has seen only t + 1 inputs: divide each "
            "row of the triangle by its own sum.",
        ),
        Misconception(
            "counts from zero",
            counted_from_zero,
            "You divide position t by t, so the first one is divided by zero. Position 0 has seen one input "
            "already: the count is t + 1.",
        ),
        Misconception(
            "without itself",
            without_itself,
            "Your position t averages the inputs before it but not its own. The past here includes the present: "
            "keep the diagonal of the triangle.",
        ),
        Misconception(
            "future",
            mean_of_the_future,
            "Your position t averages what comes from t on: the upper triangle. The past is the lower one, "
            "`torch.tril`.",
        ),
        Misconception(
            "columns normalised",
            columns_add_to_one,
            "You divided the triangle by the sums of its columns. Each row belongs to one output, so each row "
            "should add to one: `sum(dim=-1, keepdim=True)`.",
        ),
        Misconception(
            "transposed",
            rows_and_columns_swapped,
            "Your weights are the right ones, transposed. Row t says what output t is made of, so it is "
            "`weights @ x` with zeros above the diagonal.",
        ),
        Misconception(
            "softmax of zeros",
            zeros_kept_in_softmax,
            "You took the softmax of zeros and ones: exp(0) is 1, so the zeros get weight, too. With softmax, the "
            "future has to be `-inf` and the past 0.",
        ),
        Misconception(
            "over the channels",
            mean_over_channels,
            "Your mean runs along the channels, the last dimension. It should run along the positions, the middle one.",
        ),
        Misconception(
            "over the batch",
            mean_over_the_batch,
            "Your mean runs along the batch, so different sequences get mixed. It should run along the positions, "
            "the middle dimension.",
        ),
    ),
    forbid=frozenset(["cumsum", "loop"]),
)


# 3.2 ------------------------------------------------------------------------------------------------


def above_diagonal(scores: Tensor) -> Tensor:
    """(T, T) bool, True where the key is later than the query."""
    return causal_mask(scores.shape[-1])


def judge_hidden(got: Observation, expected: Observation, case: Case) -> str | None:
    """As the default, and the weights above the diagonal are zero to the last digit."""
    return judge_observation(got, expected, case) or fault_above_diagonal(got["result"])


def judge_extremes(got: Observation, expected: Observation, case: Case) -> str | None:
    """As ``judge_hidden``, with room for rounding, and the gradients are no NaN."""
    if found := judge_roughly(got, expected, case) or fault_above_diagonal(got["result"]):
        return found
    finite = got.get("gradient_is_finite")
    if isinstance(finite, Raised):
        return f"Backpropagation through your answer raised {show(finite)}"
    return None if finite else "The weights are right, but their gradient holds NaN or inf."


def fault_above_diagonal(weights: Tensor) -> str | None:
    """What is wrong with the hidden weights: a little is too much."""
    hidden = weights[..., above_diagonal(weights)]
    if bool((hidden == 0).all()):
        return None
    return f"Above the diagonal every weight should be exactly 0; the largest of yours is {float(hidden.max()):.1e}."


def softmax_then_zero(scores: Tensor) -> Tensor:
    return torch.softmax(scores, dim=-1).masked_fill(above_diagonal(scores), 0.0)


def zeroed_and_renormalised(scores: Tensor) -> Tensor:
    weights = softmax_then_zero(scores)
    return weights / weights.sum(dim=-1, keepdim=True)


def hides_the_diagonal(scores: Tensor) -> Tensor:
    hidden = torch.ones_like(scores, dtype=torch.bool).triu()
    return torch.softmax(scores.masked_fill(hidden, float("-inf")), dim=-1)


def zeros_before_softmax(scores: Tensor) -> Tensor:
    return torch.softmax(scores.masked_fill(above_diagonal(scores), 0.0), dim=-1)


def hides_the_past(scores: Tensor) -> Tensor:
    return torch.softmax(scores.masked_fill(above_diagonal(scores).mT, float("-inf")), dim=-1)


def over_the_queries(scores: Tensor) -> Tensor:
    return torch.softmax(scores.masked_fill(above_diagonal(scores), float("-inf")), dim=-2)


def over_dimension_one(scores: Tensor) -> Tensor:
    return torch.softmax(scores.masked_fill(above_diagonal(scores), float("-inf")), dim=1)


def not_far_enough(scores: Tensor) -> Tensor:
    return torch.softmax(scores.masked_fill(above_diagonal(scores), -1e4), dim=-1)


def far_below_most(scores: Tensor) -> Tensor:
    return torch.softmax(scores.masked_fill(above_diagonal(scores), -1e3), dim=-1)


def one_too_many(scores: Tensor) -> Tensor:
    hidden = torch.ones_like(scores, dtype=torch.bool).triu(2)
    return torch.softmax(scores.masked_fill(hidden, float("-inf")), dim=-1)


def as_long_as_the_batch(scores: Tensor) -> Tensor:
    return torch.softmax(scores.masked_fill(causal_mask(scores.shape[0]), float("-inf")), dim=-1)


def zero_times_infinity(scores: Tensor) -> Tensor:
    return torch.softmax(scores + above_diagonal(scores) * float("-inf"), dim=-1)


def not_hidden_at_all(scores: Tensor) -> Tensor:
    return torch.softmax(scores, dim=-1)


def masked_scores_only(scores: Tensor) -> Tensor:
    return scores.masked_fill(above_diagonal(scores), float("-inf"))


def exponentials_by_hand(scores: Tensor) -> Tensor:
    exponentials = torch.exp(scores).tril()
    return exponentials / exponentials.sum(dim=-1, keepdim=True)


def masked_in_place(scores: Tensor) -> Tensor:
    return torch.softmax(scores.masked_fill_(above_diagonal(scores), float("-inf")), dim=-1)


EXERCISE_3_2 = Exercise(
    id="3.2",
    title="A softmax that cannot see the future",
    reference=causal_softmax,
    parts=(
        Part(
            "values",
            "Rows add to one, with exact zeros above the diagonal",
            1,
            "Set the scores above the diagonal to `-inf`, then take the softmax of each row.",
            judge=judge_hidden,
        ),
        Part(
            "any_input",
            "One position, any batch dimensions, float32 and float64",
            1,
            "The last two dimensions are queries and keys, whatever stands before them: the softmax runs over "
            "`dim=-1`, and the mask has the size of the scores.",
            judge=judge_hidden,
            needs=("values",),
        ),
        Part(
            "extremes",
            "Scores of ±10,000, also where they are hidden",
            1,
            "Hide before the softmax, not after it, and far enough: `-inf` stays far below any score.",
            judge=judge_extremes,
            needs=("values",),
        ),
        manners(1),
    ),
    probes=PROBES["3.2"],
    misconceptions=(
        Misconception(
            "not far enough",
            not_far_enough,
            "-10,000 does not hide a score next to others of -10,000. Use `-inf`, which stays below every score.",
        ),
        Misconception(
            "far below most",
            far_below_most,
            "-1,000 hides a score among ordinary ones, but not among scores of -10,000: there it is the largest. Use "
            "`-inf`, which stays below every score.",
        ),
        Misconception(
            "zeroed and renormalised",
            zeroed_and_renormalised,
            "Right as long as the hidden scores are not much larger: otherwise all that is left of a row is 0, and "
            "0/0 is NaN. Set the hidden scores to `-inf` before the softmax instead.",
        ),
        Misconception(
            "naive exponentials",
            exponentials_by_hand,
            "Right formula, but exp(10000) is inf, and inf/inf is NaN. Let `torch.softmax` do it on scores that are "
            "hidden by `-inf`; it subtracts the largest score first.",
        ),
        Misconception(
            "in place",
            masked_in_place,
            "Right weights, but you overwrite the scores you were given. `masked_fill` without the underscore makes "
            "new ones.",
        ),
        Misconception(
            "dim 1",
            over_dimension_one,
            "`dim=1` is the keys only without a batch. With one it is the queries, and the rows don't add to one: "
            "write `dim=-1`.",
        ),
        Misconception(
            "zeroed only",
            softmax_then_zero,
            "After you set weights to zero, the rows don't add to one any more: the softmax had shared out weight "
            "to the future. Hide the scores before the softmax.",
        ),
        Misconception(
            "diagonal hidden",
            hides_the_diagonal,
            "Your mask hides the diagonal as well, so the first row has nothing left, which gives NaN. A token may "
            "see itself: `torch.triu(..., diagonal=1)`.",
        ),
        Misconception(
            "one too many",
            one_too_many,
            "Each of your tokens sees one that comes later. The mask starts right above the diagonal: "
            "`torch.triu(..., diagonal=1)`.",
        ),
        Misconception(
            "as long as the batch",
            as_long_as_the_batch,
            "Your mask gets its size from `scores.shape[0]`, which is the batch if there is one. The number of tokens "
            "is `scores.shape[-1]`.",
        ),
        Misconception(
            "zero scores",
            zeros_before_softmax,
            "You set the hidden scores to 0 or nearly so (1e-9?), and exp(0) is 1: the future still gets weight. Set "
            "them to `-inf`, for exp(-inf) is 0.",
        ),
        Misconception(
            "past hidden",
            hides_the_past,
            "Your mask is turned around: each token sees itself and what comes later. Hide what lies above the "
            "diagonal, `torch.triu(..., diagonal=1)`.",
        ),
        Misconception(
            "over the queries",
            over_the_queries,
            "Your columns add to one: the softmax runs over the queries. Each query shares out its own weight over "
            "the keys, so use `dim=-1`.",
        ),
        Misconception(
            "zero times infinity",
            zero_times_infinity,
            "Multiplying a mask by `-inf` gives 0 · inf = NaN wherever the mask is 0. Use "
            '`scores.masked_fill(mask, float("-inf"))`.',
        ),
        Misconception(
            "no mask",
            not_hidden_at_all,
            "This is the plain softmax: each token still sees the future. Set the scores above the diagonal to "
            "`-inf` first.",
        ),
        Misconception(
            "scores only",
            masked_scores_only,
            "These are the masked scores. The softmax over each row is still missing.",
        ),
    ),
)


# 3.3 ------------------------------------------------------------------------------------------------


def beyond_rounding(before: Tensor, after: Tensor, outputs: Tensor, share: float = 1e-4) -> bool:
    """Whether two outputs differ by more than a share of the largest one."""
    return bool(((before - after).abs() > share * outputs.abs().max()).any())


def differs_at_all(before: Tensor, after: Tensor, outputs: Tensor) -> bool:
    return not torch.equal(before, after)


def differs_absolutely(before: Tensor, after: Tensor, outputs: Tensor) -> bool:
    return not torch.allclose(before, after, rtol=0, atol=1e-5)


def differs_by_a_hundredth(before: Tensor, after: Tensor, outputs: Tensor) -> bool:
    return beyond_rounding(before, after, outputs, share=1e-2)


@torch.no_grad()
def keeps_to_the_past(
    attention: Attention,
    d_in: int,
    context_length: int,
    changed_from: Callable[[int], range] = lambda length: range(1, length),
    seen: Callable[[int], slice] = lambda t: slice(None, t),
    differ: Callable[[Tensor, Tensor, Tensor], bool] = beyond_rounding,
    features: int | None = None,
) -> bool:
    """What the wrong answers below share: change the inputs from t on and look at the outputs ``seen(t)``."""
    for t in changed_from(context_length):
        x = torch.randn(1, context_length, d_in)
        changed = x.clone()
        changed[:, t:, :features] = torch.randn_like(changed[:, t:, :features])
        before, after = attention(x), attention(changed)
        if differ(before[:, seen(t)], after[:, seen(t)], before):
            return False
    return True


def in_eval_mode(attention: Attention, d_in: int, context_length: int, **how: Any) -> bool:
    """As above, and a module gets its mode back."""
    training = attention.training if isinstance(attention, nn.Module) else None
    if training is not None:
        attention.eval()
    verdict = keeps_to_the_past(attention, d_in, context_length, **how)
    if training is not None:
        attention.train(training)
    return verdict


def last_token_only(attention: Attention, d_in: int, context_length: int) -> bool:
    return in_eval_mode(
        attention,
        d_in,
        context_length,
        changed_from=lambda length: range(length - 1, length) if length > 1 else range(0),
    )


def middle_only(attention: Attention, d_in: int, context_length: int) -> bool:
    return in_eval_mode(
        attention, d_in, context_length, changed_from=lambda length: range(length // 2, length // 2 + 1)
    )


def first_output_only(attention: Attention, d_in: int, context_length: int) -> bool:
    return in_eval_mode(attention, d_in, context_length, seen=lambda t: slice(1))


def first_feature_only(attention: Attention, d_in: int, context_length: int) -> bool:
    return in_eval_mode(attention, d_in, context_length, features=1)


def to_the_last_digit(attention: Attention, d_in: int, context_length: int) -> bool:
    return in_eval_mode(attention, d_in, context_length, differ=differs_at_all)


def absolute_tolerance(attention: Attention, d_in: int, context_length: int) -> bool:
    return in_eval_mode(attention, d_in, context_length, differ=differs_absolutely)


def generous_tolerance(attention: Attention, d_in: int, context_length: int) -> bool:
    return in_eval_mode(attention, d_in, context_length, differ=differs_by_a_hundredth)


def own_position_too(attention: Attention, d_in: int, context_length: int) -> bool:
    return in_eval_mode(attention, d_in, context_length, seen=lambda t: slice(None, t + 1))


def later_outputs(attention: Attention, d_in: int, context_length: int) -> bool:
    return in_eval_mode(attention, d_in, context_length, seen=lambda t: slice(t, None))


def mode_forgotten(attention: Attention, d_in: int, context_length: int) -> bool:
    return keeps_to_the_past(attention, d_in, context_length)


def left_in_eval_mode(attention: Attention, d_in: int, context_length: int) -> bool:
    if isinstance(attention, nn.Module):
        attention.eval()
    return keeps_to_the_past(attention, d_in, context_length)


def left_in_training_mode(attention: Attention, d_in: int, context_length: int) -> bool:
    verdict = left_in_eval_mode(attention, d_in, context_length)
    if isinstance(attention, nn.Module):
        attention.train()
    return verdict


def modules_only(attention: Attention, d_in: int, context_length: int) -> bool:
    training = attention.training
    attention.eval()
    verdict = keeps_to_the_past(attention, d_in, context_length)
    attention.train(training)
    return verdict


def verdict_as_tensor(attention: Attention, d_in: int, context_length: int) -> Tensor:
    return torch.tensor(is_causal(attention, d_in, context_length))


def verdict_of_numpy(attention: Attention, d_in: int, context_length: int) -> np.bool_:
    return np.bool_(is_causal(attention, d_in, context_length))


def not_a_number_in_the_future(attention: Attention, d_in: int, context_length: int) -> bool:
    x = torch.randn(1, context_length, d_in)
    training = getattr(attention, "training", None)
    if training is not None:
        attention.eval()
    found = False
    for t in range(1, context_length):
        changed = x.clone()
        changed[:, t:] = float("nan")
        found = found or bool(attention(changed)[:, :t].isnan().any())
    if training is not None:
        attention.train(training)
    return not found


def opposite_verdict(attention: Attention, d_in: int, context_length: int) -> bool:
    return not is_causal(attention, d_in, context_length)


def compared_with_itself(attention: Attention, d_in: int, context_length: int) -> bool:
    x = torch.randn(1, context_length, d_in)
    changed = x
    changed[:, 1:] = torch.randn(1, context_length - 1, d_in)
    return torch.equal(attention(x), attention(changed))


def looks_for_a_mask(attention: Attention, d_in: int, context_length: int) -> bool:
    return hasattr(attention, "mask")


def by_gradients(attention: Attention, d_in: int, context_length: int) -> bool:
    training = getattr(attention, "training", None)
    if training is not None:
        attention.eval()
    found = 0.0
    for t in range(1, context_length):
        x = torch.randn(1, context_length, d_in, requires_grad=True)
        early = attention(x)[:, :t].sum()
        if early.requires_grad:
            found = max(found, float(torch.autograd.grad(early, x)[0][:, t:].abs().max()))
    if training is not None:
        attention.train(training)
    return found < 1e-6


EXERCISE_3_3 = Exercise(
    id="3.3",
    title="Find the leak",
    reference=is_causal,
    parts=(
        values(
            2,
            "Run it twice, the second time with other inputs from position t on. If it is causal, the outputs "
            "before t stay the same, for every t.",
            "Tells causal from leaky: functions and modules",
        ),
        Part(
            "leaks",
            "Finds a leak at a single position, and a small one",
            2,
            "Try every position t: change the inputs from there on and compare all outputs before it, in proportion "
            "to the largest output.",
            needs=("values",),
        ),
        Part(
            "rounding",
            "Rounding is no leak, however large the outputs",
            1,
            "Allow for differences of rounding, about 1e-6 of the largest output; a leak is 1e-3 of it or more.",
            needs=("values",),
        ),
        Part(
            "modes",
            "Modules with dropout: tried in eval mode, given back as they came",
            1,
            "Note `attention.training`, call `.eval()`, and restore the mode at the end.",
            needs=("values",),
        ),
    ),
    probes=PROBES["3.3"],
    misconceptions=(
        Misconception(
            "last token only",
            last_token_only,
            "You change the last token only, so you miss a leak from any other. Let t run over all positions and "
            "change the inputs from t on.",
        ),
        Misconception(
            "middle only",
            middle_only,
            "You try one place in the middle only. A leak may go from any position to the one before it: let t run "
            "over all of them.",
        ),
        Misconception(
            "first output only",
            first_output_only,
            "You look at the first output only, so you miss a leak into any other. Compare all outputs before the "
            "change: `[:, :t]`.",
        ),
        Misconception(
            "first feature only",
            first_feature_only,
            "You change one feature of the later inputs only. A leak may come through any of them: change all.",
        ),
        Misconception(
            "generous",
            generous_tolerance,
            "Your tolerance is too generous. A leak of a thousandth of the largest output counts; rounding changes "
            "about a millionth of it.",
        ),
        Misconception(
            "exact",
            to_the_last_digit,
            "You ask for equality to the last digit, or of small numbers in proportion to themselves. Rounding "
            "alone breaks that: allow a small share of the largest output, say 1e-4.",
        ),
        Misconception(
            "absolute",
            absolute_tolerance,
            "Your tolerance is the same for all outputs: too strict where they are 10,000, too generous where they "
            "are 0.001. Compare with a share of the largest output.",
        ),
        Misconception(
            "mode forgotten",
            mode_forgotten,
            "With dropout in training mode, two runs differ without any leak. Switch a module to eval mode first, "
            "and back at the end.",
        ),
        Misconception(
            "left in eval mode",
            left_in_eval_mode,
            "A module that came in training mode leaves yours in eval mode: the next training would run without "
            "dropout. Note `attention.training` first and restore it.",
        ),
        Misconception(
            "left in training mode",
            left_in_training_mode,
            "You put every module into training mode at the end, also one that came in eval mode. Note "
            "`attention.training` first and restore just that.",
        ),
        Misconception(
            "modules only",
            modules_only,
            "Your answer asks for the mode of something that has none: a plain function. Deal with modes only if "
            "`isinstance(attention, torch.nn.Module)`.",
        ),
        Misconception(
            "own position",
            own_position_too,
            "You also compare the output at the changed position itself, which of course changes. Compare those "
            "before it: `[:, :t]`.",
        ),
        Misconception(
            "later outputs",
            later_outputs,
            "You compare the outputs after the change, which may depend on it. The outputs before it must not: "
            "compare `[:, :t]`.",
        ),
        Misconception(
            "tensor",
            verdict_as_tensor,
            "The verdict is right but sits in a tensor. Turn it into a plain bool: `bool(...)`.",
        ),
        Misconception(
            "NumPy's bool",
            verdict_of_numpy,
            "The verdict is right but it is NumPy's bool. Turn it into a plain one: `bool(...)`.",
        ),
        Misconception(
            "NaN in the future",
            not_a_number_in_the_future,
            "NaN gets everywhere: even with a weight of zero, 0 · NaN is NaN, so you find leaks where there are "
            "none. Change the inputs to other ordinary numbers.",
        ),
        Misconception(
            "opposite",
            opposite_verdict,
            "Your verdicts are the wrong way round: True should mean that nothing leaks.",
        ),
        Misconception(
            "compared with itself",
            compared_with_itself,
            "Your verdict is always True: probably both runs get the same input. `changed = x` makes no copy; write "
            "`x.clone()`.",
        ),
        Misconception(
            "looks for a mask",
            looks_for_a_mask,
            "You look for a mask in the object. A mask may be wrong, and a function has none: call `attention` and "
            "look at what it does.",
        ),
        Misconception(
            "gradients",
            by_gradients,
            "You look at gradients, but not everything that leaks has one: rounding, NumPy and `detach` cut it. "
            "Change the inputs and compare the outputs.",
        ),
    ),
)


# 3.4 ------------------------------------------------------------------------------------------------


def not_scaled(weights: Tensor, keep_mask: Tensor, p: float) -> Tensor:
    return weights * keep_mask


def scaled_by_p(weights: Tensor, keep_mask: Tensor, p: float) -> Tensor:
    return weights * keep_mask / p


def scaled_down(weights: Tensor, keep_mask: Tensor, p: float) -> Tensor:
    return weights * keep_mask * (1 - p)


def keeps_the_dropped(weights: Tensor, keep_mask: Tensor, p: float) -> Tensor:
    return weights * ~keep_mask / (1 - p)


def draws_a_mask(weights: Tensor, keep_mask: Tensor, p: float) -> Tensor:
    return weights * (torch.rand_like(weights) >= p) / (1 - p)


def scaled_by_what_is_left(weights: Tensor, keep_mask: Tensor, p: float) -> Tensor:
    return weights * keep_mask / keep_mask.to(weights.dtype).mean()


def rows_renormalised(weights: Tensor, keep_mask: Tensor, p: float) -> Tensor:
    kept = weights * keep_mask
    return kept / kept.sum(dim=-1, keepdim=True)


def scales_the_dropped(weights: Tensor, keep_mask: Tensor, p: float) -> Tensor:
    return torch.where(keep_mask, weights, weights / (1 - p))


def doubled_survivors(weights: Tensor, keep_mask: Tensor, p: float) -> Tensor:
    return weights * keep_mask * 2


def dropped_in_place(weights: Tensor, keep_mask: Tensor, p: float) -> Tensor:
    return weights.masked_fill_(~keep_mask, 0.0) / (1 - p)


def survivors_only(weights: Tensor, keep_mask: Tensor, p: float) -> Tensor:
    return weights[keep_mask] / (1 - p)


EXERCISE_3_4 = Exercise(
    id="3.4",
    title="Dropout by hand",
    reference=apply_dropout,
    parts=(
        values(1, "Weights where the mask is False become 0, the others are divided by 1 - p."),
        any_input(1, "Any shape and any p, nothing or everything kept"),
        manners(1),
    ),
    probes=PROBES["3.4"],
    misconceptions=(
        Misconception(
            "in place",
            dropped_in_place,
            "The numbers are right, but you overwrite the weights you were given. Compute new ones, without an "
            "underscore at the end of the function's name.",
        ),
        Misconception(
            "always doubled",
            doubled_survivors,
            "You double the survivors whatever p is. That is right for p = 0.5 only: divide by 1 - p.",
        ),
        Misconception(
            "not scaled",
            not_scaled,
            "You drop weights but leave the others as they are, so sums get smaller in training than later. Divide "
            "the survivors by 1 - p.",
        ),
        Misconception(
            "divided by p",
            scaled_by_p,
            "You divide by p, the share that is dropped. The survivors are divided by the share that is kept, 1 - p.",
        ),
        Misconception(
            "scaled down",
            scaled_down,
            "You multiply by 1 - p, which makes the survivors smaller still. Divide by it: they stand in for the "
            "dropped ones, too.",
        ),
        Misconception(
            "inverted",
            keeps_the_dropped,
            "You keep what should be dropped. `keep_mask` is True where a weight survives.",
        ),
        Misconception(
            "own mask",
            draws_a_mask,
            "You draw a mask of your own. Use the `keep_mask` you are given: then the result can be checked, and "
            "nothing is random.",
        ),
        Misconception(
            "what is left",
            scaled_by_what_is_left,
            "You divide by the share that happened to survive. Divide by 1 - p, the share expected: then dropout is "
            "right on average.",
        ),
        Misconception(
            "renormalised",
            rows_renormalised,
            "You made the rows add to one again. Dropout doesn't: it divides by 1 - p, and rows add to one only on "
            "average.",
        ),
        Misconception(
            "nothing dropped",
            scales_the_dropped,
            "The weights that should be dropped are still there. Where `keep_mask` is False the result is 0; where "
            "it is True it is the weight divided by 1 - p.",
        ),
        Misconception(
            "survivors only",
            survivors_only,
            "Indexing with the mask picks the survivors into one long list. The shape should stay: multiply by the "
            "mask, or use `torch.where`.",
        ),
    ),
    forbid=frozenset(["dropout"]),
)


# 3.5 ------------------------------------------------------------------------------------------------


class StepByStep(CausalAttention):
    """The reference in steps, each of which a wrong answer can replace."""

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        queries, keys, values = self.W_query(x), self.W_key(x), self.W_value(x)
        scores = self.scaled(queries @ keys.mT)
        return self.combined(self.get_weights(self.hide(scores)), values)

    def check(self, x: Tensor) -> None:
        if x.shape[1] > self.context_length:
            raise ValueError(f"{x.shape[1]} tokens are more than {self.context_length}")

    def scaled(self, scores: Tensor) -> Tensor:
        return scores / self.W_key.out_features**0.5

    def hidden(self, num_tokens: int) -> Tensor:
        return self.mask[:num_tokens, :num_tokens]

    def hide(self, scores: Tensor) -> Tensor:
        return scores.masked_fill(self.hidden(scores.shape[-1]), float("-inf"))

    def get_weights(self, scores: Tensor) -> Tensor:
        return torch.softmax(scores, dim=-1)

    def combined(self, weights: Tensor, values: Tensor) -> Tensor:
        return self.dropout(weights) @ values


class OverTheQueries(StepByStep):
    def get_weights(self, scores: Tensor) -> Tensor:
        return torch.softmax(scores, dim=1)


class NotScaled(StepByStep):
    def scaled(self, scores: Tensor) -> Tensor:
        return scores


class ScaledByInputSize(StepByStep):
    def scaled(self, scores: Tensor) -> Tensor:
        return scores / self.W_key.in_features**0.5


class ScaledWithoutRoot(StepByStep):
    def scaled(self, scores: Tensor) -> Tensor:
        return scores / self.W_key.out_features


class NothingHidden(StepByStep):
    def hide(self, scores: Tensor) -> Tensor:
        return scores


class MaskNotCut(StepByStep):
    def hidden(self, num_tokens: int) -> Tensor:
        return self.mask


class MaskCutForGood(StepByStep):
    def hidden(self, num_tokens: int) -> Tensor:
        self.mask = self.mask[:num_tokens, :num_tokens]
        return self.mask


class OneTooMany(StepByStep):
    def hidden(self, num_tokens: int) -> Tensor:
        return super().hidden(num_tokens).triu(2)


class MaskCutAtTheEnd(StepByStep):
    def hidden(self, num_tokens: int) -> Tensor:
        return self.mask[-num_tokens:, :num_tokens]


class DiagonalHidden(StepByStep):
    def hidden(self, num_tokens: int) -> Tensor:
        return super().hidden(num_tokens) | torch.eye(num_tokens, dtype=torch.bool)


class PastHidden(StepByStep):
    def hidden(self, num_tokens: int) -> Tensor:
        return super().hidden(num_tokens).mT


class WeightsZeroed(StepByStep):
    def hide(self, scores: Tensor) -> Tensor:
        return scores

    def get_weights(self, scores: Tensor) -> Tensor:
        return torch.softmax(scores, dim=-1).masked_fill(self.hidden(scores.shape[-1]), 0.0)


class ScoresZeroed(StepByStep):
    def hide(self, scores: Tensor) -> Tensor:
        return scores.masked_fill(self.hidden(scores.shape[-1]), 0.0)


class KeysAskQueries(StepByStep):
    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        scores = self.scaled(self.W_key(x) @ self.W_query(x).mT)
        return self.combined(self.get_weights(self.hide(scores)), self.W_value(x))


class OneSequenceOnly(StepByStep):
    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        scores = self.scaled(self.W_query(x) @ self.W_key(x).permute(2, 1, 0))
        return self.combined(self.get_weights(self.hide(scores)), self.W_value(x))


class DropoutAlways(StepByStep):
    def combined(self, weights: Tensor, values: Tensor) -> Tensor:
        return nn.functional.dropout(weights, self.dropout.p) @ values


class DropoutNever(StepByStep):
    def combined(self, weights: Tensor, values: Tensor) -> Tensor:
        return weights @ values


class DropoutOnOutputs(StepByStep):
    def combined(self, weights: Tensor, values: Tensor) -> Tensor:
        return self.dropout(weights @ values)


class DropoutOnValues(StepByStep):
    def combined(self, weights: Tensor, values: Tensor) -> Tensor:
        return weights @ self.dropout(values)


class DropoutOnScores(StepByStep):
    def get_weights(self, scores: Tensor) -> Tensor:
        return super().get_weights(self.dropout(scores))

    def combined(self, weights: Tensor, values: Tensor) -> Tensor:
        return weights @ values


class MaskAsParameter(StepByStep):
    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        mask = self.mask
        del self.mask
        self.mask = nn.Parameter(mask, requires_grad=False)


class MaskAsAttribute(StepByStep):
    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        mask = self.mask
        del self.mask
        self.mask = mask


class BiasIgnored(StepByStep):
    def __init__(self, d_in: int, d_out: int, context_length: int, dropout: float, qkv_bias: bool = False):
        super().__init__(d_in, d_out, context_length, dropout)


class BiasAlways(StepByStep):
    def __init__(self, d_in: int, d_out: int, context_length: int, dropout: float, qkv_bias: bool = True):
        super().__init__(d_in, d_out, context_length, dropout, qkv_bias)


class LengthNotChecked(StepByStep):
    def check(self, x: Tensor) -> None:
        pass


class LengthNotNamed(StepByStep):
    def check(self, x: Tensor) -> None:
        if x.shape[1] > self.context_length:
            raise ValueError("the input is too long")


class FullLengthOnly(StepByStep):
    def check(self, x: Tensor) -> None:
        if x.shape[1] != self.context_length:
            raise ValueError(f"{x.shape[1]} tokens instead of {self.context_length}")


class TooLongIsCut(StepByStep):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, -self.context_length :])


EXERCISE_3_5 = Exercise(
    id="3.5",
    title="Causal attention as a class",
    reference=CausalAttention,
    parts=(
        values(
            2,
            "Queries, keys and values; scores divided by √d_out; what lies above the diagonal set to `-inf`; softmax "
            "over the keys; weights times values.",
            "Right outputs for sequences of full length",
        ),
        Part(
            "structure",
            "Three `nn.Linear` layers, with or without bias, and the mask as a buffer",
            1,
            "`W_query`, `W_key` and `W_value` are `nn.Linear(d_in, d_out, bias=qkv_bias)`, and the mask is registered "
            "with `register_buffer`.",
            needs=("values",),
        ),
        any_input(
            1,
            "Shorter sequences, any batch, bias, float32 and float64",
            "A sequence may be shorter than `context_length`: use the top-left corner of the mask, "
            "`mask[:num_tokens, :num_tokens]`.",
        ),
        Part(
            "dropout",
            "Dropout on the weights, in training only",
            1,
            "Keep an `nn.Dropout(dropout)` in the module and send the weights through it: it knows the module's mode.",
            judge=judge_dropout,
            needs=("values",),
        ),
        Part(
            "error",
            "A sequence that is too long is refused with its length",
            1,
            "Raise a `ValueError` whose message holds the number of tokens.",
            judge=judge_error,
            needs=("values",),
        ),
        manners(1),
    ),
    probes=PROBES["3.5"],
    misconceptions=(
        Misconception(
            "length not checked",
            LengthNotChecked,
            "A sequence longer than `context_length` fails somewhere inside, with a message about shapes. Check the "
            "length first and raise a `ValueError` that names it.",
        ),
        Misconception(
            "length not named",
            LengthNotNamed,
            "You refuse sequences that are too long, but the message doesn't say how long. Put the number of tokens "
            "into it.",
        ),
        Misconception(
            "cut if too long",
            TooLongIsCut,
            "You cut off what is too long without a word, and the output is shorter than the input. Raise a "
            "`ValueError` that names the length.",
        ),
        Misconception(
            "plain attribute",
            MaskAsAttribute,
            "There is no buffer called `mask`. A plain attribute stays behind when the module moves to a GPU: use "
            '`self.register_buffer("mask", ...)`.',
        ),
        Misconception(
            "parameter",
            MaskAsParameter,
            "The mask is an `nn.Parameter`, so it counts among the weights to be trained. It is fixed: use "
            '`self.register_buffer("mask", ...)`.',
        ),
        Misconception(
            "bias ignored",
            BiasIgnored,
            "`qkv_bias` changes nothing. Pass it on to all three layers: `nn.Linear(d_in, d_out, bias=qkv_bias)`.",
        ),
        Misconception(
            "bias by default",
            BiasAlways,
            "Without being asked, your layers have a bias. The default is `qkv_bias=False`, and `nn.Linear` needs "
            "to be told: `bias=qkv_bias`.",
        ),
        Misconception(
            "no dropout",
            DropoutNever,
            "Nothing is dropped in training. Send the weights through `nn.Dropout(dropout)` before they meet the "
            "values.",
        ),
        Misconception(
            "dropout in eval mode",
            DropoutAlways,
            "You drop weights in eval mode, too. `F.dropout` does that unless you pass `training=self.training`; "
            "an `nn.Dropout` in the module knows by itself.",
        ),
        Misconception(
            "dropout on outputs",
            DropoutOnOutputs,
            "You drop entries of the outputs. Drop the weights, before they meet the values: then a token does "
            "without some of the others.",
        ),
        Misconception(
            "dropout on values",
            DropoutOnValues,
            "You drop entries of the values, for all queries at once. Drop the weights: each query then loses "
            "other keys.",
        ),
        Misconception(
            "dropout on scores",
            DropoutOnScores,
            "You drop scores before the softmax, but a score of 0 still gets a weight. Drop the weights, after the "
            "softmax.",
        ),
        Misconception(
            "full length only",
            FullLengthOnly,
            "You refuse sequences that are shorter than `context_length`. Only longer ones don't fit.",
        ),
        Misconception(
            "mask not cut",
            MaskNotCut,
            "Your mask always has its full size, which doesn't fit shorter sequences. Use its top-left corner: "
            "`self.mask[:num_tokens, :num_tokens]`.",
        ),
        Misconception(
            "mask cut for good",
            MaskCutForGood,
            "After a short sequence your mask stays short, and the next, longer one finds too little of it. Keep "
            "`self.mask` as it is and cut it into a local variable.",
        ),
        Misconception(
            "one too many",
            OneTooMany,
            "Each of your tokens sees one that comes later. The mask starts right above the diagonal: "
            "`torch.triu(..., diagonal=1)`.",
        ),
        Misconception(
            "mask cut at the end",
            MaskCutAtTheEnd,
            "For shorter sequences you take the wrong part of the mask: its last rows hide too little. The "
            "first query needs the first row: `self.mask[:num_tokens, :num_tokens]`.",
        ),
        Misconception(
            "over the queries",
            OverTheQueries,
            "Your softmax runs over `dim=1`, which in a batch is the queries: the rows of the weights don't add to "
            "one. Use `dim=-1`, the keys.",
        ),
        Misconception(
            "not scaled",
            NotScaled,
            "Your scores are not scaled. Divide them by the square root of `d_out` before the softmax.",
        ),
        Misconception(
            "scaled by d_in",
            ScaledByInputSize,
            "You divide the scores by √d_in. What counts is the length of the keys, √d_out.",
        ),
        Misconception(
            "no root",
            ScaledWithoutRoot,
            "You divide the scores by d_out. It is the square root of it that brings their variance back to one.",
        ),
        Misconception(
            "no mask",
            NothingHidden,
            "Nothing is hidden: every token sees the future. Set the scores above the diagonal to `-inf` before the "
            "softmax.",
        ),
        Misconception(
            "diagonal hidden",
            DiagonalHidden,
            "Your mask hides the diagonal as well, so the first token sees nothing at all, which gives NaN. Use "
            "`torch.triu(..., diagonal=1)`.",
        ),
        Misconception(
            "past hidden",
            PastHidden,
            "Your mask is turned around: each token sees itself and what comes later. Hide what lies above the "
            "diagonal.",
        ),
        Misconception(
            "weights zeroed",
            WeightsZeroed,
            "You set weights to zero after the softmax, and the rows don't add to one any more. Set the scores to "
            "`-inf` before it.",
        ),
        Misconception(
            "scores zeroed",
            ScoresZeroed,
            "You set the hidden scores to 0, and exp(0) is 1: the future still gets weight. Set them to `-inf`.",
        ),
        Misconception(
            "queries and keys swapped",
            KeysAskQueries,
            "Your scores are transposed: the keys ask and the queries answer. Row i belongs to query i: "
            "`queries @ keys.transpose(-2, -1)`.",
        ),
        Misconception(
            "batch turned around",
            OneSequenceOnly,
            "`.T` turns all three dimensions around, the batch included. Swap only the last two: "
            "`keys.transpose(-2, -1)`.",
        ),
    ),
    forbid=READY_MADE_ATTENTION,
)


EXERCISES = (EXERCISE_3_1, EXERCISE_3_2, EXERCISE_3_3, EXERCISE_3_4, EXERCISE_3_5)
