"""Subtle mistakes for chapter 3."""

import functools
import itertools

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from utils.attention import CausalAttention
from utils.checks.chapters.chapter03 import StepByStep, keeps_to_the_past
from utils.masking import apply_dropout, causal_mask, causal_softmax, is_causal, running_mean

# 3.1 ------------------------------------------------------------------------------------------------


def mean_by_loop(x):
    total, rows = 0, []
    for t in range(x.shape[1]):
        total = total + x[:, t]
        rows.append(total / (t + 1))
    return torch.stack(rows, dim=1)


def mean_by_comprehension(x):
    return torch.stack([x[:, : t + 1].mean(1) for t in range(x.shape[1])], dim=1)


def mean_by_helper_with_loop(x):
    return mean_by_loop(x)


def mean_by_weights_in_a_loop(x):
    weights = torch.zeros(x.shape[1], x.shape[1], dtype=x.dtype)
    for t in range(x.shape[1]):
        weights[t, : t + 1] = 1 / (t + 1)
    return weights @ x


def row_of_weights(t, like):
    return F.pad(like.new_full((t + 1,), 1 / (t + 1)), (0, like.shape[1] - t - 1))


def mean_by_mapped_rows(x):
    return torch.stack(tuple(map(functools.partial(row_of_weights, like=x), range(x.shape[1])))) @ x


def mean_by_recursion(x):
    if x.shape[1] == 1:
        return x
    before = mean_by_recursion(x[:, :-1])
    return torch.cat([before, x.mean(1, keepdim=True)], dim=1)


def mean_by_accumulate(x):
    sums = torch.stack(tuple(itertools.accumulate(x.unbind(1))), dim=1)
    return sums / torch.arange(1, x.shape[1] + 1, dtype=x.dtype)[:, None]


def mean_by_cumsum(x):
    return x.cumsum(1) / torch.arange(1, x.shape[1] + 1, dtype=x.dtype)[:, None]


def mean_by_cumsum_in_place(x):
    return getattr(x.clone(), "cum" + "sum_")(1) / torch.arange(1, x.shape[1] + 1, dtype=x.dtype)[:, None]


def mean_by_aten(x):
    return torch.ops.aten.cumsum.default(x, 1) / torch.arange(1, x.shape[1] + 1, dtype=x.dtype)[:, None]


def mean_in_numpy(x):
    sums = np.add.accumulate(x.detach().numpy(), axis=1)
    return torch.from_numpy(sums) / torch.arange(1, x.shape[1] + 1, dtype=x.dtype)[:, None]


def mean_in_logarithms(x):
    return torch.logcumsumexp(x.log(), dim=1).exp() / torch.arange(1, x.shape[1] + 1, dtype=x.dtype)[:, None]


def mean_up_to_64(x):
    lower = torch.ones(64, 64, dtype=x.dtype).tril()
    return (lower / lower.sum(1, keepdim=True))[: x.shape[1], : x.shape[1]] @ x


def mean_in_half_precision(x):
    return running_mean(x.to(torch.bfloat16)).to(x.dtype)


def mean_of_detached(x):
    return running_mean(x.detach())


@functools.cache
def first_weights(num_tokens):
    lower = torch.ones(num_tokens, num_tokens).tril()
    return lower / lower.sum(1, keepdim=True)


def mean_of_rounded_weights(x):
    return (first_weights(x.shape[1]) * 1000).round().to(x.dtype) / 1000 @ x


def mean_without_batch(x):
    return running_mean(x[:1]).expand_as(x)


def mean_by_view(x):
    B, T, C = x.shape
    return running_mean(x.view(B, T * C)[..., None].unflatten(1, (T, C))[..., 0])


# 3.2 ------------------------------------------------------------------------------------------------


def filled_with(number):
    def answer(scores):
        return torch.softmax(scores.masked_fill(causal_mask(scores.shape[-1]), number), dim=-1)

    return answer


def lower_scores(scores):
    return torch.softmax(scores.tril(), dim=-1)


def renormalised_with_epsilon(scores):
    weights = torch.softmax(scores, dim=-1).tril()
    return weights / (weights.sum(dim=-1, keepdim=True) + 1e-9)


def renormalised_without_nan(scores):
    weights = torch.softmax(scores, dim=-1).tril()
    return torch.nan_to_num(weights / weights.sum(dim=-1, keepdim=True))


def renormalised_in_float64(scores):
    weights = torch.softmax(scores.double(), dim=-1).tril()
    return (weights / weights.sum(dim=-1, keepdim=True)).to(scores.dtype)


def clamped_scores(scores):
    return causal_softmax(scores.clamp(-80, 80))


def one_maximum(scores):
    exponentials = (scores - scores.max()).exp().tril()
    return exponentials / exponentials.sum(dim=-1, keepdim=True)


def maximum_of_hidden_too(scores):
    exponentials = (scores - scores.amax(-1, keepdim=True)).exp().tril()
    return exponentials / exponentials.sum(dim=-1, keepdim=True)


def hidden_afterwards(scores):
    """Right weights, but the hidden exponentials overflow, and their gradient is NaN."""
    hidden = causal_mask(scores.shape[-1])
    largest = scores.masked_fill(hidden, -torch.inf).amax(-1, keepdim=True)
    exponentials = torch.where(hidden, torch.zeros_like(scores), (scores - largest).exp())
    return exponentials / exponentials.sum(-1, keepdim=True)


def nearly_normalised(scores):
    return causal_softmax(scores) * 0.999


def leaks_a_little(scores):
    return causal_softmax(scores) + 1e-7 * causal_mask(scores.shape[-1])


def as_long_as_dimension_one(scores):
    return torch.softmax(scores.masked_fill(causal_mask(scores.shape[1]), -torch.inf), dim=-1)


class MaskOfTheFirstCall:
    mask = None

    def __call__(self, scores):
        if self.mask is None:
            self.mask = causal_mask(scores.shape[-1])
        return torch.softmax(scores.masked_fill(self.mask, -torch.inf), dim=-1)


def always_in_float32(scores):
    return torch.softmax(scores.masked_fill(causal_mask(scores.shape[-1]), -torch.inf), dim=-1, dtype=torch.float32)


def three_dimensions(scores):
    scores = scores if scores.dim() > 2 else scores[None]
    return causal_softmax(scores)


def by_bmm_shapes(scores):
    T = scores.shape[-1]
    return causal_softmax(scores.view(-1, T, T)).view(scores.shape)


def scaled_too(scores):
    return causal_softmax(scores / scores.shape[-1] ** 0.5)


# 3.3 ------------------------------------------------------------------------------------------------


def trying(**how):
    """An answer that deals with the mode, and is wrong in what it compares."""

    def answer(attention, d_in, context_length):
        training = getattr(attention, "training", None)
        if training is not None:
            attention.eval()
        verdict = keeps_to_the_past(attention, d_in, context_length, **how)
        if training is not None:
            attention.train(training)
        return verdict

    return answer


def share(threshold):
    return lambda before, after, outputs: bool(((before - after).abs() > threshold * outputs.abs().max()).any())


def mean_difference(before, after, outputs):
    return bool((before - after).abs().mean() > 1e-4 * outputs.abs().max()) if before.numel() else False


def close_by_default(before, after, outputs):
    return not torch.allclose(before, after)


def close_in_proportion(before, after, outputs):
    return not torch.allclose(before, after, rtol=1e-3, atol=0)


def close_by_thousandths(before, after, outputs):
    return bool(((before - after).abs() > 1e-3).any())


def share_of_largest_if_large(before, after, outputs):
    return bool(((before - after).abs() > 1e-4 * max(1.0, float(outputs.abs().max()))).any())


def share_of_signed_largest(before, after, outputs):
    return bool(((before - after).abs() > 1e-4 * outputs.max()).any())


def share_of_itself(before, after, outputs):
    return bool(((before - after).abs() > 1e-4 * before.abs()).any())


def one_random_place(attention, d_in, context_length):
    if context_length == 1:
        return True
    t = int(torch.randint(1, context_length, ()))
    return trying(changed_from=lambda length: range(t, t + 1))(attention, d_in, context_length)


def one_input_one_output(attention, d_in, context_length):
    """Changes one input and looks at the output just before it."""
    training = getattr(attention, "training", None)
    if training is not None:
        attention.eval()
    causal = True
    with torch.no_grad():
        for t in range(1, context_length):
            x = torch.randn(1, context_length, d_in)
            before, changed = attention(x), x.clone()
            changed[:, t] = torch.randn(d_in)
            difference = (attention(changed) - before)[:, t - 1].abs().max()
            causal = causal and bool(difference <= 1e-4 * before.abs().max())
    if training is not None:
        attention.train(training)
    return causal


def hardly_changed(attention, d_in, context_length):
    x = torch.randn(1, context_length, d_in)
    training = getattr(attention, "training", None)
    if training is not None:
        attention.eval()
    causal = True
    with torch.no_grad():
        before = attention(x)
        for t in range(1, context_length):
            changed = x.clone()
            changed[:, t:] += 1e-5
            causal = causal and bool((attention(changed) - before)[:, :t].abs().max() <= 1e-4 * before.abs().max())
    if training is not None:
        attention.train(training)
    return causal


def shorter_sequences(attention, d_in, context_length):
    """Gives it sequences of other lengths than it was made for."""
    training = getattr(attention, "training", None)
    if training is not None:
        attention.eval()
    with torch.no_grad():
        x = torch.randn(1, context_length, d_in)
        full = attention(x)
        causal = all(
            bool((attention(x[:, :t]) - full[:, :t]).abs().max() <= 1e-4 * full.abs().max())
            for t in range(1, context_length)
        )
    if training is not None:
        attention.train(training)
    return causal


def dropout_switched_off(attention, d_in, context_length):
    if isinstance(attention, nn.Module):
        for module in attention.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    return keeps_to_the_past(attention, d_in, context_length)


def only_the_top_in_eval_mode(attention, d_in, context_length):
    training = getattr(attention, "training", None)
    if training is not None:
        attention.training = False
    verdict = keeps_to_the_past(attention, d_in, context_length)
    if training is not None:
        attention.training = training
    return verdict


def restores_the_top_only(attention, d_in, context_length):
    training = getattr(attention, "training", None)
    if training is not None:
        attention.eval()
    verdict = keeps_to_the_past(attention, d_in, context_length)
    if training is not None:
        attention.training = training
    return verdict


def mode_turned_around(attention, d_in, context_length):
    if not isinstance(attention, nn.Module):
        return keeps_to_the_past(attention, d_in, context_length)
    training = attention.training
    attention.eval()
    verdict = keeps_to_the_past(attention, d_in, context_length)
    attention.train(not training)
    return verdict


def mode_forgotten_at_a_leak(attention, d_in, context_length):
    training = getattr(attention, "training", None)
    if training is not None:
        attention.eval()
    if not keeps_to_the_past(attention, d_in, context_length):
        return False
    if training is not None:
        attention.train(training)
    return True


def zero_or_one(attention, d_in, context_length):
    return int(is_causal(attention, d_in, context_length))


def parameters_spoilt(attention, d_in, context_length):
    if isinstance(attention, nn.Module):
        with torch.no_grad():
            [parameter.mul_(2) for parameter in attention.parameters()]
    return is_causal(attention, d_in, context_length)


def six_tokens(attention, d_in, context_length):
    return is_causal(attention, d_in, 6)


def one_feature_of_one_input(attention, d_in, context_length):
    return trying(features=max(1, d_in - 1))(attention, d_in, context_length)


# 3.4 ------------------------------------------------------------------------------------------------


def dropped_by_pytorch(weights, keep_mask, p):
    return F.dropout(weights, 0.0) * keep_mask / (1 - p)


def dropped_by_module(weights, keep_mask, p):
    return nn.Dropout(0.0)(weights * keep_mask) / (1 - p)


def dropped_by_alpha(weights, keep_mask, p):
    return torch.alpha_dropout(weights, 0.0, False) * keep_mask / (1 - p)


def dropped_by_aten(weights, keep_mask, p):
    return torch.ops.aten.native_dropout(weights, 0.0, False)[0] * keep_mask / (1 - p)


def rounded_scale(weights, keep_mask, p):
    return weights * keep_mask * round(1 / (1 - p), 2)


def never_without(weights, keep_mask, p):
    return weights * keep_mask / (1 - (p or 0.5))


def nothing_to_do(weights, keep_mask, p):
    return weights if p == 0 else weights * keep_mask / (1 - p)


def mask_changed(weights, keep_mask, p):
    return weights.masked_fill(keep_mask.logical_not_(), 0) / (1 - p)


def dropped_to_minus_infinity(weights, keep_mask, p):
    return (weights / (1 - p)).masked_fill(~keep_mask, -torch.inf)


def cut_off(weights, keep_mask, p):
    return apply_dropout(weights.detach(), keep_mask, p)


def matrices_only(weights, keep_mask, p):
    rows, columns = weights.shape[-2:]
    return apply_dropout(weights, keep_mask, p).reshape(-1, rows, columns).reshape(weights.shape)


def nothing_kept_means_all(weights, keep_mask, p):
    return apply_dropout(weights, keep_mask if keep_mask.any() else ~keep_mask, p)


def drawn_on_top(weights, keep_mask, p):
    return apply_dropout(weights, keep_mask & (torch.rand(weights.shape) >= 0), p)


def small_p_ignored(weights, keep_mask, p):
    return weights * keep_mask / max(1 - p, 0.05)


def integer_mask(weights, keep_mask, p):
    return (weights * keep_mask / (1 - p)).float()


# 3.5 ------------------------------------------------------------------------------------------------


class ScaledByLength(StepByStep):
    def scaled(self, scores):
        return scores / scores.shape[-1] ** 0.5


class ScaledByContextLength(StepByStep):
    def scaled(self, scores):
        return scores / self.context_length**0.5


class ScaledAfterwards(StepByStep):
    def scaled(self, scores):
        return scores

    def get_weights(self, scores):
        return torch.softmax(scores, dim=-1) / self.W_key.out_features**0.5


class ScaledTwice(StepByStep):
    def scaled(self, scores):
        return super().scaled(super().scaled(scores))


class OverAllWeights(StepByStep):
    def get_weights(self, scores):
        return torch.softmax(scores.flatten(1), dim=-1).reshape(scores.shape)


class OverTheBatch(StepByStep):
    def get_weights(self, scores):
        return torch.softmax(scores, dim=0)


class RemembersTheLength(StepByStep):
    def hidden(self, num_tokens):
        if not hasattr(self, "cut"):
            self.cut = super().hidden(num_tokens)
        return self.cut


class MaskedByMultiplication(StepByStep):
    def hide(self, scores):
        return scores * ~self.hidden(scores.shape[-1])


class NearlyHidden(StepByStep):
    def hide(self, scores):
        return scores.masked_fill(self.hidden(scores.shape[-1]), -3.0)


class NotFarEnough(StepByStep):
    def hide(self, scores):
        return scores - 5.0 * self.hidden(scores.shape[-1])


class FullLengthRefused(StepByStep):
    def check(self, x):
        if x.shape[1] >= self.context_length:
            raise ValueError(f"{x.shape[1]} tokens")


class OneMoreAllowed(StepByStep):
    def check(self, x):
        if x.shape[1] > self.context_length + 1:
            raise ValueError(f"{x.shape[1]} tokens")


class IndexErrorInstead(StepByStep):
    def check(self, x):
        if x.shape[1] > self.context_length:
            raise IndexError(f"{x.shape[1]} tokens")


class NamesTheLimitOnly(StepByStep):
    def check(self, x):
        if x.shape[1] > self.context_length:
            raise ValueError(f"at most {self.context_length} tokens")


class ChecksInTrainingOnly(StepByStep):
    def check(self, x):
        if self.training:
            super().check(x)


class BareAssertion(StepByStep):
    def check(self, x):
        assert x.shape[1] <= self.context_length


class DropsInputs(StepByStep):
    def forward(self, x):
        return super().forward(self.dropout(x))


class DropsTwice(StepByStep):
    def combined(self, weights, values):
        return super().combined(self.dropout(weights), values)


class DropsWithoutScaling(StepByStep):
    def combined(self, weights, values):
        if self.training:
            weights = weights * (torch.rand_like(weights) >= self.dropout.p)
        return weights @ values


class DropsAndRenormalises(StepByStep):
    def combined(self, weights, values):
        weights = self.dropout(weights)
        return weights / weights.sum(-1, keepdim=True).clamp(min=1e-9) @ values


class DropsBeforeSoftmax(StepByStep):
    def get_weights(self, scores):
        if self.training:
            scores = scores.masked_fill(torch.rand_like(scores) < self.dropout.p, -1e9)
        return torch.softmax(scores, dim=-1)

    def combined(self, weights, values):
        return weights @ values


class DropsKeys(StepByStep):
    def combined(self, weights, values):
        if self.training:
            kept = torch.rand_like(weights[:, :1]) >= self.dropout.p
            weights = weights * kept / (1 - self.dropout.p)
        return weights @ values


class DropsTheSameAlways(StepByStep):
    def combined(self, weights, values):
        if self.training:
            kept = torch.rand(weights.shape, generator=torch.Generator().manual_seed(1)) >= self.dropout.p
            weights = weights * kept / (1 - self.dropout.p)
        return weights @ values


class DropsHalf(StepByStep):
    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.dropout = nn.Dropout(0.5 if self.dropout.p else 0.0)


class KeepsInsteadOfDropping(StepByStep):
    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.dropout = nn.Dropout(1 - self.dropout.p if self.dropout.p else 0.0)


class DropsInEvalFromTheSecondCallOn(StepByStep):
    calls = 0

    def combined(self, weights, values):
        self.calls += 1
        return F.dropout(weights, self.dropout.p, self.training or self.calls > 1) @ values


class StaysInTraining(StepByStep):
    def forward(self, x):
        self.train()
        return super().forward(x)


class OneLayerWithBias(StepByStep):
    def __init__(self, d_in, d_out, context_length, dropout, qkv_bias=False):
        super().__init__(d_in, d_out, context_length, dropout, qkv_bias)
        self.W_value = nn.Linear(d_in, d_out)


class OtherOrder(StepByStep):
    def __init__(self, d_in, d_out, context_length, qkv_bias=False, dropout=0.0):
        super().__init__(d_in, d_out, context_length, dropout, qkv_bias)


class BiasLeftOut(StepByStep):
    def forward(self, x):
        self.check(x)
        queries, keys, values = (F.linear(x, layer.weight) for layer in (self.W_query, self.W_key, self.W_value))
        return self.combined(self.get_weights(self.hide(self.scaled(queries @ keys.mT))), values)


class ValuesAreKeys(StepByStep):
    def forward(self, x):
        self.check(x)
        queries, keys = self.W_query(x), self.W_key(x)
        return self.combined(self.get_weights(self.hide(self.scaled(queries @ keys.mT))), keys)


class ValuesAreInputs(StepByStep):
    def combined(self, weights, values):
        return super().combined(weights, values) * 0 + self.dropout(weights) @ self.W_value(self.inputs)

    def forward(self, x):
        self.inputs = x.flip(0)
        return super().forward(x)


class CutOffLayers(StepByStep):
    def forward(self, x):
        self.check(x)
        queries = F.linear(x, self.W_query.weight.detach(), self.W_query.bias)
        scores = self.scaled(queries @ self.W_key(x).mT)
        return self.combined(self.get_weights(self.hide(scores)), self.W_value(x))


class WeightsCutOff(StepByStep):
    def combined(self, weights, values):
        return super().combined(weights.detach(), values)


class OutputLayer(StepByStep):
    def __init__(self, d_in, d_out, *arguments, **named):
        super().__init__(d_in, d_out, *arguments, **named)
        self.out_proj = nn.Linear(d_out, d_out)


class WeightsToo(StepByStep):
    def combined(self, weights, values):
        return super().combined(weights, values), weights


class OtherBufferName(StepByStep):
    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        del self.mask
        self.register_buffer("causal_mask", causal_mask(self.context_length))

    def hidden(self, num_tokens):
        return self.causal_mask[:num_tokens, :num_tokens]


class WholeBatchAttends(StepByStep):
    def forward(self, x):
        self.check(x)
        together = x.reshape(1, -1, x.shape[-1])
        queries, keys, values = self.W_query(together), self.W_key(together), self.W_value(together)
        hidden = causal_mask(together.shape[1])
        weights = self.get_weights(self.scaled(queries @ keys.mT).masked_fill(hidden, -torch.inf))
        return self.combined(weights, values).reshape(*x.shape[:-1], -1)


class RemembersKeys(StepByStep):
    def forward(self, x):
        self.check(x)
        queries, keys, values = self.W_query(x), self.W_key(x), self.W_value(x)
        if getattr(self, "keys", keys).shape == keys.shape:
            keys, self.keys = getattr(self, "keys", keys), keys
        return self.combined(self.get_weights(self.hide(self.scaled(queries @ keys.mT))), values)


class DrawsOnTheSide(StepByStep):
    def combined(self, weights, values):
        torch.rand(1)
        return weights @ values if not self.training else super().combined(weights, values)


class ChangesItsInput(StepByStep):
    def forward(self, x):
        return super().forward(x.sub_(0.0).mul_(1.5)) if not x.requires_grad and x.is_leaf else super().forward(x * 1.5)


class ReadyMade(StepByStep):
    def forward(self, x):
        self.check(x)
        p = self.dropout.p if self.training else 0.0
        return F.scaled_dot_product_attention(
            self.W_query(x), self.W_key(x), self.W_value(x), dropout_p=p, is_causal=True
        )


class ReadyMadeByOtherName(StepByStep):
    def forward(self, x):
        self.check(x)
        attend = getattr(torch.ops.aten, "_scaled_dot_product_" + "attention_math")
        p = self.dropout.p if self.training else 0.0
        return attend(self.W_query(x), self.W_key(x), self.W_value(x), None, p, True)[0]


class Float32Inside(StepByStep):
    def get_weights(self, scores):
        return torch.softmax(scores, dim=-1, dtype=torch.float32)


class UnregisteredLayers(CausalAttention):
    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.W_value = [self._modules.pop("W_value")]

    def forward(self, x):
        weights = causal_softmax(self.W_query(x) @ self.W_key(x).mT / self.W_key.out_features**0.5)
        return self.dropout(weights) @ self.W_value[0](x)


SUBTLE_MISTAKES = [
    ("3.1", mean_by_loop),
    ("3.1", mean_by_comprehension),
    ("3.1", mean_by_helper_with_loop),
    ("3.1", mean_by_weights_in_a_loop),
    ("3.1", mean_by_mapped_rows),
    ("3.1", mean_by_recursion),
    ("3.1", mean_by_accumulate),
    ("3.1", mean_by_cumsum),
    ("3.1", mean_by_cumsum_in_place),
    ("3.1", mean_by_aten),
    ("3.1", mean_in_numpy),
    ("3.1", mean_in_logarithms),
    ("3.1", mean_up_to_64),
    ("3.1", mean_in_half_precision),
    ("3.1", mean_of_detached),
    ("3.1", mean_of_rounded_weights),
    ("3.1", mean_without_batch),
    ("3.1", mean_by_view),
    ("3.2", filled_with(1e-9)),
    ("3.2", filled_with(-50.0)),
    ("3.2", filled_with(-5e3)),
    ("3.2", lower_scores),
    ("3.2", renormalised_with_epsilon),
    ("3.2", renormalised_without_nan),
    ("3.2", renormalised_in_float64),
    ("3.2", clamped_scores),
    ("3.2", one_maximum),
    ("3.2", maximum_of_hidden_too),
    ("3.2", hidden_afterwards),
    ("3.2", nearly_normalised),
    ("3.2", leaks_a_little),
    ("3.2", as_long_as_dimension_one),
    ("3.2", MaskOfTheFirstCall()),
    ("3.2", always_in_float32),
    ("3.2", three_dimensions),
    ("3.2", by_bmm_shapes),
    ("3.2", scaled_too),
    ("3.3", trying(changed_from=lambda length: range(1, length - 1))),
    ("3.3", trying(changed_from=lambda length: range(2, length))),
    ("3.3", trying(changed_from=lambda length: range(1, length, 2))),
    ("3.3", trying(changed_from=lambda length: range(1, min(length, 3)))),
    ("3.3", trying(changed_from=lambda length: range(length // 2, length))),
    ("3.3", trying(seen=lambda t: slice(0, t - 1))),
    ("3.3", trying(seen=lambda t: slice(1, t))),
    ("3.3", trying(seen=lambda t: slice(t, t + 1))),
    ("3.3", trying(differ=share(5e-3))),
    ("3.3", trying(differ=share(2e-3))),
    ("3.3", trying(differ=share(1e-7))),
    ("3.3", trying(differ=mean_difference)),
    ("3.3", trying(differ=close_by_default)),
    ("3.3", trying(differ=close_in_proportion)),
    ("3.3", trying(differ=close_by_thousandths)),
    ("3.3", trying(differ=share_of_largest_if_large)),
    ("3.3", trying(differ=share_of_signed_largest)),
    ("3.3", trying(differ=share_of_itself)),
    ("3.3", one_random_place),
    ("3.3", one_input_one_output),
    ("3.3", hardly_changed),
    ("3.3", shorter_sequences),
    ("3.3", dropout_switched_off),
    ("3.3", only_the_top_in_eval_mode),
    ("3.3", restores_the_top_only),
    ("3.3", mode_turned_around),
    ("3.3", mode_forgotten_at_a_leak),
    ("3.3", zero_or_one),
    ("3.3", parameters_spoilt),
    ("3.3", six_tokens),
    ("3.3", one_feature_of_one_input),
    ("3.4", dropped_by_pytorch),
    ("3.4", dropped_by_module),
    ("3.4", dropped_by_alpha),
    ("3.4", dropped_by_aten),
    ("3.4", rounded_scale),
    ("3.4", never_without),
    ("3.4", nothing_to_do),
    ("3.4", mask_changed),
    ("3.4", dropped_to_minus_infinity),
    ("3.4", cut_off),
    ("3.4", matrices_only),
    ("3.4", nothing_kept_means_all),
    ("3.4", drawn_on_top),
    ("3.4", small_p_ignored),
    ("3.4", integer_mask),
    ("3.5", ScaledByLength),
    ("3.5", ScaledByContextLength),
    ("3.5", ScaledAfterwards),
    ("3.5", ScaledTwice),
    ("3.5", OverAllWeights),
    ("3.5", OverTheBatch),
    ("3.5", RemembersTheLength),
    ("3.5", MaskedByMultiplication),
    ("3.5", NearlyHidden),
    ("3.5", NotFarEnough),
    ("3.5", FullLengthRefused),
    ("3.5", OneMoreAllowed),
    ("3.5", IndexErrorInstead),
    ("3.5", NamesTheLimitOnly),
    ("3.5", ChecksInTrainingOnly),
    ("3.5", BareAssertion),
    ("3.5", DropsInputs),
    ("3.5", DropsTwice),
    ("3.5", DropsWithoutScaling),
    ("3.5", DropsAndRenormalises),
    ("3.5", DropsBeforeSoftmax),
    ("3.5", DropsKeys),
    ("3.5", DropsTheSameAlways),
    ("3.5", DropsHalf),
    ("3.5", KeepsInsteadOfDropping),
    ("3.5", DropsInEvalFromTheSecondCallOn),
    ("3.5", StaysInTraining),
    ("3.5", OneLayerWithBias),
    ("3.5", OtherOrder),
    ("3.5", BiasLeftOut),
    ("3.5", ValuesAreKeys),
    ("3.5", ValuesAreInputs),
    ("3.5", CutOffLayers),
    ("3.5", WeightsCutOff),
    ("3.5", OutputLayer),
    ("3.5", WeightsToo),
    ("3.5", OtherBufferName),
    ("3.5", WholeBatchAttends),
    ("3.5", RemembersKeys),
    ("3.5", DrawsOnTheSide),
    ("3.5", ChangesItsInput),
    ("3.5", ReadyMade),
    ("3.5", ReadyMadeByOtherName),
    ("3.5", Float32Inside),
    ("3.5", UnregisteredLayers),
]
