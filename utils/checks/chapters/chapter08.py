"""Exercises of chapter 8: the key-value cache, what a model costs, and gradients in small pieces."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.attention import CachedAttention, merge_heads, split_heads
from utils.checks.chapters.parts import any_input, values
from utils.checks.compare import difference, judge_error, judge_observation
from utils.checks.exercise import Exercise, Misconception, Part
from utils.checks.probes.chapter08 import PROBES
from utils.checks.probes.observe import Case, Observation
from utils.costs import flops_per_token, kv_cache_bytes
from utils.masking import check_length
from utils.training import accumulate_gradients

# 8.1 ------------------------------------------------------------------------------------------------


class Remembering:
    """A cache with its steps open to mistakes: keys and values are joined to those of earlier tokens."""

    def __init__(self, mha: nn.Module):
        self.mha = mha
        self.forget()

    def forget(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def reset(self) -> None:
        self.forget()

    def held(self) -> int:
        """How many tokens are remembered."""
        return 0 if self.keys is None else self.keys.shape[-2]

    def check_room(self) -> None:
        check_length(self.held() + 1, self.mha.context_length)

    def split(self, x: Tensor) -> Tensor:
        """(B, 1, H*D) -> (B, H, 1, D)"""
        return split_heads(x, self.mha.num_heads)

    def remember(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, 1, D) of the new token -> (B, H, t, D) of all tokens."""
        self.keys = keys if self.keys is None else torch.cat([self.keys, keys], dim=-2)
        self.values = values if self.values is None else torch.cat([self.values, values], dim=-2)
        return self.keys, self.values

    def scale(self, scores: Tensor) -> Tensor:
        return scores / self.mha.head_dim**0.5

    def weigh(self, scores: Tensor) -> Tensor:
        return torch.softmax(scores, dim=-1)

    def finish(self, contexts: Tensor) -> Tensor:
        """(B, H, 1, D) -> (B, 1, d_out)"""
        return self.mha.out_proj(merge_heads(contexts))

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        weights = self.weigh(self.scale(queries @ keys.mT))  # (B, H, 1, t)
        return self.finish(weights @ values)

    def step(self, x: Tensor) -> Tensor:
        """(B, 1, d_in) -> (B, 1, d_out)"""
        self.check_room()
        mha = self.mha
        queries, keys, values = (self.split(layer(x)) for layer in (mha.W_query, mha.W_key, mha.W_value))
        return self.attend(queries, *self.remember(keys, values))


class RecomputesAll(Remembering):
    def forget(self):
        self.inputs = None

    def step(self, x):
        self.inputs = x.clone() if self.inputs is None else torch.cat([self.inputs, x], dim=1)
        check_length(self.inputs.shape[1], self.mha.context_length)
        mha = self.mha
        keys, values = (self.split(layer(self.inputs)) for layer in (mha.W_key, mha.W_value))
        return self.attend(self.split(mha.W_query(x)), keys, values)


class NewestOnly(Remembering):
    def attend(self, queries, keys, values):
        return super().attend(queries, keys[..., -1:, :], values[..., -1:, :])


class WithoutNewest(Remembering):
    def attend(self, queries, keys, values):
        seen = slice(None, max(keys.shape[-2] - 1, 1))
        return super().attend(queries, keys[..., seen, :], values[..., seen, :])


class MaskOfFirstRow(Remembering):
    def weigh(self, scores):
        hidden = self.mha.mask[:1, : scores.shape[-1]].bool()
        return super().weigh(scores.masked_fill(hidden, float("-inf")))


class ValuesInFront(Remembering):
    """New keys at the end, new values at the beginning."""

    def attend(self, queries, keys, values):
        return super().attend(queries, keys, values.flip(-2))


class KeysAndValuesSwapped(Remembering):
    def attend(self, queries, keys, values):
        return super().attend(queries, values, keys)


class ReturnsEveryRow(Remembering):
    """The outputs of earlier tokens are returned again."""

    def forget(self):
        super().forget()
        self.outputs = []

    def step(self, x):
        self.outputs.append(super().step(x))
        return torch.cat(self.outputs, dim=1)


class NeverForgets(Remembering):
    def reset(self):
        pass


class OneCacheForAll(Remembering):
    """Keys and values stand in the class: whoever attends adds to the same lists."""

    all_keys: list[Tensor] = []  # noqa: RUF012
    all_values: list[Tensor] = []  # noqa: RUF012

    def forget(self):
        self.all_keys.clear()
        self.all_values.clear()

    def held(self):
        return len(self.all_keys)

    def remember(self, keys, values):
        self.all_keys.append(keys)
        self.all_values.append(values)
        return torch.cat(self.all_keys, dim=-2), torch.cat(self.all_values, dim=-2)


class EmptyPlacesToo(Remembering):
    """Room for all tokens from the start; the zeros in the places not yet taken get weights as well."""

    def forget(self):
        super().forget()
        self.length = 0

    def held(self):
        return self.length

    def remember(self, keys, values):
        if self.keys is None:
            shape = (*keys.shape[:2], self.mha.context_length, keys.shape[-1])
            self.keys, self.values = keys.new_zeros(shape), values.new_zeros(shape)
        self.keys[:, :, self.length], self.values[:, :, self.length] = keys[:, :, 0], values[:, :, 0]
        self.length += 1
        return self.keys, self.values


class NotScaled(Remembering):
    def scale(self, scores):
        return scores


class ScaledByWidth(Remembering):
    def scale(self, scores):
        return scores / self.mha.d_out**0.5


class OneHead(Remembering):
    def split(self, x):
        return x.unsqueeze(1)

    def scale(self, scores):
        return scores / self.mha.d_out**0.5


class WithoutOutProj(Remembering):
    def finish(self, contexts):
        return merge_heads(contexts)


class NoLimit(Remembering):
    def check_room(self):
        pass


class LimitOneTooLow(Remembering):
    def check_room(self):
        check_length(self.held() + 2, self.mha.context_length)


class DropsTheOldest(Remembering):
    def check_room(self):
        if self.held() == self.mha.context_length:
            self.keys, self.values = self.keys[:, :, 1:], self.values[:, :, 1:]


def judge_overflow(got: Observation, expected: Observation, case: Case) -> str | None:
    """Every allowed step, then an error that names the limit or the number of tokens, then a step after a reset."""
    before = {name: value for name, value in expected.items() if name == "steps"}
    if found := judge_observation(got, before, case):
        return found
    refusals = [judge_error(got, expected, {"names": [length]}) for length in case["lengths"]]
    return (
        refusals[0] if all(refusals) else judge_observation(got, {k: expected[k] for k in ("after_the_error",)}, case)
    )


EXERCISE_8_1 = Exercise(
    id="8.1",
    title="One token at a time",
    reference=CachedAttention,
    parts=(
        values(
            2,
            "Project the new token, join its key and value to those you keep, and let its query read all of them.",
            "Each step gives the last row of the full pass",
        ),
        Part(
            "cache",
            "Each step computes one new key and one new value",
            1,
            "Keep keys and values, not inputs.",
            needs=("values",),
        ),
        Part(
            "any_input",
            "One head or many, with bias, a batch of one, float64, any memory layout",
            1,
            "The earlier numbers are right, so look at what is special here: sizes, dtype or memory layout.",
            needs=("values", "cache"),
        ),
        Part(
            "several",
            "`reset()` starts afresh, two caches don't mix, `x` and `mha` stay untouched",
            1,
            "Keep keys and values in `self`, and let go of all of them in `reset`.",
            needs=("values", "cache"),
        ),
        Part(
            "length_error",
            "An error for the first token beyond `context_length`, and none before",
            1,
            "Raise a `ValueError` that names the length before anything is remembered.",
            judge_overflow,
            ("values", "cache"),
        ),
    ),
    probes=PROBES["8.1"],
    misconceptions=(
        Misconception(
            "recomputes all",
            RecomputesAll,
            "Your numbers are right, but you keep the inputs and project all of them again at every step. Keep the "
            "keys and values instead: they never change, because no token sees a later one.",
        ),
        Misconception(
            "newest only",
            NewestOnly,
            "Your token reads only itself. Join its key and value to those of the earlier tokens before you attend.",
        ),
        Misconception(
            "without the newest",
            WithoutNewest,
            "Your token reads the earlier tokens but not itself. Append its key and value first, then attend.",
        ),
        Misconception(
            "first row of the mask",
            MaskOfFirstRow,
            "You use the first row of the mask (`is_causal=True` does so for a single query), which hides all but the "
            "first token. The new token is the last one: all that you keep lies in its past, so no mask is needed.",
        ),
        Misconception(
            "values in another order",
            ValuesInFront,
            "Your values stand in another order than your keys. Append both at the same end, so that key j belongs to "
            "value j.",
        ),
        Misconception(
            "keys and values swapped",
            KeysAndValuesSwapped,
            "You compare the query with the values and sum up the keys. Scores come from the keys, the weighted sum "
            "is of the values.",
        ),
        Misconception(
            "returns every row",
            ReturnsEveryRow,
            "You return the outputs of all tokens so far. The earlier ones are known already: return (B, 1, d_out) for "
            "the new token.",
        ),
        Misconception(
            "reset forgets nothing",
            NeverForgets,
            "After `reset()` your tokens still read the old sequence. Let go of the keys, the values and any count "
            "there.",
        ),
        Misconception(
            "one cache for all",
            OneCacheForAll,
            "All objects of your class share one memory, because it stands in the class itself. Make it in `__init__`, "
            "as `self.keys = ...`.",
        ),
        Misconception(
            "empty places",
            EmptyPlacesToo,
            "You attend to the whole memory, the places not yet filled included: a key of zeros has score 0, and that "
            "is a weight. Cut keys and values to the tokens so far.",
        ),
        Misconception(
            "not scaled",
            NotScaled,
            "The scores aren't scaled. Divide them by the root of the head size, as in `mha` itself.",
        ),
        Misconception(
            "scaled by the width",
            ScaledByWidth,
            "You scale by the root of `d_out`. Each head compares vectors of its own size: take `mha.head_dim`.",
        ),
        Misconception(
            "one head",
            OneHead,
            "You attend with the whole width at once. Split query, key and value into `mha.num_heads` heads, and merge "
            "them afterwards.",
        ),
        Misconception(
            "no output projection",
            WithoutOutProj,
            "You stop at the merged heads. The full pass sends them through `mha.out_proj` at the end.",
        ),
        Misconception(
            "no limit",
            NoLimit,
            "You never refuse a token. `mha` takes `context_length` tokens: raise a `ValueError` that names the length "
            "when there is one more.",
        ),
        Misconception(
            "limit one too low",
            LimitOneTooLow,
            "You refuse the last token that is allowed. A sequence may have exactly `context_length` tokens: refuse "
            "the next one.",
        ),
        Misconception(
            "drops the oldest",
            DropsTheOldest,
            "When your memory is full you drop the oldest token. The full pass refuses such a sequence: raise a "
            "`ValueError` that names the length.",
        ),
    ),
)


# 8.2 ------------------------------------------------------------------------------------------------


def cache_of(count):
    """The reference's error around another formula."""

    def answer(cfg, batch_size, length, bytes_per_value):
        check_length(length, cfg.context_length)
        return count(cfg, batch_size, length, bytes_per_value)

    return answer


def unlimited_cache(cfg, batch_size, length, bytes_per_value):
    return 2 * cfg.n_layers * batch_size * length * cfg.emb_dim * bytes_per_value


def cache_cut_to_context(cfg, batch_size, length, bytes_per_value):
    return unlimited_cache(cfg, batch_size, min(length, cfg.context_length), bytes_per_value)


def cache_that_is_never_full(cfg, batch_size, length, bytes_per_value):
    if length >= cfg.context_length:
        raise ValueError(f"length {length} reaches context_length")
    return unlimited_cache(cfg, batch_size, length, bytes_per_value)


EXERCISE_8_2 = Exercise(
    id="8.2",
    title="Memory of the cache",
    reference=kv_cache_bytes,
    parts=(
        values(1, "How many numbers does one layer keep for one token? Then all tokens, all layers, all bytes."),
        any_input(1, "A full context, one layer, one byte, large models", "Which of the sizes have a part in it?"),
        Part(
            "length_error",
            "An error for more tokens than `context_length`",
            1,
            "Raise a `ValueError` that names `length`.",
            judge_error,
            ("values",),
        ),
    ),
    probes=PROBES["8.2"],
    misconceptions=(
        Misconception(
            "keys only",
            cache_of(lambda c, b, t, n: c.n_layers * b * t * c.emb_dim * n),
            "You count half. A token leaves a key and a value: that is the factor 2.",
        ),
        Misconception(
            "queries too",
            cache_of(lambda c, b, t, n: 3 * c.n_layers * b * t * c.emb_dim * n),
            "You count the queries, too. Only the newest token asks, so no query is kept: the factor is 2.",
        ),
        Misconception(
            "one layer",
            cache_of(lambda c, b, t, n: 2 * b * t * c.emb_dim * n),
            "You count one layer. Every layer has keys and values of its own: times `n_layers`.",
        ),
        Misconception(
            "one sequence",
            cache_of(lambda c, b, t, n: 2 * c.n_layers * t * c.emb_dim * n),
            "You count one sequence. Each of the batch has tokens of its own: times `batch_size`.",
        ),
        Misconception(
            "times heads",
            cache_of(lambda c, b, t, n: 2 * c.n_layers * b * t * c.emb_dim * c.n_heads * n),
            "You multiply by the heads, which are in `emb_dim` already: the heads share its channels.",
        ),
        Misconception(
            "one head",
            cache_of(lambda c, b, t, n: 2 * c.n_layers * b * t * (c.emb_dim // c.n_heads) * n),
            "You count one head. All heads together keep `emb_dim` numbers for a key.",
        ),
        Misconception(
            "whole context",
            cache_of(lambda c, b, t, n: 2 * c.n_layers * b * c.context_length * c.emb_dim * n),
            "You count a full context. Asked for is the memory of `length` tokens.",
        ),
        Misconception(
            "length squared",
            cache_of(lambda c, b, t, n: 2 * c.n_layers * b * t * t * c.emb_dim * n),
            "Your memory grows with the square of the length. That is the table of weights; keys and values grow with "
            "the length alone.",
        ),
        Misconception(
            "always four bytes",
            cache_of(lambda c, b, t, n: 2 * c.n_layers * b * t * c.emb_dim * 4),
            "You count four bytes for every number. Half precision takes two: use `bytes_per_value`.",
        ),
        Misconception(
            "numbers, not bytes",
            cache_of(lambda c, b, t, n: 2 * c.n_layers * b * t * c.emb_dim),
            "You count numbers. Each takes `bytes_per_value` bytes.",
        ),
        Misconception(
            "bits",
            cache_of(lambda c, b, t, n: 2 * c.n_layers * b * t * c.emb_dim * n * 8),
            "You count bits. Asked for are bytes, as `bytes_per_value` gives them.",
        ),
        Misconception(
            "megabytes",
            cache_of(lambda c, b, t, n: 2 * c.n_layers * b * t * c.emb_dim * n / 2**20),
            "You return megabytes. Asked for are bytes, as an `int`.",
        ),
        Misconception(
            "no limit",
            unlimited_cache,
            "Your numbers are right, but you also answer for a length that the model can't reach. Raise a `ValueError` "
            "when `length` exceeds `cfg.context_length`.",
        ),
        Misconception(
            "cut to the context",
            cache_cut_to_context,
            "You cut a length that is too long without a word. Raise a `ValueError` that names it, so that nobody "
            "reckons with less memory than they need.",
        ),
        Misconception(
            "never full",
            cache_that_is_never_full,
            "You refuse a length of exactly `context_length`, which is allowed. Only what exceeds it is an error.",
        ),
    ),
)


# 8.3 ------------------------------------------------------------------------------------------------


def accumulate_by(model, x, y, micro_batch_size, share=None, mean=None):
    """The reference with its shares open to mistakes: of a part's loss, in the gradient and in the mean."""
    parts = list(zip(x.split(micro_batch_size), y.split(micro_batch_size), strict=True))
    total = 0.0
    for x_part, y_part in parts:
        _, loss = model(x_part, y_part)
        right = len(x_part) / len(x)
        (loss * (right if share is None else share(x_part, parts))).backward()
        total += loss.item() * (right if mean is None else mean(x_part, parts))
    return total


def sum_of_means(model, x, y, micro_batch_size):
    return accumulate_by(model, x, y, micro_batch_size, share=lambda part, parts: 1.0)


def sum_of_means_in_both(model, x, y, micro_batch_size):
    return accumulate_by(model, x, y, micro_batch_size, lambda part, parts: 1.0, lambda part, parts: 1.0)


def sum_over_rows(model, x, y, micro_batch_size):
    return accumulate_by(model, x, y, micro_batch_size, share=lambda part, parts: float(len(part)))


def equal_parts(model, x, y, micro_batch_size):
    def share(part, parts):
        return 1 / len(parts)

    return accumulate_by(model, x, y, micro_batch_size, share, share)


def mean_of_equal_parts(model, x, y, micro_batch_size):
    return accumulate_by(model, x, y, micro_batch_size, mean=lambda part, parts: 1 / len(parts))


def averaged_twice(model, x, y, micro_batch_size):
    return accumulate_by(model, x, y, micro_batch_size, share=lambda part, parts: len(part) / len(x) / len(parts))


def averaged_over_tokens(model, x, y, micro_batch_size):
    return accumulate_by(model, x, y, micro_batch_size, share=lambda part, parts: len(part) / x.numel())


def sum_of_losses(model, x, y, micro_batch_size):
    return accumulate_by(model, x, y, micro_batch_size, mean=lambda part, parts: 1.0)


def last_loss(model, x, y, micro_batch_size):
    return accumulate_by(model, x, y, micro_batch_size, mean=lambda part, parts: float(part is parts[-1][0]))


def loss_as_tensor(model, x, y, micro_batch_size):
    return torch.tensor(accumulate_gradients(model, x, y, micro_batch_size))


def cleared_before_each_part(model, x, y, micro_batch_size):
    total = 0.0
    for x_part, y_part in zip(x.split(micro_batch_size), y.split(micro_batch_size), strict=True):
        model.zero_grad()
        total += accumulate_by(model, x_part, y_part, micro_batch_size) * len(x_part) / len(x)
    return total


def cleared_at_the_start(model, x, y, micro_batch_size):
    model.zero_grad()
    return accumulate_gradients(model, x, y, micro_batch_size)


def steps_by_itself(model, x, y, micro_batch_size):
    loss = accumulate_gradients(model, x, y, micro_batch_size)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.01 * parameter.grad
    return loss


def without_the_rest(model, x, y, micro_batch_size):
    rows = max(len(x) // micro_batch_size, 1) * micro_batch_size
    return accumulate_gradients(model, x[:rows], y[:rows], micro_batch_size)


def all_at_once(model, x, y, micro_batch_size):
    return accumulate_gradients(model, x, y, len(x))


def losses_only(model, x, y, micro_batch_size):
    with torch.no_grad():
        parts = zip(x.split(micro_batch_size), y.split(micro_batch_size), strict=True)
        return sum(model(x_part, y_part)[1].item() * len(x_part) / len(x) for x_part, y_part in parts)


def cross_entropy_of_logits(model, x, y, micro_batch_size):
    total = 0.0
    for x_part, y_part in zip(x.split(micro_batch_size), y.split(micro_batch_size), strict=True):
        logits, _ = model(x_part, y_part)
        loss = F.cross_entropy(logits.flatten(0, 1), y_part.flatten()) * len(x_part) / len(x)
        loss.backward()
        total += loss.item()
    return total


def along_the_tokens(model, x, y, micro_batch_size):
    total = 0.0
    for x_part, y_part in zip(x.split(micro_batch_size, dim=1), y.split(micro_batch_size, dim=1), strict=True):
        _, loss = model(x_part, y_part)
        (loss * x_part.shape[1] / x.shape[1]).backward()
        total += loss.item() * x_part.shape[1] / x.shape[1]
    return total


def judge_accumulation(got: Observation, expected: Observation, case: Case) -> str | None:
    """As every judge; gradients that are added up are named, and shown where they differ."""
    gradients = [name for name in expected if name in ("accumulated", "after_two_calls")]
    others = {name: value for name, value in expected.items() if name not in gradients}
    if found := judge_observation(got, others, case):
        return found
    for name in gradients:
        again = " after two calls" if name == "after_two_calls" else ""
        for parameter, wanted in expected[name].items():
            own = got[name][parameter]
            if own is None:
                return f"`{parameter}.grad` is None{again}. Call `backward` on the loss of every part."
            if found := difference(own, wanted):
                return f"`{parameter}.grad`{again}: {found}"
    return None


EXERCISE_8_3 = Exercise(
    id="8.3",
    title="A big batch in small pieces",
    reference=accumulate_gradients,
    parts=(
        Part(
            "values",
            "The gradients of the whole batch, from a few rows at a time",
            2,
            "Call `backward` on each part's loss, times the part's share of the rows: `.grad` adds them up.",
            judge_accumulation,
        ),
        Part(
            "loss",
            "Returns the mean loss of the whole batch",
            1,
            "Add up `loss.item()` times the part's share of the rows.",
            needs=("values",),
        ),
        Part(
            "any_input",
            "A last part with fewer rows, one row at a time, one part only, float64",
            1,
            "The earlier gradients are right, so look at the last part: how many rows has it?",
            judge_accumulation,
            ("values",),
        ),
        Part(
            "manners",
            "Adds to the gradients that are there, and touches nothing else",
            1,
            "",
            judge_accumulation,
            ("values",),
        ),
    ),
    probes=PROBES["8.3"],
    misconceptions=(
        Misconception(
            "sum of means",
            sum_of_means,
            "Your gradients are those of the sum of the parts' losses, too large by the number of parts. Each loss is "
            "a mean: scale it by its share of the rows before `backward`.",
        ),
        Misconception(
            "sum of losses",
            sum_of_losses,
            "Your gradients are right, but you return the sum of the parts' losses. Weigh each by its share of the "
            "rows, as in the gradient.",
        ),
        Misconception(
            "sum of means, also returned",
            sum_of_means_in_both,
            "You add up the parts' means, in the gradient and in what you return. The mean of the batch gives each "
            "part its share of the rows: `len(x_part) / len(x)`.",
        ),
        Misconception(
            "sum over rows",
            sum_over_rows,
            "Your gradients are those of the sum over all rows. Divide each part's share by the number of rows in the "
            "batch.",
        ),
        Misconception(
            "mean of equal parts",
            mean_of_equal_parts,
            "Your gradients are right, but the mean that you return gives each part the same weight. Weigh the losses "
            "by their rows, too.",
        ),
        Misconception(
            "equal parts",
            equal_parts,
            "You give each part the same weight, but the last one may have fewer rows. Weigh by rows: "
            "`len(x_part) / len(x)`.",
        ),
        Misconception(
            "averaged twice",
            averaged_twice,
            "You divide by the number of parts once too often. The share of the rows is all the scaling there is.",
        ),
        Misconception(
            "averaged over the tokens",
            averaged_over_tokens,
            "You divide by the number of tokens. The model's loss is a mean over them already: weigh it by its share "
            "of the rows.",
        ),
        Misconception(
            "last loss",
            last_loss,
            "Your gradients are right, but you return what belongs to the last part. Asked for is the mean over the "
            "whole batch.",
        ),
        Misconception(
            "loss as a tensor",
            loss_as_tensor,
            "You return the mean loss as a tensor. Asked for is a `float`: `loss.item()` gives one, and lets go of the "
            "graph.",
        ),
        Misconception(
            "cleared before each part",
            cleared_before_each_part,
            "You clear the gradients before each part, so only the last part's are left. `backward` adds to `.grad`: "
            "let it.",
        ),
        Misconception(
            "cleared at the start",
            cleared_at_the_start,
            "You clear the gradients that are there. The function adds to them; when to clear is for the caller to "
            "say.",
        ),
        Misconception(
            "makes the step",
            steps_by_itself,
            "You change the parameters. Only add to `.grad`: the step is made by the optimizer, outside.",
        ),
        Misconception(
            "without the rest",
            without_the_rest,
            "You leave out the rows that don't fill a part. The last part may have fewer rows, and they count as much "
            "as the others.",
        ),
        Misconception(
            "all at once",
            all_at_once,
            "Your numbers are right, but the model gets the whole batch at once, and that is what doesn't fit. Give it "
            "at most `micro_batch_size` rows per forward pass.",
        ),
        Misconception(
            "losses only",
            losses_only,
            "You compute losses without gradients. `torch.no_grad()` is for evaluation; here each part needs "
            "`backward`.",
        ),
        Misconception(
            "a loss of its own",
            cross_entropy_of_logits,
            "You compute a loss from the logits yourself. The model returns the loss that it is trained with: use that "
            "one.",
        ),
        Misconception(
            "along the tokens",
            along_the_tokens,
            "You cut every row into pieces. Rows are the first dimension: a part holds whole sequences.",
        ),
    ),
)


# 8.4 ------------------------------------------------------------------------------------------------


def weights_in_matrices(cfg) -> int:
    return 12 * cfg.n_layers * cfg.emb_dim**2 + cfg.vocab_size * cfg.emb_dim


def products_of_attention(cfg) -> int:
    return 12 * cfg.n_layers * cfg.emb_dim * cfg.context_length


def flops_by(weights=weights_in_matrices, per_weight=6, attention=products_of_attention):
    """The formula open to mistakes."""
    return lambda cfg: per_weight * weights(cfg) + attention(cfg)


def biases_and_norms(cfg) -> int:
    return cfg.n_layers * 13 * cfg.emb_dim + 2 * cfg.emb_dim


EXERCISE_8_4 = Exercise(
    id="8.4",
    title="FLOPs per token",
    reference=flops_per_token,
    parts=(
        values(
            2,
            "6 for each matrix weight, the head included, and the two products of attention over the whole context.",
        ),
        any_input(1, "One layer, one head, long contexts, large vocabularies", "Which of the sizes have a part in it?"),
    ),
    probes=PROBES["8.4"],
    misconceptions=(
        Misconception(
            "forward only",
            flops_by(per_weight=2, attention=lambda c: products_of_attention(c) // 3),
            "You count the forward pass. Training also goes backward, which takes twice as much: three times in all.",
        ),
        Misconception(
            "weights forward only",
            flops_by(per_weight=2),
            "You count 2 for each weight, which is the forward pass. The backward pass takes 4 more: 6 in all.",
        ),
        Misconception(
            "backward only",
            flops_by(per_weight=4),
            "You count 4 for each weight, which is the backward pass. The forward pass takes 2 more: 6 in all.",
        ),
        Misconception(
            "multiply-adds",
            flops_by(per_weight=3, attention=lambda c: products_of_attention(c) // 2),
            "You count a multiplication and an addition as one. They are two operations.",
        ),
        Misconception(
            "attention left out",
            flops_by(attention=lambda c: 0),
            "You count the weights alone. The products of queries with keys, and of weights with values, have no "
            "parameters but cost 12 * `n_layers` * `emb_dim` * `context_length`.",
        ),
        Misconception(
            "one product of attention",
            flops_by(attention=lambda c: products_of_attention(c) // 2),
            "You count one of attention's two products. Queries with keys is one, weights with values the other: 12 "
            "instead of 6.",
        ),
        Misconception(
            "attention forward only",
            flops_by(attention=lambda c: products_of_attention(c) // 3),
            "You count attention's products in the forward pass only. Going backward takes twice as much again: 12 "
            "instead of 4.",
        ),
        Misconception(
            "attention of one layer",
            flops_by(attention=lambda c: 12 * c.emb_dim * c.context_length),
            "You count attention's products in one layer. Every layer has its own: times `n_layers`.",
        ),
        Misconception(
            "attention times heads",
            flops_by(attention=lambda c: products_of_attention(c) * c.n_heads),
            "You multiply attention's products by the heads, which are in `emb_dim` already.",
        ),
        Misconception(
            "attention of one head",
            flops_by(attention=lambda c: products_of_attention(c) // c.n_heads),
            "You count attention's products in one head. All heads together work on `emb_dim` channels.",
        ),
        Misconception(
            "all tokens",
            flops_by(attention=lambda c: products_of_attention(c) * c.context_length),
            "You count attention's products for the whole sequence. Asked for is one token: `context_length` once, not "
            "squared.",
        ),
        Misconception(
            "head left out",
            flops_by(weights=lambda c: 12 * c.n_layers * c.emb_dim**2),
            "You leave out the head. Its weights, `vocab_size` times `emb_dim`, are a matrix that every token is "
            "multiplied with.",
        ),
        Misconception(
            "look-ups counted",
            flops_by(weights=lambda c: weights_in_matrices(c) + c.vocab_size * c.emb_dim),
            "You count the token embedding. Looking up a row multiplies nothing: of the tables with `vocab_size` rows "
            "only the head counts.",
        ),
        Misconception(
            "positions counted",
            flops_by(weights=lambda c: weights_in_matrices(c) + c.context_length * c.emb_dim),
            "You count the table of positions. A look-up multiplies nothing.",
        ),
        Misconception(
            "all parameters",
            flops_by(
                weights=lambda c: (
                    weights_in_matrices(c) + (c.vocab_size + c.context_length) * c.emb_dim + biases_and_norms(c)
                )
            ),
            "You count all parameters. Tables that are looked up, biases and norms are left out: only matrices "
            "multiply.",
        ),
        Misconception(
            "biases and norms counted",
            flops_by(weights=lambda c: weights_in_matrices(c) + biases_and_norms(c)),
            "You count biases and norms. They are left out: only matrices multiply.",
        ),
        Misconception(
            "attention's matrices only",
            flops_by(weights=lambda c: 4 * c.n_layers * c.emb_dim**2 + c.vocab_size * c.emb_dim),
            "You leave out the feed-forward layers. They hold 8 of the 12 squares of `emb_dim` in each block.",
        ),
        Misconception(
            "no output projection",
            flops_by(weights=lambda c: 11 * c.n_layers * c.emb_dim**2 + c.vocab_size * c.emb_dim),
            "You leave out attention's output projection: queries, keys, values and output are 4 matrices, the "
            "feed-forward layers 8 more.",
        ),
        Misconception(
            "a float",
            lambda cfg: float(flops_per_token(cfg)),
            "The number is right, but it is a `float`. Operations are counted in whole numbers: return an `int`.",
        ),
    ),
)


EXERCISES = (EXERCISE_8_1, EXERCISE_8_2, EXERCISE_8_3, EXERCISE_8_4)
