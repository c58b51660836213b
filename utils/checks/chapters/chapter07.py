"""Exercises of chapter 7, training a language model."""

import copy
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.checkpoints import load_checkpoint, save_checkpoint
from utils.checks.chapters.chapter05 import chi_squared_limit
from utils.checks.chapters.parts import any_input, manners, values
from utils.checks.compare import difference, judge_error, judge_observation, show
from utils.checks.exercise import Exercise, Judge, Misconception, Part
from utils.checks.probes.chapter07 import MANY_ROWS, PROBES
from utils.checks.probes.observe import Case, Observation, Raised
from utils.generation import sample_next
from utils.modes import evaluating
from utils.training import cross_entropy, estimate_loss, learning_rate, parameter_groups, perplexity

READY_MADE_LOSSES = frozenset({"cross_entropy", "nll_loss", "log_softmax"})
RATE_TOLERANCE = 1e-5  # of a number's size: float32 is fine, rounding to a few digits is not


def facts(sentences: dict[str, str]) -> Judge:
    """The default judge, with a sentence of its own for each of these facts that is not as in the reference."""

    def judge(got: Observation, expected: Observation, case: Case) -> str | None:
        if isinstance(got.get("raised"), Raised):
            return f"Your code raised {show(got['raised'])}"
        for name, value in expected.items():
            if name in sentences and name in got:
                fault = None if got[name] == value else sentences[name]
            else:
                fault = judge_observation(got, {name: value}, case)
            if fault:
                return fault
        return None

    return judge


def judge_number(got: Observation, expected: Observation, case: Case) -> str | None:
    """As the default judge, and not rounded."""
    fault = judge_observation(got, expected, case)
    if fault is None and abs(got["result"] - expected["result"]) > RATE_TOLERANCE * abs(expected["result"]):
        return "Your number is rounded. Return it as it is; rounding belongs where it is printed."
    return fault


# 7.1 ------------------------------------------------------------------------------------------------


def log_probabilities(logits: Tensor, dim: int = -1) -> Tensor:
    shifted = logits - logits.amax(dim=dim, keepdim=True)
    return shifted - shifted.exp().sum(dim=dim, keepdim=True).log()


def at_targets(values: Tensor, targets: Tensor) -> Tensor:
    return values.gather(-1, targets[..., None]).squeeze(-1)


def surprise_summed(logits, targets):
    return cross_entropy(logits, targets) * targets.numel()


def surprise_in_bits(logits, targets):
    return cross_entropy(logits, targets) / math.log(2)


def surprise_without_minus(logits, targets):
    return at_targets(log_probabilities(logits), targets).mean()


def surprise_of_every_class(logits, targets):
    return -log_probabilities(logits).mean()


def surprise_by_plain_exp(logits, targets):
    probs = logits.exp() / logits.exp().sum(dim=-1, keepdim=True)
    return -at_targets(probs, targets).log().mean()


def surprise_one_maximum(logits, targets):
    shifted = logits - logits.max()
    return (shifted.exp().sum(dim=-1).log() - at_targets(shifted, targets)).mean()


def surprise_log_after_softmax(logits, targets):
    return -at_targets(torch.softmax(logits, dim=-1), targets).log().mean()


def surprise_clamped(logits, targets):
    return -at_targets(torch.softmax(logits, dim=-1), targets).clamp(min=1e-9).log().mean()


def surprise_at_the_likeliest(logits, targets):
    return -log_probabilities(logits).amax(dim=-1).mean()


def surprise_over_the_batch(logits, targets):
    return -at_targets(log_probabilities(logits, dim=0), targets).mean()


def surprise_over_dimension_one(logits, targets):
    return -at_targets(log_probabilities(logits, dim=min(1, logits.dim() - 1)), targets).mean()


def surprise_without_total(logits, targets):
    return -at_targets(logits, targets).mean()


def surprise_as_probability(logits, targets):
    return -at_targets(torch.softmax(logits, dim=-1), targets).mean()


def surprise_log_of_the_mean(logits, targets):
    return -at_targets(torch.softmax(logits, dim=-1), targets).mean().log()


def surprise_per_row(logits, targets):
    rows = len(targets) if targets.dim() else 1
    return cross_entropy(logits, targets) * targets.numel() / rows


def surprise_not_averaged(logits, targets):
    return -at_targets(log_probabilities(logits), targets)


def surprise_two_dimensional(logits, targets):
    return -log_probabilities(logits)[torch.arange(len(targets)), targets].mean()


def surprise_reshaped_wrongly(logits, targets):
    scrambled = logits.movedim(-1, 0).reshape(-1, logits.shape[-1])
    return -at_targets(log_probabilities(scrambled), targets.flatten()).mean()


def surprise_cut_off(logits, targets):
    return torch.tensor(cross_entropy(logits, targets).item(), dtype=logits.dtype)


EXTREMES = {
    "gradient_is_finite": "For logits of ±10 000 the loss is right, but its gradient is NaN or inf: somewhere on the "
    "way is a log of 0 or an inf, even if it is not used.",
}


EXERCISE_7_1 = Exercise(
    id="7.1",
    title="Cross-entropy by hand",
    reference=cross_entropy,
    parts=(
        values(
            1,
            "Log of the softmax over the last dimension, pick each target's entry, minus, mean over all rows.",
            "Right numbers for (V,), (N, V) and (B, T, V)",
        ),
        any_input(1, "More dimensions, float64, any memory layout"),
        Part(
            "extremes",
            "Finite for logits of ±10 000",
            1,
            "Subtract the largest score first, and stay in logarithms: log p = score - max - log(sum of exp).",
            judge=facts(EXTREMES),
            needs=("values",),
        ),
        manners(1),
    ),
    probes=PROBES["7.1"],
    misconceptions=(
        Misconception(
            "softmax, then log",
            surprise_log_after_softmax,
            "Softmax rounds small probabilities to 0, and log 0 is -inf. Simplify before you compute: log p is the "
            "score minus the maximum minus the log of the sum of exp.",
        ),
        Misconception(
            "plain exp",
            surprise_by_plain_exp,
            "`exp` of a large logit is inf, and inf / inf is NaN. Subtract the largest logit of each row first: it "
            "cancels in the softmax.",
        ),
        Misconception(
            "one maximum",
            surprise_one_maximum,
            "You subtract the largest score of all rows. Where a row lies far below it, every `exp` becomes 0: "
            "subtract each row's own maximum, `amax(dim=-1, keepdim=True)`.",
        ),
        Misconception(
            "clamped",
            surprise_clamped,
            "You clamp the probabilities away from 0: then no mistake costs more than 20.7 nats, and those get no "
            "gradient. Stay in logarithms, and nothing needs clamping.",
        ),
        Misconception(
            "no minus",
            surprise_without_minus,
            "Your loss is negative: log of a probability is below 0. Surprise is minus the log.",
        ),
        Misconception(
            "sum",
            surprise_summed,
            "You add up the surprises. Take their mean, so that the loss does not grow with the batch.",
        ),
        Misconception(
            "not averaged",
            surprise_not_averaged,
            "You return one surprise per target. A loss is a single number: their mean.",
        ),
        Misconception(
            "mean per row",
            surprise_per_row,
            "You divide by the number of rows only. Every token is a prediction: average over all of them, B·T.",
        ),
        Misconception(
            "bits",
            surprise_in_bits,
            "You took the logarithm to base 2, which measures in bits. Losses here are in nats: the natural `log`.",
        ),
        Misconception(
            "every class",
            surprise_of_every_class,
            "You average the log probabilities of all V classes; the targets play no part. Pick the target's entry "
            "of each row first, for example with `gather`.",
        ),
        Misconception(
            "the likeliest",
            surprise_at_the_likeliest,
            "You look at the likeliest token's probability. The loss asks for the target's, however small it is.",
        ),
        Misconception(
            "over the batch",
            surprise_over_the_batch,
            "Your softmax runs over the first dimension, so the rows compete with each other. Probabilities add to "
            "one over the vocabulary: `dim=-1`.",
        ),
        Misconception(
            "over dimension 1",
            surprise_over_dimension_one,
            "Your softmax runs over dimension 1. For (N, V) that is the vocabulary, for (B, T, V) time: use `dim=-1`.",
        ),
        Misconception(
            "no total",
            surprise_without_total,
            "You use the target's raw logit. Alone it says little: subtract the log of the sum of exp over all logits.",
        ),
        Misconception(
            "no log",
            surprise_as_probability,
            "You average the probabilities themselves. Surprise is minus their logarithm.",
        ),
        Misconception(
            "log of the mean",
            surprise_log_of_the_mean,
            "You average first and take the log afterwards. Take the log of each target's probability, then the mean.",
        ),
        Misconception(
            "two dimensions only",
            surprise_two_dimensional,
            "Indexing with `arange` fits (N, V) only. Flatten (B, T, V) to (B·T, V) first, or use `gather` on the "
            "last dimension.",
        ),
        Misconception(
            "scrambled",
            surprise_reshaped_wrongly,
            "Your reshape mixes logits of different positions: shapes fit, contents don't. Flatten the dimensions as "
            "they lie, without moving V first.",
        ),
        Misconception(
            "cut off",
            surprise_cut_off,
            "The number is right, but it has lost its history: nothing can be learned from it. Return the tensor "
            "you computed, without `.item()` or `torch.tensor(...)`.",
        ),
    ),
    forbid=READY_MADE_LOSSES,
)


# 7.2 ------------------------------------------------------------------------------------------------


def power(base: float) -> Callable[[Any], Any]:
    return lambda loss: base**loss


def perplexity_inverse(loss):
    return perplexity(-loss)


def perplexity_log(loss):
    return (loss + 1e-12).log() if isinstance(loss, Tensor) else math.log(loss + 1e-12)


def perplexity_minus_one(loss):
    return loss.expm1() if isinstance(loss, Tensor) else math.expm1(loss)


def perplexity_tensors_only(loss):
    return torch.exp(loss)


def perplexity_numbers_only(loss):
    return math.exp(loss)


def perplexity_always_tensor(loss):
    return torch.as_tensor(loss).exp()


def perplexity_always_float(loss):
    return float(torch.as_tensor(loss).exp().mean())


def perplexity_rebuilt(loss):
    return torch.tensor(loss.exp().tolist(), dtype=loss.dtype) if isinstance(loss, Tensor) else math.exp(loss)


def perplexity_whole(loss):
    return loss.exp().round() if isinstance(loss, Tensor) else float(round(math.exp(loss)))


EXERCISE_7_2 = Exercise(
    id="7.2",
    title="Perplexity",
    reference=perplexity,
    parts=(
        values(1, "`loss.exp()`: a tensor goes in, a tensor comes out.", "A tensor for a tensor, with its gradient"),
        Part(
            "numbers",
            "A float for a float",
            1,
            "`math.exp(loss)` for a plain number; `isinstance(loss, torch.Tensor)` tells which it is.",
            judge=judge_number,
        ),
    ),
    probes=PROBES["7.2"],
    misconceptions=(
        Misconception(
            "base two",
            power(2.0),
            "You took 2 to the power of the loss, which fits a loss in bits. Ours is in nats: `exp`.",
        ),
        Misconception(
            "base ten",
            power(10.0),
            "You took 10 to the power of the loss. The loss is a natural logarithm, so its inverse is `exp`.",
        ),
        Misconception(
            "inverse",
            perplexity_inverse,
            "`exp(-loss)` is the typical probability of the right token. Perplexity is its inverse: no minus.",
        ),
        Misconception(
            "log",
            perplexity_log,
            "The loss is a logarithm already. Perplexity undoes it: `exp`.",
        ),
        Misconception(
            "minus one",
            perplexity_minus_one,
            "`expm1` subtracts 1. A model that is always sure and right has perplexity 1, not 0: use `exp`.",
        ),
        Misconception(
            "tensors only",
            perplexity_tensors_only,
            "`torch.exp` and `.exp()` need a tensor. For a plain float use `math.exp`.",
        ),
        Misconception(
            "numbers only",
            perplexity_numbers_only,
            "`math.exp` turns every tensor into a plain float, and the gradient is lost. Use `loss.exp()` for tensors.",
        ),
        Misconception(
            "always a tensor",
            perplexity_always_tensor,
            "For a float you return a tensor. A plain number in, a plain number out: `math.exp`.",
        ),
        Misconception(
            "always a float",
            perplexity_always_float,
            "For a tensor you return a float. A tensor in, a tensor out: no `float(...)` or `.item()` around it.",
        ),
        Misconception(
            "rebuilt",
            perplexity_rebuilt,
            "The number is right, but `torch.tensor(...)` cuts the path back for the gradient. Return `loss.exp()` "
            "itself.",
        ),
        Misconception(
            "whole numbers",
            perplexity_whole,
            "You round to whole numbers. Perplexity is an average and may lie in between.",
        ),
    ),
)


# 7.3 ------------------------------------------------------------------------------------------------


def refuse_none(count: int) -> None:
    if count == 0:
        raise ValueError("no batch")


@torch.no_grad()
def estimate_mean_of_means(model, batches):
    with evaluating(model):
        found = [model(x, y)[1].item() for x, y in batches]
    refuse_none(len(found))
    return sum(found) / len(found)


@torch.no_grad()
def estimate_by_rows(model, batches):
    with evaluating(model):
        found = [(model(x, y)[1].item(), len(x)) for x, y in batches]
    refuse_none(len(found))
    return sum(loss * rows for loss, rows in found) / sum(rows for _, rows in found)


@torch.no_grad()
def estimate_summed(model, batches):
    with evaluating(model):
        found = [model(x, y)[1].item() * y.numel() for x, y in batches]
    refuse_none(len(found))
    return sum(found)


@torch.no_grad()
def estimate_sum_of_means(model, batches):
    with evaluating(model):
        found = [model(x, y)[1].item() for x, y in batches]
    refuse_none(len(found))
    return sum(found)


@torch.no_grad()
def estimate_first_batch(model, batches):
    return estimate_loss(model, [batch for batch, _ in zip(batches, range(1), strict=False)])


@torch.no_grad()
def estimate_last_batch(model, batches):
    return estimate_loss(model, list(batches)[-1:])


def weighted_mean(model: nn.Module, batches: Iterable) -> float:
    """What is asked for, without a thought for modes and gradients."""
    total, count = 0.0, 0
    for x, y in batches:
        total += model(x, y)[1].item() * y.numel()
        count += y.numel()
    refuse_none(count)
    return total / count


@torch.no_grad()
def estimate_without_eval(model, batches):
    return weighted_mean(model, batches)


@torch.no_grad()
def estimate_top_module_only(model, batches):
    was_training, model.training = model.training, False
    try:
        return weighted_mean(model, batches)
    finally:
        model.training = was_training


def estimate_with_gradients(model, batches):
    with evaluating(model):
        return weighted_mean(model, batches)


@torch.no_grad()
def estimate_left_in_eval(model, batches):
    model.eval()
    return weighted_mean(model, batches)


@torch.no_grad()
def estimate_left_in_train(model, batches):
    model.eval()
    try:
        return weighted_mean(model, batches)
    finally:
        model.train()


@torch.no_grad()
def estimate_one_mode_for_all(model, batches):
    was_training = model.training
    model.eval()
    try:
        return weighted_mean(model, batches)
    finally:
        model.train(was_training)


@torch.no_grad()
def estimate_not_after_errors(model, batches):
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    result = weighted_mean(model, batches)
    for module, mode in modes:
        module.training = mode
    return result


@torch.no_grad()
def estimate_refuses_too_late(model, batches):
    """Restores after errors of the model and the data, but not after its own."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    batches, size = iter(batches), 0
    total = 0.0
    try:
        for x, y in batches:
            total += model(x, y)[1].item() * y.numel()
            size += y.numel()
    except Exception:
        for module, mode in modes:
            module.training = mode
        raise
    refuse_none(size)
    for module, mode in modes:
        module.training = mode
    return total / size


def estimate_gradients_left_off(model, batches):
    torch.set_grad_enabled(False)
    return estimate_loss(model, batches)


@torch.no_grad()
def estimate_needs_a_length(model, batches):
    if len(batches) == 0:
        raise ValueError("no batch")
    return estimate_loss(model, batches)


@torch.no_grad()
def estimate_goes_through_twice(model, batches):
    with evaluating(model):
        count = sum(y.numel() for _, y in batches)
        refuse_none(count)
        return sum(model(x, y)[1].item() * y.numel() for x, y in batches) / count


@torch.no_grad()
def estimate_as_tensor(model, batches):
    return torch.tensor(estimate_loss(model, batches))


@torch.no_grad()
def estimate_from_logits(model, batches):
    total, count = 0.0, 0
    with evaluating(model):
        for x, y in batches:
            total += cross_entropy(model(x, y)[0], y).item() * y.numel()
            count += y.numel()
    refuse_none(count)
    return total / count


@torch.no_grad()
def estimate_division_by_zero(model, batches):
    total, count = 0.0, 0
    with evaluating(model):
        for x, y in batches:
            total += model(x, y)[1].item() * y.numel()
            count += y.numel()
        return total / count


def estimate_zero_for_nothing(model, batches):
    batches = list(batches)
    return estimate_loss(model, batches) if batches else 0.0


def estimate_nan_for_nothing(model, batches):
    batches = list(batches)
    return estimate_loss(model, batches) if batches else math.nan


def judge_afterwards(got: Observation, expected: Observation, case: Case) -> str | None:
    """What is left behind, also after an error, which must come out."""
    outcome = got.get("outcome", got.get("raised"))
    if not isinstance(expected["outcome"], Raised):
        if fault := difference(outcome, expected["outcome"]):
            return fault
    elif not isinstance(outcome, Raised):
        return f"Where the model or the data raise an error it should come out of your function; got {show(outcome)}."
    elif outcome.is_stub:
        return f"Your code raised {show(outcome)}"
    if got.get("modes") != expected["modes"]:
        when = "after an error" if isinstance(expected["outcome"], Raised) else "afterwards"
        return f"Not every module is in the mode it was in before: {when}, the model's modes are different."
    rest = {name: value for name, value in expected.items() if name not in ("outcome", "modes")}
    return facts(LEFT_BEHIND)(got, rest, case)


LEFT_BEHIND = {
    "gradients_on_again": "After the estimate PyTorch tracks no gradients any more, so training could not go on. Use "
    "`with torch.no_grad():` or the decorator `@torch.no_grad()`, which switch back by themselves.",
    "model_as_before": "Your estimate changes the model's parameters or leaves gradients in them. It should only look.",
}
INSIDE = {
    "called": "Your function never calls the model it is given.",
    "in_training_mode": "The model, or a module in it, was still in training mode when you called it: dropout would "
    "disturb the estimate.",
    "without_gradient": "The model was called with gradients being tracked: that takes memory for nothing.",
}


EXERCISE_7_3 = Exercise(
    id="7.3",
    title="An honest estimate",
    reference=estimate_loss,
    parts=(
        Part(
            "values",
            "The mean of the model's losses",
            1,
            "The model returns its loss as the second value. Collect the losses of all batches and return the mean, "
            "a float.",
            judge=judge_number,
        ),
        Part(
            "weighted",
            "Batches of any size, in any iterable",
            1,
            "A batch's loss is the mean over its tokens: multiply it by `y.numel()`, add up, divide by all tokens. "
            "Go through the batches once.",
            judge=judge_number,
            needs=("values",),
        ),
        Part(
            "inside",
            "Eval mode and no gradient while the model is called",
            1,
            "`model.eval()` for the mode, `torch.no_grad()` for the gradient: two different things.",
            judge=facts(INSIDE),
            needs=("values",),
        ),
        Part(
            "restored_after_error",
            "Afterwards every module is in its own mode again, also after an error",
            1,
            "Remember `module.training` of every module in `model.modules()`, and put it back in a `finally`.",
            judge=judge_afterwards,
            needs=("values", "inside"),
        ),
        Part(
            "error",
            "No batch is refused",
            1,
            "Raise a ValueError when there was no batch: a mean over nothing has no value.",
            judge=judge_error,
            needs=("values",),
        ),
    ),
    probes=PROBES["7.3"],
    misconceptions=(
        Misconception(
            "mean of means",
            estimate_mean_of_means,
            "You give every batch the same weight, so the tokens of a small last batch count more than the others. "
            "Weight each loss by its number of tokens, `y.numel()`.",
        ),
        Misconception(
            "weighted by rows",
            estimate_by_rows,
            "You weight by rows. Rows may differ in length between batches; a loss is a mean over tokens, so weight "
            "by `y.numel()`.",
        ),
        Misconception(
            "no eval mode",
            estimate_without_eval,
            "You leave the model in training mode, so dropout disturbs the estimate. `torch.no_grad()` does not "
            "change that: call `model.eval()` as well.",
        ),
        Misconception(
            "top module only",
            estimate_top_module_only,
            "You set `training` on the model alone; the dropout layers inside have a flag of their own. "
            "`model.eval()` reaches all of them.",
        ),
        Misconception(
            "gradients",
            estimate_with_gradients,
            "`model.eval()` does not switch gradients off; it only changes how dropout and the like behave. Add "
            "`with torch.no_grad():`.",
        ),
        Misconception(
            "left in eval mode",
            estimate_left_in_eval,
            "Afterwards the model stays in eval mode, and training goes on without dropout. Put the modes back.",
        ),
        Misconception(
            "left in training mode",
            estimate_left_in_train,
            "Afterwards the model is in training mode, whatever it was before. Remember the modes first, then put "
            "them back.",
        ),
        Misconception(
            "one mode for all",
            estimate_one_mode_for_all,
            "You put one mode back onto all modules, but one of them had been frozen in eval mode. Remember each "
            "module's own `training`.",
        ),
        Misconception(
            "not after errors",
            estimate_not_after_errors,
            "After an error the model stays in eval mode, because the lines that put it back are never reached. Put "
            "them into a `finally`.",
        ),
        Misconception(
            "refuses too late",
            estimate_refuses_too_late,
            "When there is no batch, your own error leaves the model in eval mode. Put the modes back before you "
            "raise, or better in a `finally`.",
        ),
        Misconception(
            "gradients left off",
            estimate_gradients_left_off,
            "You switch gradients off and never on again, so training could not go on. `with torch.no_grad():` "
            "switches back by itself.",
        ),
        Misconception(
            "needs a length",
            estimate_needs_a_length,
            "Your function asks for the number of batches, but a generator has no `len`. Count while you go through "
            "them.",
        ),
        Misconception(
            "goes through twice",
            estimate_goes_through_twice,
            "You go through the batches twice, and the second time a generator is empty. Do everything in one pass.",
        ),
        Misconception(
            "first batch only",
            estimate_first_batch,
            "Only the first batch counts: a `return` inside the loop, or a loop that ends too early. Go through all "
            "of them.",
        ),
        Misconception(
            "last batch only",
            estimate_last_batch,
            "Only the last batch counts: each one overwrites what was there before. Add up.",
        ),
        Misconception(
            "sum over tokens",
            estimate_summed,
            "You add up the loss of all tokens. Divide by their number: the estimate is a mean.",
        ),
        Misconception(
            "sum of means",
            estimate_sum_of_means,
            "You add up the losses of the batches and never divide, so more data would mean more loss.",
        ),
        Misconception(
            "from the logits",
            estimate_from_logits,
            "You compute a loss from the logits yourself. Use the one the model returns, its second value: it knows "
            "best what it is trained for.",
        ),
        Misconception(
            "tensor",
            estimate_as_tensor,
            "You return a tensor. A plain float is asked for: `.item()`.",
        ),
        Misconception(
            "division by zero",
            estimate_division_by_zero,
            "Without a batch your function ends in a ZeroDivisionError. Say what is wrong instead: raise a ValueError.",
        ),
        Misconception(
            "zero for nothing",
            estimate_zero_for_nothing,
            "Without a batch you return 0, the best loss there is. Raise a ValueError instead.",
        ),
        Misconception(
            "nan for nothing",
            estimate_nan_for_nothing,
            "Without a batch you return NaN, which turns up much later and far away. Raise a ValueError instead.",
        ),
    ),
)


# 7.4 ------------------------------------------------------------------------------------------------


def half_cosine(max_lr: float, min_lr: float, progress: float) -> float:
    return min_lr + 0.5 * (max_lr - min_lr) * (1 + math.cos(math.pi * progress))


def otherwise(
    warm: Callable = lambda step, max_lr, min_lr, warmup_steps: max_lr * step / warmup_steps,
    decayed: Callable = half_cosine,
    progress: Callable = lambda step, warmup_steps, max_steps: (step - warmup_steps) / (max_steps - warmup_steps),
    stays: Callable | None = lambda max_lr, min_lr: min_lr,
) -> Callable[[int, float, float, int, int], float]:
    """The reference with one piece exchanged."""

    def rate(step, max_lr, min_lr, warmup_steps, max_steps):
        if step < warmup_steps:
            return warm(step, max_lr, min_lr, warmup_steps)
        if step > max_steps and stays:
            return stays(max_lr, min_lr)
        return decayed(max_lr, min_lr, progress(step, warmup_steps, max_steps))

    return rate


def rate_without_warm_up(step, max_lr, min_lr, warmup_steps, max_steps):
    return learning_rate(step, max_lr, min_lr, 0, max_steps)


def rate_without_decay(step, max_lr, min_lr, warmup_steps, max_steps):
    return max_lr * min(1.0, step / warmup_steps) if warmup_steps else max_lr


def rate_divides_by_zero(step, max_lr, min_lr, warmup_steps, max_steps):
    warmed = min(1.0, step / warmup_steps)
    return warmed * max_lr if warmed < 1 else learning_rate(step, max_lr, min_lr, warmup_steps, max_steps)


def judge_rates(got: Observation, expected: Observation, case: Case) -> str | None:
    """Every rate, compared in proportion to the largest one: learning rates may be tiny."""
    rates = got.get("rates", got.get("raised"))
    if not isinstance(rates, list):
        return f"Your code raised {show(rates)}" if isinstance(rates, Raised) else "There are no rates to look at."
    for step, rate, wanted in zip(case["steps"], rates, expected["rates"], strict=True):
        where = f"At step {step} (warm-up {case['warmup_steps']}, {case['max_steps']} steps in all)"
        if isinstance(rate, Raised):
            return f"{where} your code raised {show(rate)}"
        if not isinstance(rate, float):
            return f"{where} a number is expected, got {show(rate)}." + (" Is a `return` missing?" if not rate else "")
        if not abs(rate - wanted) <= RATE_TOLERANCE * case["max_lr"]:
            between = f"with rates between {case['min_lr']:.4g} and {case['max_lr']:.4g}"
            return f"{where}, {between}, got {rate:.4g}, expected {wanted:.4g}."
    return judge_observation(got, {name: value for name, value in expected.items() if name != "rates"}, case)


EXERCISE_7_4 = Exercise(
    id="7.4",
    title="Warm-up and cosine",
    reference=learning_rate,
    parts=(
        Part(
            "warm_up",
            "A straight line from 0 during warm-up",
            1,
            "While step < warmup_steps: `max_lr * step / warmup_steps`.",
            judge=judge_rates,
        ),
        Part(
            "values",
            "Half a cosine from max_lr to min_lr",
            1,
            "The progress (step - warmup_steps) / (max_steps - warmup_steps) runs from 0 to 1; then "
            "min_lr + (max_lr - min_lr) · (1 + cos(π · progress)) / 2.",
            judge=judge_rates,
        ),
        Part(
            "afterwards",
            "min_lr after the last step",
            1,
            "Past max_steps the cosine would rise again: return `min_lr`.",
            judge=judge_rates,
            needs=("values",),
        ),
        Part(
            "any_input",
            "No warm-up, one step of decay, tiny rates",
            1,
            "The earlier rates are right, so look at what is special here: warm-up 0 or 1, min_lr 0, tiny rates.",
            judge=judge_rates,
            needs=("warm_up", "values"),
        ),
    ),
    probes=PROBES["7.4"],
    misconceptions=(
        Misconception(
            "one step ahead",
            otherwise(warm=lambda step, max_lr, min_lr, warmup_steps: max_lr * (step + 1) / warmup_steps),
            "Your warm-up is one step ahead: it uses step + 1. Here step 0 has rate 0, and max_lr is reached at "
            "warmup_steps.",
        ),
        Misconception(
            "from min_lr",
            otherwise(warm=lambda step, max_lr, min_lr, warmup_steps: min_lr + (max_lr - min_lr) * step / warmup_steps),
            "Your warm-up starts at min_lr. It starts at 0; min_lr is where the cosine ends.",
        ),
        Misconception(
            "no warm-up",
            rate_without_warm_up,
            "Your cosine starts at step 0, without a warm-up. For step < warmup_steps the rate rises in a straight "
            "line.",
        ),
        Misconception(
            "no decay",
            rate_without_decay,
            "After the warm-up your rate stays at max_lr. It should fall along half a cosine to min_lr.",
        ),
        Misconception(
            "warm-up not subtracted",
            otherwise(progress=lambda step, warmup_steps, max_steps: step / max_steps),
            "Your cosine counts from step 0, so the rate jumps where the warm-up ends. Subtract warmup_steps from "
            "the step and from max_steps.",
        ),
        Misconception(
            "ends too late",
            otherwise(progress=lambda step, warmup_steps, max_steps: (step - warmup_steps) / max_steps),
            "You divide by max_steps, so min_lr is not reached there. The decay lasts max_steps - warmup_steps.",
        ),
        Misconception(
            "ends at zero",
            otherwise(decayed=lambda max_lr, min_lr, progress: half_cosine(max_lr, 0.0, progress)),
            "Your cosine ends at 0. It runs between max_lr and min_lr: scale it by (max_lr - min_lr) and add min_lr.",
        ),
        Misconception(
            "starts too high",
            otherwise(decayed=lambda max_lr, min_lr, progress: min_lr + half_cosine(max_lr, 0.0, progress)),
            "Your cosine starts at max_lr + min_lr. What is scaled by the cosine is the difference, max_lr - min_lr.",
        ),
        Misconception(
            "no half",
            otherwise(
                decayed=lambda max_lr, min_lr, progress: min_lr + (max_lr - min_lr) * (1 + math.cos(math.pi * progress))
            ),
            "The half is missing: 1 + cos runs from 2 to 0, so your rate starts twice as far up.",
        ),
        Misconception(
            "linear",
            otherwise(decayed=lambda max_lr, min_lr, progress: max_lr - (max_lr - min_lr) * progress),
            "Your rate falls in a straight line. Asked for is half a cosine, which starts and ends gently.",
        ),
        Misconception(
            "quarter",
            otherwise(
                decayed=lambda max_lr, min_lr, progress: min_lr + (max_lr - min_lr) * math.cos(math.pi / 2 * progress)
            ),
            "You use a quarter of the cosine, which ends in a steep fall. Half of it runs from cos 0 to cos π: "
            "(1 + cos(π · progress)) / 2.",
        ),
        Misconception(
            "whole",
            otherwise(
                decayed=lambda max_lr, min_lr, progress: half_cosine(max_lr, min_lr, 2 * progress),
            ),
            "You go through the whole cosine, so in the end the rate is back at max_lr. Half is enough: π, not 2π.",
        ),
        Misconception(
            "degrees",
            otherwise(
                decayed=lambda max_lr, min_lr, progress: (
                    min_lr + 0.5 * (max_lr - min_lr) * (1 + math.cos(180 * progress))
                )
            ),
            "You measure the angle in degrees. `math.cos` wants radians: half a turn is `math.pi`.",
        ),
        Misconception(
            "sine",
            otherwise(
                decayed=lambda max_lr, min_lr, progress: (
                    min_lr + 0.5 * (max_lr - min_lr) * (1 + math.sin(math.pi * progress))
                )
            ),
            "You use the sine. It starts in the middle and rises; the cosine starts at the top.",
        ),
        Misconception(
            "upside down",
            otherwise(
                decayed=lambda max_lr, min_lr, progress: (
                    min_lr + 0.5 * (max_lr - min_lr) * (1 - math.cos(math.pi * progress))
                )
            ),
            "Your rate rises from min_lr to max_lr after the warm-up. The sign of the cosine is turned around.",
        ),
        Misconception(
            "rises again",
            otherwise(stays=None),
            "After max_steps your rate rises again, because the cosine does. Return `min_lr` from there on.",
        ),
        Misconception(
            "zero afterwards",
            otherwise(stays=lambda max_lr, min_lr: 0.0),
            "After max_steps your rate is 0 and nothing is learned any more. It stays at min_lr.",
        ),
        Misconception(
            "whole division",
            otherwise(warm=lambda step, max_lr, min_lr, warmup_steps: max_lr * (step // warmup_steps)),
            "`//` cuts off the fraction, so your warm-up is 0 all along. Divide with `/`.",
        ),
        Misconception(
            "divides by zero",
            rate_divides_by_zero,
            "Without a warm-up you divide by zero. Compute the share only where step < warmup_steps.",
        ),
    ),
)


# 7.5 ------------------------------------------------------------------------------------------------


def grouped(model: nn.Module, weight_decay: float, decays: Callable[[str, nn.Parameter], bool]) -> list[dict]:
    """Two groups of the trainable parameters, each parameter once."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [p for name, p in named if decays(name, p)], "weight_decay": weight_decay},
        {"params": [p for name, p in named if not decays(name, p)], "weight_decay": 0.0},
    ]


def groups_by_bias(model, weight_decay):
    return grouped(model, weight_decay, lambda name, p: not name.endswith("bias"))


def groups_by_name(model, weight_decay):
    return grouped(model, weight_decay, lambda name, p: not any(part in name for part in ("bias", "norm", "shift")))


def groups_linear_only(model, weight_decay):
    linear = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    return grouped(model, weight_decay, lambda name, p: id(p) in linear)


def groups_two_dimensions_only(model, weight_decay):
    return grouped(model, weight_decay, lambda name, p: p.dim() == 2)


def groups_all_decay(model, weight_decay):
    return grouped(model, weight_decay, lambda name, p: True)


def groups_none_decays(model, weight_decay):
    return grouped(model, weight_decay, lambda name, p: False)


def groups_swapped(model, weight_decay):
    return grouped(model, weight_decay, lambda name, p: p.dim() < 2)


def groups_by_size(model, weight_decay):
    return grouped(model, weight_decay, lambda name, p: p.numel() > 9)


def groups_with_frozen(model, weight_decay):
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]


def groups_tied_twice(model, weight_decay):
    parameters = [p for m in model.modules() for p in m.parameters(recurse=False) if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]


def groups_named_pairs(model, weight_decay):
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [pair for pair in named if pair[1].dim() >= 2], "weight_decay": weight_decay},
        {"params": [pair for pair in named if pair[1].dim() < 2], "weight_decay": 0.0},
    ]


def groups_without_zero(model, weight_decay):
    decayed, others = parameter_groups(model, weight_decay)
    return [decayed, {"params": others["params"]}]


def groups_as_lists(model, weight_decay):
    return [group["params"] for group in parameter_groups(model, weight_decay)]


def groups_of_one(model, weight_decay):
    return [
        {"params": [p], "weight_decay": weight_decay if p.dim() >= 2 else 0.0}
        for p in model.parameters()
        if p.requires_grad
    ]


def groups_fixed_decay(model, weight_decay):
    return parameter_groups(model, 0.1)


def groups_of_copies(model, weight_decay):
    return [
        group | {"params": [nn.Parameter(p.detach().clone()) for p in group["params"]]}
        for group in parameter_groups(model, weight_decay)
    ]


def groups_as_optimizer(model, weight_decay):
    return torch.optim.AdamW(parameter_groups(model, weight_decay))


def judge_groups(got: Observation, expected: Observation, case: Case) -> str | None:
    """Every parameter in the group it belongs to; the order of groups and parameters is free."""
    if isinstance(got.get("raised"), Raised):
        return f"Your code raised {show(got['raised'])}"
    groups = got.get("groups")
    if not isinstance(groups, list):
        return f"Expected two dicts, got {show(groups)}."
    if len(groups) != 2:
        return f"Expected two dicts, got {len(groups)} {'value' if len(groups) == 1 else 'values'}."
    if not all(isinstance(group, list) and isinstance(group[1], list) for group in groups if group) or not all(groups):
        return 'Each group should be a dict, {"params": [...], "weight_decay": ...}.'
    found: dict[Any, list[Any]] = {}
    for decay, members in groups:
        for member in members:
            if not isinstance(member, str):
                kind = member.type_name
                return (
                    f"A group holds a {kind} that is not one of the model's parameters. Give the parameters themselves."
                )
            found.setdefault(member, []).append(decay)
    if "missing" in [decay for decay, _ in groups]:
        return 'A group has no "weight_decay", so AdamW\'s default, 0.01, would apply to it.'
    for decay, members in expected["groups"]:
        for name in members:
            if name not in found:
                return f"`{name}` is missing: nobody would train it."
            if len(found[name]) > 1:
                return f"`{name}` stands in your groups more than once."
            if not isinstance(found[name][0], float) or abs(found[name][0] - decay) > 1e-6 * decay:
                return f"`{name}` should have weight decay {decay:.4g}, yours has {show(found.pop(name)[0])}."
            found.pop(name)
    if found:
        return f"`{min(found)}` is frozen (`requires_grad` is False). Leave it out."
    return facts(GROUPS)(got, {name: value for name, value in expected.items() if name != "groups"}, case)


GROUPS = {"model_as_before": "Your function changes the model. It should only sort its parameters."}


EXERCISE_7_5 = Exercise(
    id="7.5",
    title="What decays and what does not",
    reference=parameter_groups,
    parts=(
        Part(
            "values",
            "Matrices and embeddings decay; biases and norms don't",
            2,
            'Two dicts, {"params": [...], "weight_decay": ...}; `p.dim() >= 2` decides.',
            judge=judge_groups,
        ),
        Part(
            "any_input",
            "Dimensions decide, not names",
            1,
            "A parameter may be called anything and belong to any module. Look at `p.dim()` alone.",
            judge=judge_groups,
            needs=("values",),
        ),
        Part(
            "once",
            "Tied parameters once, frozen ones not at all",
            1,
            "`model.parameters()` gives each parameter once; `p.requires_grad` tells whether it is trained.",
            judge=judge_groups,
            needs=("values",),
        ),
    ),
    probes=PROBES["7.5"],
    misconceptions=(
        Misconception(
            "by the name bias",
            groups_by_bias,
            "You sort by the name `bias`, so the scales of the norms decay as well. Decide by `p.dim()`: whatever "
            "has two dimensions or more decays.",
        ),
        Misconception(
            "by names",
            groups_by_name,
            "You sort by names, which works until somebody chooses other ones. Decide by `p.dim()`.",
        ),
        Misconception(
            "linear layers only",
            groups_linear_only,
            "Only the weights of linear layers decay in your groups. Embeddings and convolutions are matrices too: "
            "decide by `p.dim() >= 2`.",
        ),
        Misconception(
            "exactly two dimensions",
            groups_two_dimensions_only,
            "You ask for exactly two dimensions. A convolution's weight has three and decays as well: `p.dim() >= 2`.",
        ),
        Misconception(
            "all decay",
            groups_all_decay,
            "Everything decays. Biases and the scales of norms should not be pulled towards 0: they go into the "
            "other group.",
        ),
        Misconception(
            "none decays",
            groups_none_decays,
            "Nothing decays. Parameters with two dimensions or more belong into the group with `weight_decay`.",
        ),
        Misconception(
            "swapped",
            groups_swapped,
            "The two groups are swapped: your vectors decay and your matrices don't.",
        ),
        Misconception(
            "by size",
            groups_by_size,
            "You sort by the number of entries. It is the number of dimensions that tells a matrix from a vector: "
            "`p.dim()`.",
        ),
        Misconception(
            "frozen ones too",
            groups_with_frozen,
            "Frozen parameters are in your groups. Leave out what has `requires_grad` False.",
        ),
        Misconception(
            "tied ones twice",
            groups_tied_twice,
            "A tied parameter turns up once per module that uses it, and AdamW would update it twice. "
            "`model.parameters()` gives each one once.",
        ),
        Misconception(
            "named pairs",
            groups_named_pairs,
            "Your groups hold pairs of name and parameter. Put in the parameters alone.",
        ),
        Misconception(
            "no zero",
            groups_without_zero,
            "Your second group has no `weight_decay`, and AdamW fills in its own default, 0.01. Write the 0 down.",
        ),
        Misconception(
            "lists",
            groups_as_lists,
            "You return lists of parameters. AdamW wants dicts: `params` and `weight_decay`.",
        ),
        Misconception(
            "a group each",
            groups_of_one,
            "You make a group for every parameter. Two groups are enough: one decays, the other does not.",
        ),
        Misconception(
            "fixed decay",
            groups_fixed_decay,
            "Your decay is a number you wrote down. Use the argument `weight_decay`.",
        ),
        Misconception(
            "copies",
            groups_of_copies,
            "Your groups hold copies, so the optimizer would train those and the model would stay as it is. Give the "
            "model's own parameters.",
        ),
        Misconception(
            "an optimizer",
            groups_as_optimizer,
            "You return an optimizer. Return the two dicts; whoever calls you makes the optimizer.",
        ),
    ),
)


# 7.6 ------------------------------------------------------------------------------------------------


def sampling(
    scaled: Callable = lambda logits, temperature: logits / temperature,
    cut: Callable = lambda scores, k: scores.masked_fill(~largest_of(scores, k), -math.inf),
    probabilities: Callable = lambda scores: torch.softmax(scores, dim=-1),
    drawn: Callable = lambda probs, generator: torch.multinomial(probs, num_samples=1, generator=generator),
    coldest: Callable = lambda logits: logits.argmax(dim=-1, keepdim=True),
) -> Callable[[Tensor, float, int | None, torch.Generator], Tensor]:
    """The reference with one piece exchanged."""

    def sample(logits, temperature, top_k, generator):
        if temperature < 0:
            raise ValueError(f"temperature is {temperature}")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k is {top_k}")
        if temperature == 0:
            return coldest(logits)
        scores = scaled(logits, temperature)
        if top_k is not None:
            scores = cut(scores, min(top_k, scores.shape[-1]))
        return drawn(probabilities(scores), generator)

    return sample


def largest_of(scores: Tensor, k: int) -> Tensor:
    """True for k scores in each row, as large as any; exactly k, ties or not."""
    return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, scores.topk(k, dim=-1).indices, True)


def cut_with_ties(scores: Tensor, k: int) -> Tensor:
    return scores.masked_fill(scores < scores.topk(k, dim=-1).values[:, -1:], -math.inf)


def cut_the_smallest(scores: Tensor, k: int) -> Tensor:
    return -sampling_cut(-scores, k).masked_fill(~largest_of(-scores, k), math.inf)


def sampling_cut(scores: Tensor, k: int) -> Tensor:
    return scores.masked_fill(~largest_of(scores, k), -math.inf)


def cut_one_more(scores: Tensor, k: int) -> Tensor:
    return sampling_cut(scores, min(k + 1, scores.shape[-1]))


def cut_one_less(scores: Tensor, k: int) -> Tensor:
    return sampling_cut(scores, max(k - 1, 1))


def cut_to_zero(scores: Tensor, k: int) -> Tensor:
    return scores.masked_fill(~largest_of(scores, k), 0.0)


def cut_over_the_batch(scores: Tensor, k: int) -> Tensor:
    return scores.masked_fill(scores < scores.flatten().topk(k).values[-1], -math.inf)


def cut_as_the_first_row(scores: Tensor, k: int) -> Tensor:
    return scores.masked_fill(~largest_of(scores[:1], k), -math.inf)


def cut_too_large_k(logits, temperature, top_k, generator):
    if top_k is not None and top_k > logits.shape[-1]:
        logits.topk(top_k)
    return sample_next(logits, temperature, top_k, generator)


def ids_within_the_cut(logits, temperature, top_k, generator):
    if top_k is None or top_k < 1 or temperature <= 0:
        return sample_next(logits, temperature, top_k, generator)
    scores = logits.topk(min(top_k, logits.shape[-1]), dim=-1).values / temperature
    return torch.multinomial(torch.softmax(scores, dim=-1), num_samples=1, generator=generator)


def no_cut_at_all(logits, temperature, top_k, generator):
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is {top_k}")
    return sample_next(logits, temperature, None, generator)


def temperature_after_softmax(logits, temperature, top_k, generator):
    if temperature <= 0:
        return sample_next(logits, temperature, top_k, generator)
    return sample_next(torch.softmax(logits, dim=-1) / temperature, 1.0, top_k, generator)


def as_probabilities_divided(logits, temperature, top_k, generator):
    """The temperature divides the probabilities, which changes nothing: they are weights."""
    return sample_next(logits, 1.0 if temperature > 0 else temperature, top_k, generator)


def no_temperature_zero(logits, temperature, top_k, generator):
    if temperature == 0:
        return torch.multinomial(torch.softmax(logits / temperature, dim=-1), num_samples=1, generator=generator)
    return sample_next(logits, temperature, top_k, generator)


def nearly_zero(logits, temperature, top_k, generator):
    return sample_next(logits, temperature or 1.0, top_k, generator)


def ids_as_vector(logits, temperature, top_k, generator):
    return sample_next(logits, temperature, top_k, generator).squeeze(-1)


def first_row_for_all(logits, temperature, top_k, generator):
    return sample_next(logits[:1], temperature, top_k, generator).expand(len(logits), 1)


def global_state(logits, temperature, top_k, generator):
    return sample_next(logits, temperature, top_k, None)


def reseeded(logits, temperature, top_k, generator):
    return sample_next(logits, temperature, top_k, torch.Generator().manual_seed(generator.initial_seed()))


def changes_its_scores(logits, temperature, top_k, generator):
    result = sample_next(logits, temperature, top_k, generator)
    if temperature > 0:
        logits /= temperature
    return result


def no_refusal(logits, temperature, top_k, generator):
    k = top_k if top_k is None else max(top_k, 1)
    return sample_next(logits, abs(temperature), k, generator)


def zero_means_no_cut(logits, temperature, top_k, generator):
    return sample_next(logits, temperature, top_k or None, generator)


def nameless_refusal(logits, temperature, top_k, generator):
    if temperature < 0 or (top_k is not None and top_k < 1):
        raise ValueError("temperature or top_k out of range")
    return sample_next(logits, temperature, top_k, generator)


def judge_next(got: Observation, expected: Observation, case: Case) -> str | None:
    """Ids of tokens that may be drawn, from one ``multinomial`` over the right probabilities.

    Weights may be over the whole vocabulary or over the kept tokens in any order, and need not add to one. One
    call for the whole batch or one per row: each row has one draw.
    """
    ids = got.get("result", got.get("raised"))
    if not isinstance(ids, Tensor):
        return difference(ids, expected["result"])
    if "draws" not in got:
        return "It could not be seen how the ids were drawn."
    logits = case["logits"].double()
    batch_size, vocab_size = logits.shape
    if ids.shape != (batch_size, 1) or ids.dtype != torch.int64:
        return (
            f"The result should hold int64 ids of shape {(batch_size, 1)}, one per row; got {ids.dtype} of shape "
            f"{tuple(ids.shape)}."
        )
    if int(ids.min()) < 0 or int(ids.max()) >= vocab_size:
        return f"Some ids are outside the vocabulary of {vocab_size} tokens."
    if case["temperature"] == 0:
        likeliest = logits.gather(-1, ids) == logits.amax(dim=-1, keepdim=True)
        return None if bool(likeliest.all()) else "At temperature 0 the likeliest token should be taken, always."
    scores = logits / case["temperature"]
    k = vocab_size if case["top_k"] is None else min(case["top_k"], vocab_size)
    kept = scores.topk(k).values  # (B, k), largest first
    log_total = kept.logsumexp(dim=-1, keepdim=True)
    if bool((scores.gather(-1, ids) < kept[:, -1:]).any()):
        return f"A token was drawn that is not among the {k} likeliest of its row."
    if k == 1:
        return None  # there is nothing to draw
    wanted = torch.zeros(batch_size, vocab_size, dtype=torch.float64)
    wanted[:, :k] = (kept - log_total).exp()
    own = (scores.gather(-1, ids) - log_total).exp()  # (B, 1), what each id should have been drawn with
    if fault := problem_with_draws(got.get("draws"), wanted, own, k):
        return fault
    if batch_size == MANY_ROWS and case["top_k"] in (None, k):
        return problem_with_counts(ids, (scores - log_total).exp() * (scores >= kept[:, -1:]))
    return None


def problem_with_draws(draws: Any, wanted: Tensor, own: Tensor, k: int) -> str | None:
    """What is wrong with the calls of ``multinomial``.

    Args:
        wanted: (B, V) the probabilities of each row, largest first.
        own: (B, 1) the probability of the id that came out.
        k: how many tokens may be drawn.
    """
    found, chosen = [], []
    for weights, drawn, has_generator in draws:
        if not has_generator:
            return "`multinomial` did not get the generator: pass `generator=generator`."
        probs = weights.double().reshape(-1, weights.shape[-1])
        probs = probs / probs.sum(dim=-1, keepdim=True)
        chosen.append(probs.gather(-1, drawn.reshape(len(probs), -1)[:, :1]))
        largest_first = torch.zeros(len(probs), max(wanted.shape[-1], probs.shape[-1]), dtype=torch.float64)
        largest_first[:, : probs.shape[-1]] = probs.sort(dim=-1, descending=True).values
        found.append(largest_first)
    if sum(map(len, found)) != len(wanted):
        return f"{len(wanted)} rows take one draw each by `multinomial`; yours made {sum(map(len, found))}."
    probs = torch.cat(found)
    if int((probs > 0).sum(dim=-1).max()) > k:
        return f"More than {k} tokens can still be drawn; exactly {k} should be kept in each row."
    if k > 1 and int((probs > 0).sum(dim=-1).max()) < int((wanted > 1e-30).sum(dim=-1).max()):
        return f"Fewer than {k} tokens can be drawn; exactly {k} should be kept in each row."
    if not torch.allclose(probs, wanted, rtol=1e-3, atol=1e-5):
        return "The probabilities you draw from are not the softmax of the kept scores divided by the temperature."
    if not torch.allclose(torch.cat(chosen), own, rtol=1e-3, atol=1e-5):
        return "The ids you return are not the tokens that were drawn: a place among the kept ones is not yet an id."
    return None


def problem_with_counts(ids: Tensor, probabilities: Tensor) -> str | None:
    """Whether each token came as often as it should, where all rows have the same probabilities (B, V)."""
    means = probabilities.sum(dim=0)
    counts = torch.bincount(ids.flatten(), minlength=len(means)).double()
    possible = means > 0
    chi_squared = float(((counts - means)[possible] ** 2 / means[possible]).sum())
    if chi_squared > chi_squared_limit(int(possible.sum())):
        return "Some tokens come up more often than they should; equal scores should be equally likely."
    return None


DRAWS = {
    "inputs_unchanged": "Your answer changes its scores. Compute new tensors instead of working in place.",
    "same_seed_gives_the_same_ids": "The same seed gives other ids. Draw from `generator` and from nothing else.",
    "the_next_draw_is_another": "A second call with the same generator gives the same ids: it starts over each time. "
    "Use it as it is.",
    "another_seed_gives_others": "Another seed gives the same ids. Draw from `generator`.",
}


EXERCISE_7_6 = Exercise(
    id="7.6",
    title="Temperature and top-k",
    reference=sample_next,
    parts=(
        Part(
            "values",
            "Draws from softmax(logits / temperature)",
            1,
            "Divide the logits by the temperature, softmax over the last dimension, one `torch.multinomial` with "
            "`num_samples=1` and `generator=generator`.",
            judge=judge_next,
        ),
        Part(
            "top_k",
            "Only the k likeliest tokens, exactly k",
            2,
            "`scores.topk(min(k, V))` gives values and ids: draw among the values, then look up the ids. Or set the "
            "others to -inf.",
            judge=judge_next,
        ),
        Part(
            "greedy",
            "Temperature 0 takes the likeliest token",
            1,
            "Dividing by 0 is no limit. Return the arg max, shape (B, 1), before you divide.",
            judge=judge_next,
        ),
        Part(
            "manners",
            "All randomness comes from `generator`, the scores stay untouched",
            1,
            "Pass `generator=generator` to `torch.multinomial`, and draw from nothing else.",
            judge=facts(DRAWS),
            needs=("values",),
        ),
        Part(
            "error",
            "A negative temperature and top_k below 1 are refused by value",
            1,
            "Raise a ValueError with the value in its message. `if top_k:` takes 0 for None; ask `is not None`.",
            judge=judge_error,
            needs=("values",),
        ),
    ),
    probes=PROBES["7.6"],
    misconceptions=(
        Misconception(
            "multiplies",
            sampling(scaled=lambda logits, temperature: logits * temperature),
            "You multiply by the temperature. Divide: a low temperature should make the differences larger.",
        ),
        Misconception(
            "after the softmax",
            temperature_after_softmax,
            "You apply the temperature to probabilities, after a softmax. Divide the logits, then take one softmax.",
        ),
        Misconception(
            "no effect",
            as_probabilities_divided,
            "The temperature has no effect. Dividing probabilities by a number and normalising again changes nothing; "
            "divide the logits, before the softmax.",
        ),
        Misconception(
            "always the likeliest",
            sampling(drawn=lambda probs, generator: probs.argmax(dim=-1, keepdim=True)),
            "You always take the likeliest token. That is temperature 0; for all others draw with `torch.multinomial`.",
        ),
        Misconception(
            "softmax over the batch",
            sampling(probabilities=lambda scores: torch.softmax(scores, dim=0).nan_to_num(0) + 1e-12),
            "Your softmax runs over the batch, so the rows compete with each other. Each row's probabilities add to "
            "one over the vocabulary: `dim=-1`.",
        ),
        Misconception(
            "plain exp",
            sampling(probabilities=lambda scores: scores.exp() / scores.exp().sum(dim=-1, keepdim=True)),
            "At a low temperature your `exp` overflows and inf / inf is NaN. Use `torch.softmax`, or subtract the "
            "largest score first.",
        ),
        Misconception(
            "no cut",
            no_cut_at_all,
            "`top_k` has no effect: every token can still be drawn.",
        ),
        Misconception(
            "ties kept",
            sampling(cut=cut_with_ties),
            "You keep every score that equals the k-th largest, which may be more than k tokens. Use the indices of "
            "`topk`, not a comparison with its last value.",
        ),
        Misconception(
            "one too many",
            sampling(cut=cut_one_more),
            "You keep one token too many. With `topk(k)` the last of the values still belongs to the kept ones.",
        ),
        Misconception(
            "one too few",
            sampling(cut=cut_one_less),
            "You keep one token too few. The k-th largest belongs to the kept ones: cut what is smaller, not what is "
            "equal.",
        ),
        Misconception(
            "the smallest",
            sampling(cut=cut_the_smallest),
            "You keep the k least likely tokens. `topk` gives the largest, a sort the smallest first.",
        ),
        Misconception(
            "cut to zero",
            sampling(cut=cut_to_zero),
            "You set the scores you cut to 0. Softmax gives 0 a share as well; only -inf becomes probability 0.",
        ),
        Misconception(
            "over the batch",
            sampling(cut=cut_over_the_batch),
            "You cut the batch as a whole. Each row keeps its own k likeliest tokens: `topk` over the last dimension.",
        ),
        Misconception(
            "as the first row",
            sampling(cut=cut_as_the_first_row),
            "All rows keep the tokens that are likeliest in the first row. Each row has its own.",
        ),
        Misconception(
            "places, not ids",
            ids_within_the_cut,
            "You return the place among the k kept tokens. Look up which token it is: `indices.gather(-1, place)`.",
        ),
        Misconception(
            "k above V",
            cut_too_large_k,
            "`topk` fails when k is larger than the vocabulary. Then nothing is cut: `min(top_k, logits.shape[-1])`.",
        ),
        Misconception(
            "divides by zero",
            no_temperature_zero,
            "At temperature 0 you divide by 0 and get inf or NaN. Treat it first: return the arg max.",
        ),
        Misconception(
            "zero is one",
            nearly_zero,
            "You take temperature 0 for a missing one and draw as usual. At 0 the likeliest token is taken, always.",
        ),
        Misconception(
            "no last dimension",
            sampling(
                drawn=lambda probs, generator: torch.multinomial(probs, 1, generator=generator),
                coldest=lambda logits: logits.argmax(dim=-1),
            ),
            "At temperature 0 your result has shape (B,). As a new column it should be (B, 1): "
            "`argmax(dim=-1, keepdim=True)`.",
        ),
        Misconception(
            "a vector",
            ids_as_vector,
            "Your ids have shape (B,). The result is a column, (B, 1), so that it can be appended to the text.",
        ),
        Misconception(
            "first row for all",
            first_row_for_all,
            "You draw for the first row and give its token to all rows. `torch.multinomial` draws for each row of a "
            "(B, V) tensor at once.",
        ),
        Misconception(
            "global random state",
            global_state,
            "`multinomial` draws from the global random state here. Pass `generator=generator`, so that the same "
            "seed gives the same text.",
        ),
        Misconception(
            "reseeded",
            reseeded,
            "Every call starts with a new generator, so it gives the same draws again and again. Use the one you are "
            "given: it remembers how far it has come.",
        ),
        Misconception(
            "works in place",
            changes_its_scores,
            "You change the logits you were given: `/=` works in place. Write `logits = logits / temperature`.",
        ),
        Misconception(
            "no refusal",
            no_refusal,
            "Senseless arguments are accepted silently. Raise a ValueError for a negative temperature and for top_k "
            "below 1.",
        ),
        Misconception(
            "zero means none",
            zero_means_no_cut,
            "`top_k=0` passes as if nothing should be cut, because 0 counts as False. Ask `top_k is not None`.",
        ),
        Misconception(
            "nameless error",
            nameless_refusal,
            "Your error does not say which value it met. Put it into the message.",
        ),
    ),
)


# 7.7 ------------------------------------------------------------------------------------------------


def save_parts(path, model, optimizer, step):
    content = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    torch.save(content, path)


def load_parts(path, model, optimizer):
    saved = torch.load(path, weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    return saved["step"]


def load_model_only(path, model, optimizer):
    saved = torch.load(path, weights_only=True)
    model.load_state_dict(saved["model"])
    return saved["step"]


def load_optimizer_only(path, model, optimizer):
    saved = torch.load(path, weights_only=True)
    optimizer.load_state_dict(saved["optimizer"])
    return saved["step"]


def load_without_return(path, model, optimizer):
    load_parts(path, model, optimizer)


def load_everything_returned(path, model, optimizer):
    load_parts(path, model, optimizer)
    return torch.load(path, weights_only=True)


def load_next_step(path, model, optimizer):
    return load_parts(path, model, optimizer) + 1


def load_step_zero(path, model, optimizer):
    load_parts(path, model, optimizer)
    return 0


def load_into_copies(path, model, optimizer):
    return load_parts(path, *copy.deepcopy((model, optimizer)))


def load_assigned(path, model, optimizer):
    saved = torch.load(path, weights_only=True)
    model.load_state_dict(saved["model"], assign=True)
    optimizer.load_state_dict(saved["optimizer"])
    return saved["step"]


def load_and_eval(path, model, optimizer):
    step = load_parts(path, model, optimizer)
    model.eval()
    return step


def load_keeping_the_rate(path, model, optimizer):
    rates = [group["lr"] for group in optimizer.param_groups]
    step = load_parts(path, model, optimizer)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    return step


def load_rates_only(path, model, optimizer):
    saved = torch.load(path, weights_only=True)
    model.load_state_dict(saved["model"])
    for group, kept in zip(optimizer.param_groups, saved["optimizer"]["param_groups"], strict=True):
        group["lr"] = kept["lr"]
    return saved["step"]


def save_modules(path, model, optimizer, step):
    torch.save({"model": model, "optimizer": optimizer, "step": step}, path)


def load_modules(path, model, optimizer):
    saved = torch.load(path, weights_only=False)
    model.load_state_dict(saved["model"].state_dict())
    optimizer.load_state_dict(saved["optimizer"].state_dict())
    return saved["step"]


def save_parameters_only(path, model, optimizer, step):
    content = {"model": dict(model.named_parameters()), "optimizer": optimizer.state_dict(), "step": step}
    torch.save(content, path)


def load_parameters_only(path, model, optimizer):
    saved = torch.load(path, weights_only=True)
    model.load_state_dict(saved["model"], strict=False)
    optimizer.load_state_dict(saved["optimizer"])
    return saved["step"]


def one_name(path: str | Path) -> Path:
    return Path(path).with_name("checkpoint.pt")


def save_under_one_name(path, model, optimizer, step):
    save_parts(one_name(path), model, optimizer, step)


def load_from_one_name(path, model, optimizer):
    return load_parts(one_name(path), model, optimizer)


def in_memory() -> tuple[Callable, Callable]:
    """Functions that keep the newest checkpoint of every name in memory; the file is an empty sign."""
    kept: dict[str, Any] = {}

    def save(path, model, optimizer, step):
        Path(path).touch()
        kept[Path(path).name] = copy.deepcopy((model.state_dict(), optimizer.state_dict(), step))

    def load(path, model, optimizer):
        state, moments, step = kept[Path(path).name]
        model.load_state_dict(state)
        optimizer.load_state_dict(copy.deepcopy(moments))
        return step

    return save, load


def save_in_half(path, model, optimizer, step):
    halves = {name: t.half() if t.is_floating_point() else t for name, t in model.state_dict().items()}
    torch.save({"model": halves, "optimizer": optimizer.state_dict(), "step": step}, path)


def save_without_overwriting(path, model, optimizer, step):
    if not Path(path).exists():
        save_parts(path, model, optimizer, step)


def save_and_reset(path, model, optimizer, step):
    save_parts(path, model, optimizer, step)
    optimizer.state.clear()


def judge_checkpoint(got: Observation, expected: Observation, case: Case) -> str | None:
    """First what the file is, then what came back from it, then how training goes on."""
    if isinstance(got.get("raised"), Raised):
        return f"Your code raised {show(got['raised'])}"
    if isinstance(got.get("saving"), Raised):
        return f"`save_checkpoint` raised {show(got['saving'])}"
    if not got.get("file_written"):
        return "`save_checkpoint` left no file at the path it was given."
    for name in (name for name in expected if name.endswith("step")):
        if isinstance(got.get(name), Raised):
            return f"`load_checkpoint` raised {show(got[name])}"
        if difference(got.get(name), expected[name]):
            wanted = f"the step it was saved at, here {expected[name]}"
            return f"`load_checkpoint` should return {wanted}; got {show(got.get(name))}."
    return facts(CHECKPOINTS)(got, expected, case)


CHECKPOINTS = {
    "files_stay": "After loading the file is gone. It may be needed again: leave it where it is.",
    "holds_data_only": "The file holds more than plain data: `torch.load(path, weights_only=True)` refuses it. Save "
    "state dicts and numbers, no modules and no optimizers.",
    "model_restored": "After loading, the model's parameters and buffers are not exactly the saved ones.",
    "resumed_as_if_never_stopped": "The resumed run takes another way than the uninterrupted one: something that "
    "training depends on did not come back.",
}


EXERCISE_7_7 = Exercise(
    id="7.7",
    title="Save and resume",
    reference=(save_checkpoint, load_checkpoint),
    parts=(
        Part(
            "values",
            "The weights and the step come back from the file",
            1,
            "Save `model.state_dict()` and the step in one dict with `torch.save`; load it, `model.load_state_dict`, "
            "return the step.",
            judge=judge_checkpoint,
        ),
        Part(
            "resumed",
            "Training goes on as if it had never stopped",
            2,
            "AdamW's moments and the learning rate belong to the run: `optimizer.state_dict()` holds both.",
            judge=judge_checkpoint,
            needs=("values",),
        ),
        Part(
            "any_input",
            "Buffers, a `Path` or a text, float64, models in use, a run that has not begun",
            1,
            "`state_dict()` holds the buffers, too; loading works in place, in the objects that are given.",
            judge=judge_checkpoint,
            needs=("values",),
        ),
        Part(
            "files",
            "Everything is in the file, and the file holds plain data only",
            2,
            "Each path is a checkpoint of its own. What is loaded has to come from the file at that path.",
            judge=judge_checkpoint,
            needs=("values",),
        ),
    ),
    probes=PROBES["7.7"],
    misconceptions=(
        Misconception(
            "model only",
            (save_parts, load_model_only),
            "Only the model comes back; AdamW starts again without its moments, and the loss jumps. Save and load "
            "`optimizer.state_dict()` as well.",
        ),
        Misconception(
            "optimizer only",
            (save_parts, load_optimizer_only),
            "Only the optimizer comes back. Load the model's state dict as well.",
        ),
        Misconception(
            "rates only",
            (save_parts, load_rates_only),
            "The optimizer's learning rates come back, its moments don't. `optimizer.load_state_dict` restores both.",
        ),
        Misconception(
            "rate kept",
            (save_parts, load_keeping_the_rate),
            "The optimizer's moments come back, but the learning rate is that of a new run. It is part of "
            "`optimizer.state_dict()`: leave it as loaded.",
        ),
        Misconception(
            "nothing returned",
            (save_parts, load_without_return),
            "`load_checkpoint` returns nothing. Training has to know where to go on: return the step.",
        ),
        Misconception(
            "everything returned",
            (save_parts, load_everything_returned),
            "`load_checkpoint` returns the whole checkpoint. Return the step alone, a number.",
        ),
        Misconception(
            "next step",
            (save_parts, load_next_step),
            "You return one step more than was saved. The step says how many are done; return it as it is.",
        ),
        Misconception(
            "step zero",
            (save_parts, load_step_zero),
            "You always return 0, so the schedule would start again with its warm-up. Save the step and return it.",
        ),
        Misconception(
            "pickled modules",
            (save_modules, load_modules),
            "You save the model itself. Such a file needs the very same source code later and can run any code when "
            "it is loaded; save `state_dict()`s.",
        ),
        Misconception(
            "into copies",
            (save_parts, load_into_copies),
            "You load into new objects that nobody sees. Load into the model and the optimizer that are given.",
        ),
        Misconception(
            "assigned",
            (save_parts, load_assigned),
            "After loading the model has new parameters, but the optimizer still trains the old ones. Copy the "
            "numbers into the parameters that are there: no `assign=True`.",
        ),
        Misconception(
            "in eval mode",
            (save_parts, load_and_eval),
            "After loading the model is in eval mode, so training goes on without dropout and with frozen "
            "statistics. Leave its mode alone.",
        ),
        Misconception(
            "no buffers",
            (save_parameters_only, load_parameters_only),
            "You save the parameters without the buffers, such as running statistics. `model.state_dict()` holds both.",
        ),
        Misconception(
            "one name",
            (save_under_one_name, load_from_one_name),
            "Your file has a name of its own choice. Write to the path you are given, so that two checkpoints don't "
            "overwrite each other.",
        ),
        Misconception(
            "in memory",
            in_memory(),
            "You keep the checkpoint in memory; after a restart it would be gone. Write it into the file at `path`.",
        ),
        Misconception(
            "half precision",
            (save_in_half, load_parts),
            "Your checkpoint rounds the weights to half precision, so the run goes on from another place. Save them "
            "as they are.",
        ),
        Misconception(
            "never overwrites",
            (save_without_overwriting, load_parts),
            "A file that is there already is never replaced, so a long run would be resumed from its first "
            "checkpoint. Overwrite it.",
        ),
        Misconception(
            "resets the optimizer",
            (save_and_reset, load_parts),
            "Saving changes the run: afterwards the optimizer has no moments. `save_checkpoint` should only look.",
        ),
    ),
)


EXERCISES = (EXERCISE_7_1, EXERCISE_7_2, EXERCISE_7_3, EXERCISE_7_4, EXERCISE_7_5, EXERCISE_7_6, EXERCISE_7_7)
