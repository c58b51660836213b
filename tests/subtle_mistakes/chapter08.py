"""Subtle mistakes for chapter 8."""

import copy
import functools

import numpy as np
import torch
import torch.nn.functional as F

from utils.attention import CachedAttention, merge_heads
from utils.checks.chapters.chapter08 import (
    RecomputesAll,
    Remembering,
    accumulate_by,
    biases_and_norms,
    cache_of,
    flops_by,
    products_of_attention,
    unlimited_cache,
    weights_in_matrices,
)
from utils.costs import count_parameters, flops_per_token, kv_cache_bytes
from utils.masking import check_length
from utils.training import accumulate_gradients

# 8.1 ------------------------------------------------------------------------------------------------


class NewestValueForAll(Remembering):
    def attend(self, queries, keys, values):
        return super().attend(queries, keys, values[..., -1:, :].expand_as(values))


class SoftmaxOverHeads(Remembering):
    def weigh(self, scores):
        return scores.softmax(1)


class SoftmaxOverBatch(Remembering):
    def weigh(self, scores):
        return scores.softmax(0)


class SoftmaxWithRoomForNothing(Remembering):
    def weigh(self, scores):
        return F.pad(scores, (1, 0)).softmax(-1)[..., 1:]


class ScaledByLength(Remembering):
    def scale(self, scores):
        return scores / scores.shape[-1] ** 0.5


class ScaledByInput(Remembering):
    def scale(self, scores):
        return scores / self.mha.W_query.in_features**0.5


class ScaledAfterwards(Remembering):
    def scale(self, scores):
        return scores

    def weigh(self, scores):
        return scores.softmax(-1) / self.mha.head_dim**0.5


class DropsInEvalMode(Remembering):
    def weigh(self, scores):
        return F.dropout(super().weigh(scores), self.mha.dropout.p)


class InterleavedHeads(Remembering):
    def split(self, x):
        return x.unflatten(-1, (self.mha.head_dim, self.mha.num_heads)).permute(0, 3, 1, 2)


class MergedInterleaved(Remembering):
    def finish(self, contexts):
        return self.mha.out_proj(contexts.movedim(1, -1).flatten(-2))


class WithoutTheBiasOfOutProj(Remembering):
    def finish(self, contexts):
        return F.linear(merge_heads(contexts), self.mha.out_proj.weight)


class TokensAsVectors(Remembering):
    def finish(self, contexts):
        return super().finish(contexts).squeeze(1)


class InSinglePrecision(Remembering):
    def finish(self, contexts):
        return super().finish(contexts).float()


class MemoryInSinglePrecision(Remembering):
    def remember(self, keys, values):
        return tuple(t.to(keys.dtype) for t in super().remember(keys.float(), values.float()))

    def finish(self, contexts):
        return super().finish(contexts.half().to(contexts.dtype))


class WithoutProjectionBias(Remembering):
    def step(self, x):
        self.check_room()
        layers = (self.mha.W_query, self.mha.W_key, self.mha.W_value)
        queries, keys, values = (self.split(F.linear(x, layer.weight)) for layer in layers)
        return self.attend(queries, *self.remember(keys, values))


class WindowOfEight(Remembering):
    """Right for short sequences."""

    def attend(self, queries, keys, values):
        return super().attend(queries, keys[..., -8:, :], values[..., -8:, :])


class FirstSequenceOfTheBatch(Remembering):
    def step(self, x):
        return super().step(x[:1]).expand(len(x), 1, -1)


class KeysOfTheFirstToken(Remembering):
    """The first key and value are kept twice."""

    def remember(self, keys, values):
        if self.keys is None:
            self.keys, self.values = keys, values
        return super().remember(keys, values)

    def held(self):
        return max(super().held() - 1, 0)


class ResetsKeysOnly(Remembering):
    """Notices the end of a sequence by the keys, and overwrites the values only from then on."""

    def reset(self):
        self.keys = None

    def remember(self, keys, values):
        first = self.keys is None
        kept = self.values
        super().remember(keys, values)
        if first and kept is not None and len(kept) == len(values):
            self.values = kept[:, :, -1:]
        return self.keys, self.values


class ResetNeedsAStepBefore(Remembering):
    def __init__(self, mha):
        self.mha = mha

    def held(self):
        return self.keys.shape[-2] if hasattr(self, "keys") else 0

    def remember(self, keys, values):
        if not hasattr(self, "keys"):
            self.keys = self.values = None
        return super().remember(keys, values)

    def reset(self):
        del self.keys, self.values


class CountGoesOn(Remembering):
    """The limit counts the tokens of all sequences together."""

    count = 0

    def check_room(self):
        self.count += 1
        check_length(self.count, self.mha.context_length)


class FullForever(Remembering):
    """After the error nothing works any more, reset or not."""

    is_full = False

    def check_room(self):
        self.is_full = self.is_full or self.held() == self.mha.context_length
        if self.is_full:
            raise ValueError(f"context_length {self.mha.context_length} is reached")


class MemoryOfOneBatchSize(Remembering):
    """The memory is made for the first batch and kept for good."""

    memory = None

    def forget(self):
        self.length = 0

    def held(self):
        return self.length

    def remember(self, keys, values):
        if self.memory is None:
            self.memory = keys.new_zeros(2, *keys.shape[:2], self.mha.context_length, keys.shape[-1])
        self.memory[:, :, :, self.length] = torch.stack([keys, values])[:, :, :, 0]
        self.length += 1
        return self.memory[0, :, :, : self.length], self.memory[1, :, :, : self.length]


class MemoryForOneSequence(MemoryOfOneBatchSize):
    def remember(self, keys, values):
        if self.memory is None:
            self.memory = keys.new_zeros(2, 1, keys.shape[1], self.mha.context_length, keys.shape[-1])
        return super().remember(keys, values)


class OneMemoryPerModule(Remembering):
    """Two caches of one module mix."""

    memories = {}  # noqa: RUF012

    def forget(self):
        self.memories[id(self.mha)] = []

    def held(self):
        return len(self.memories[id(self.mha)])

    def remember(self, keys, values):
        self.memories[id(self.mha)].append((keys, values))
        return tuple(torch.cat(parts, dim=-2) for parts in zip(*self.memories[id(self.mha)], strict=True))


class MemoryAsADefault(Remembering):
    """A list as a default argument is made once."""

    def __init__(self, mha, pairs=[]):  # noqa: B006
        self.pairs = pairs
        super().__init__(mha)

    def forget(self):
        self.pairs.clear()

    def held(self):
        return len(self.pairs)

    def remember(self, keys, values):
        self.pairs.append((keys, values))
        return tuple(torch.cat(parts, dim=-2) for parts in zip(*self.pairs, strict=True))


class OneObjectForAll(Remembering):
    """The same object whatever the module."""

    made = None

    def __new__(cls, mha):
        if cls.made is None:
            cls.made = super().__new__(cls)
        return cls.made


class ProjectsLater(Remembering):
    """Keeps the token itself and projects it at the next step, when it may hold other numbers."""

    def forget(self):
        super().forget()
        self.pending = None

    def held(self):
        return super().held() + (self.pending is not None)

    def step(self, x):
        self.check_room()
        mha = self.mha
        if self.pending is not None:
            self.remember(self.split(mha.W_key(self.pending)), self.split(mha.W_value(self.pending)))
        kept = self.keys, self.values
        pairs = self.remember(self.split(mha.W_key(x)), self.split(mha.W_value(x)))
        out = self.attend(self.split(mha.W_query(x)), *pairs)
        (self.keys, self.values), self.pending = kept, x
        return out


class OneOutputForAllSteps(Remembering):
    """Every step returns the same tensor, with other numbers in it."""

    out = None

    def finish(self, contexts):
        new = super().finish(contexts)
        if self.out is None or self.out.shape != new.shape or self.out.dtype != new.dtype:
            self.out = new.clone()
        return self.out.copy_(new)


class CentersItsInput(Remembering):
    def step(self, x):
        out = super().step(x.clone())
        x -= x.mean()
        return out


class MhaInTrainingMode(Remembering):
    def forget(self):
        super().forget()
        self.mha.train()


class ScalesTheWeights(Remembering):
    """Puts the scaling into the module itself, once and for all."""

    def __init__(self, mha):
        super().__init__(mha)
        with torch.no_grad():
            for parameter in mha.W_query.parameters():
                parameter.div_(mha.head_dim**0.5)

    def scale(self, scores):
        return scores


class DrawsOnTheSide(Remembering):
    def weigh(self, scores):
        torch.rand(1)
        return super().weigh(scores)


class NoErrorButWarning(Remembering):
    def check_room(self):
        if self.held() == self.mha.context_length:
            print("context_length is exceeded")


class NamesNoLength(Remembering):
    def check_room(self):
        if self.held() >= self.mha.context_length:
            raise ValueError("the sequence is too long")


class ErrorOfAnotherKind(Remembering):
    def check_room(self):
        if self.held() >= self.mha.context_length:
            raise RuntimeError(f"context_length {self.mha.context_length} exceeded")


class OneTokenTooMany(Remembering):
    def check_room(self):
        check_length(self.held(), self.mha.context_length)


class StartsAnew(Remembering):
    """A full memory is emptied instead of refused."""

    def check_room(self):
        if self.held() == self.mha.context_length:
            self.forget()


class ReturnsNothingWhenFull(Remembering):
    def step(self, x):
        return None if self.held() == self.mha.context_length else super().step(x)


class CallsTheModuleOnAll(RecomputesAll):
    def step(self, x):
        self.inputs = x.clone() if self.inputs is None else torch.cat([self.inputs, x], dim=1)
        return self.mha(self.inputs)[:, -1:]


class CallsACopyOnAll(CallsTheModuleOnAll):
    def __init__(self, mha):
        super().__init__(copy.deepcopy(mha))


class RecomputesValues(Remembering):
    """Keys are remembered, values are not."""

    def forget(self):
        super().forget()
        self.inputs = []

    def step(self, x):
        self.inputs.append(x.clone())
        return super().step(x)

    def remember(self, keys, values):
        keys, _ = super().remember(keys, values)
        return keys, self.split(self.mha.W_value(torch.cat(self.inputs, dim=1)))


class RecomputesKeys(RecomputesValues):
    def remember(self, keys, values):
        _, values = Remembering.remember(self, keys, values)
        return self.split(self.mha.W_key(torch.cat(self.inputs, dim=1))), values


class RecomputesOneByOne(RecomputesAll):
    """Every token of the past is projected alone, in a loop."""

    def step(self, x):
        self.inputs = [*(self.inputs or []), x.clone()]
        check_length(len(self.inputs), self.mha.context_length)
        mha = self.mha
        keys, values = (torch.cat([self.split(f(t)) for t in self.inputs], -2) for f in (mha.W_key, mha.W_value))
        return self.attend(self.split(mha.W_query(x)), keys, values)


class RecomputesInInferenceMode(RecomputesAll):
    @torch.inference_mode()
    def step(self, x):
        self.inputs = x.clone() if self.inputs is None else torch.cat([self.inputs, x], dim=1)
        check_length(self.inputs.shape[1], self.mha.context_length)
        mha = self.mha

        def project(layer):
            found = torch.einsum("bti,oi->bto", self.inputs, layer.weight)
            return self.split(found if layer.bias is None else found + layer.bias)

        return self.attend(self.split(mha.W_query(x)), project(mha.W_key), project(mha.W_value))


class RecomputesEntryByEntry(RecomputesAll):
    """No matrix product: entries are multiplied and added up."""

    def step(self, x):
        self.inputs = x.clone() if self.inputs is None else torch.cat([self.inputs, x], dim=1)
        check_length(self.inputs.shape[1], self.mha.context_length)
        mha = self.mha

        def project(layer):
            found = (self.inputs.unsqueeze(-2) * layer.weight).sum(-1)
            return self.split(found if layer.bias is None else found + layer.bias)

        return self.attend(self.split(mha.W_query(x)), project(mha.W_key), project(mha.W_value))


class RecomputesInNumPy(RecomputesAll):
    """Where PyTorch sees nothing of it."""

    def step(self, x):
        self.inputs = x.clone() if self.inputs is None else torch.cat([self.inputs, x], dim=1)
        check_length(self.inputs.shape[1], self.mha.context_length)
        mha = self.mha

        def project(layer):
            found = self.inputs.numpy() @ layer.weight.detach().numpy().T
            found = torch.from_numpy(found if layer.bias is None else found + layer.bias.detach().numpy())
            return self.split(found)

        return self.attend(self.split(mha.W_query(x)), project(mha.W_key), project(mha.W_value))


class KernelWithItsMask(Remembering):
    """For a single query the kernel's causal mask leaves the first key only."""

    def attend(self, queries, keys, values):
        return self.finish(F.scaled_dot_product_attention(queries, keys, values, is_causal=True))


class CallsTheModuleOnTheNewest(Remembering):
    def step(self, x):
        super().step(x)
        return self.mha(x)


class ReplaysTheSequence(Remembering):
    """Keys and values are remembered, forgotten, and computed again from the kept inputs at every step."""

    def forget(self):
        super().forget()
        self.inputs = []

    def step(self, x):
        self.inputs.append(x.clone())
        self.keys = self.values = None
        for token in self.inputs:
            out = super().step(token)
        return out


class MemoByStep(CachedAttention):
    """Remembers every step's result by its number."""

    results = {}  # noqa: RUF012

    def step(self, x):
        held = 0 if self.cache is None else self.cache.length
        found = super().step(x)
        return self.results.setdefault((held, x.shape, x.dtype), found)


# 8.2 ------------------------------------------------------------------------------------------------


def says_nothing_of_the_length(cfg, batch_size, length, bytes_per_value):
    if length > cfg.context_length:
        raise ValueError("too long")
    return unlimited_cache(cfg, batch_size, length, bytes_per_value)


def raises_another_kind(cfg, batch_size, length, bytes_per_value):
    if length > cfg.context_length:
        raise IndexError(f"length {length}")
    return unlimited_cache(cfg, batch_size, length, bytes_per_value)


def returns_nothing_when_too_long(cfg, batch_size, length, bytes_per_value):
    return unlimited_cache(cfg, batch_size, length, bytes_per_value) if length <= cfg.context_length else None


def allows_one_more(cfg, batch_size, length, bytes_per_value):
    check_length(length - 1, cfg.context_length)
    return unlimited_cache(cfg, batch_size, length, bytes_per_value)


def limits_the_whole_batch(cfg, batch_size, length, bytes_per_value):
    if batch_size * length > cfg.context_length:
        raise ValueError(f"length {length} times batch size {batch_size}")
    return unlimited_cache(cfg, batch_size, length, bytes_per_value)


def as_array_number(cfg, batch_size, length, bytes_per_value):
    return np.int64(kv_cache_bytes(cfg, batch_size, length, bytes_per_value))


def as_tensor(cfg, batch_size, length, bytes_per_value):
    return torch.tensor(kv_cache_bytes(cfg, batch_size, length, bytes_per_value))


def in_32_bits(cfg, batch_size, length, bytes_per_value):
    found = kv_cache_bytes(cfg, batch_size, length, bytes_per_value)
    return int(torch.tensor(found).to(torch.int32))


def draws_before_counting(cfg, batch_size, length, bytes_per_value):
    torch.manual_seed(0)
    return kv_cache_bytes(cfg, batch_size, length, bytes_per_value)


@functools.lru_cache(1)
def first_of_all(ignored=None):
    return []


def remembers_the_first(cfg, batch_size, length, bytes_per_value):
    kept = first_of_all()
    kept.append(kv_cache_bytes(cfg, batch_size, length, bytes_per_value))
    return kept[0]


# 8.3 ------------------------------------------------------------------------------------------------


def share_of_a_full_part(model, x, y, micro_batch_size):
    def share(part, parts):
        return micro_batch_size / len(x)

    return accumulate_by(model, x, y, micro_batch_size, share, share)


def last_share_in_the_gradient_only(model, x, y, micro_batch_size):
    return accumulate_by(model, x, y, micro_batch_size, share=lambda part, parts: 1 / len(parts))


def divided_by_whole_parts(model, x, y, micro_batch_size):
    def share(part, parts):
        return 1 / max(len(x) // micro_batch_size, 1)

    return accumulate_by(model, x, y, micro_batch_size, share, share)


def rescales_all_gradients(model, x, y, micro_batch_size):
    """The gradients that were there before are divided, too."""
    found = accumulate_by(model, x, y, micro_batch_size, share=lambda part, parts: float(len(part)))
    for parameter in model.parameters():
        parameter.grad /= len(x)
    return found


def replaces_gradients(model, x, y, micro_batch_size):
    parameters = list(model.parameters())
    totals, mean = [torch.zeros_like(p) for p in parameters], 0.0
    for a, b in zip(x.split(micro_batch_size), y.split(micro_batch_size), strict=True):
        loss = model(a, b)[1] * len(a) / len(x)
        totals = [t + g for t, g in zip(totals, torch.autograd.grad(loss, parameters), strict=True)]
        mean += loss.item()
    for parameter, total in zip(parameters, totals, strict=True):
        parameter.grad = total
    return mean


def clears_at_the_end(model, x, y, micro_batch_size):
    found = accumulate_gradients(model, x, y, micro_batch_size)
    model.zero_grad()
    return found


def matrices_only(model, x, y, micro_batch_size):
    before = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    found = accumulate_gradients(model, x, y, micro_batch_size)
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            parameter.grad = before.get(name)
    return found


def in_eval_mode(model, x, y, micro_batch_size):
    model.eval()
    found = accumulate_gradients(model, x, y, micro_batch_size)
    model.train()
    return found


def ends_in_eval_mode(model, x, y, micro_batch_size):
    found = accumulate_gradients(model, x, y, micro_batch_size)
    model.eval()
    return found


def clips(model, x, y, micro_batch_size):
    found = accumulate_gradients(model, x, y, micro_batch_size)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    return found


def decays(model, x, y, micro_batch_size):
    found = accumulate_gradients(model, x, y, micro_batch_size)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.999)
    return found


def targets_of_the_first_rows(model, x, y, micro_batch_size):
    total = 0.0
    for part in x.split(micro_batch_size):
        loss = model(part, y[: len(part)])[1] * len(part) / len(x)
        loss.backward()
        total += loss.item()
    return total


def targets_in_another_order(model, x, y, micro_batch_size):
    return accumulate_gradients(model, x, y.flip(0), micro_batch_size)


def inputs_and_targets_swapped(model, x, y, micro_batch_size):
    return accumulate_gradients(model, y, x, micro_batch_size)


def in_random_order(model, x, y, micro_batch_size):
    """Right numbers, but the order is drawn from the global random state."""
    order = torch.randperm(len(x))
    return accumulate_gradients(model, x[order], y[order], micro_batch_size)


def one_row_too_many(model, x, y, micro_batch_size):
    return accumulate_gradients(model, x, y, micro_batch_size + 1)


def as_many_parts_as_rows_per_part(model, x, y, micro_batch_size):
    return accumulate_gradients(model, x, y, -(-len(x) // micro_batch_size))


def fewer_and_larger_parts(model, x, y, micro_batch_size):
    """As many parts as are full, so that the rest is shared out among them."""
    parts = max(len(x) // micro_batch_size, 1)
    return accumulate_gradients(model, x, y, -(-len(x) // parts))


def loss_of_the_whole_batch_at_once(model, x, y, micro_batch_size):
    accumulate_gradients(model, x, y, micro_batch_size)
    with torch.no_grad():
        return model(x, y)[1].item()


def loss_after_the_fact(model, x, y, micro_batch_size):
    """Rounded to what a log shows."""
    return round(accumulate_gradients(model, x, y, micro_batch_size), 2)


def loss_of_full_parts(model, x, y, micro_batch_size):
    return accumulate_by(
        model,
        x,
        y,
        micro_batch_size,
        mean=lambda part, parts: len(part) // micro_batch_size * micro_batch_size / len(x),
    )


def first_loss(model, x, y, micro_batch_size):
    return accumulate_by(model, x, y, micro_batch_size, mean=lambda part, parts: float(part is parts[0][0]))


def loss_as_array_number(model, x, y, micro_batch_size):
    return np.float32(accumulate_gradients(model, x, y, micro_batch_size))


def losses_as_a_list(model, x, y, micro_batch_size):
    return [accumulate_gradients(model, x, y, micro_batch_size)]


def counts_on_from_call_to_call(model, x, y, micro_batch_size, total=[0.0]):  # noqa: B006
    total[0] += accumulate_gradients(model, x, y, micro_batch_size)
    return total[0]


def last_part_only(model, x, y, micro_batch_size):
    rest = (len(x) - 1) // micro_batch_size * micro_batch_size
    return accumulate_gradients(model, x[rest:], y[rest:], micro_batch_size)


def first_part_twice(model, x, y, micro_batch_size):
    with torch.no_grad():
        model(x[:micro_batch_size], y[:micro_batch_size])
    rows = torch.arange(len(x)).clamp(max=max(len(x) - 2, 0))
    return accumulate_gradients(model, x[rows], y[rows], micro_batch_size)


def one_gradient_too_many(model, x, y, micro_batch_size):
    found = accumulate_gradients(model, x, y, micro_batch_size)
    model(x[-1:], y[-1:])[1].backward()
    return found


def overwrites_targets(model, x, y, micro_batch_size):
    found = accumulate_gradients(model, x, y, micro_batch_size)
    y.zero_()
    return found


# 8.4 ------------------------------------------------------------------------------------------------


def without_head_when_tied(cfg):
    return flops_per_token(cfg) - (6 * cfg.vocab_size * cfg.emb_dim if cfg.tied else 0)


def six_per_parameter(cfg):
    return 6 * count_parameters(cfg, tied=True) + products_of_attention(cfg)


def with_projection_biases(cfg):
    extra = 3 * cfg.n_layers * cfg.emb_dim if cfg.qkv_bias else 0
    return flops_per_token(cfg) + 6 * extra


def average_context(cfg):
    """A token sees half of the context on average; the formula counts all of it."""
    return 6 * weights_in_matrices(cfg) + products_of_attention(cfg) * (cfg.context_length + 1) // (
        2 * cfg.context_length
    )


def in_a_step(cfg):
    return flops_per_token(cfg) * cfg.context_length


SUBTLE_MISTAKES = [
    *(
        ("8.1", answer)
        for answer in (
            NewestValueForAll,
            SoftmaxOverHeads,
            SoftmaxOverBatch,
            SoftmaxWithRoomForNothing,
            ScaledByLength,
            ScaledByInput,
            ScaledAfterwards,
            DropsInEvalMode,
            InterleavedHeads,
            MergedInterleaved,
            WithoutTheBiasOfOutProj,
            TokensAsVectors,
            InSinglePrecision,
            MemoryInSinglePrecision,
            WithoutProjectionBias,
            WindowOfEight,
            FirstSequenceOfTheBatch,
            KeysOfTheFirstToken,
            ResetsKeysOnly,
            ResetNeedsAStepBefore,
            CountGoesOn,
            FullForever,
            MemoryOfOneBatchSize,
            MemoryForOneSequence,
            OneMemoryPerModule,
            MemoryAsADefault,
            OneObjectForAll,
            ProjectsLater,
            OneOutputForAllSteps,
            CentersItsInput,
            MhaInTrainingMode,
            ScalesTheWeights,
            DrawsOnTheSide,
            NoErrorButWarning,
            NamesNoLength,
            ErrorOfAnotherKind,
            OneTokenTooMany,
            StartsAnew,
            ReturnsNothingWhenFull,
            CallsTheModuleOnAll,
            CallsACopyOnAll,
            RecomputesValues,
            RecomputesKeys,
            RecomputesOneByOne,
            RecomputesInInferenceMode,
            RecomputesEntryByEntry,
            RecomputesInNumPy,
            KernelWithItsMask,
            CallsTheModuleOnTheNewest,
            ReplaysTheSequence,
            MemoByStep,
        )
    ),
    *(
        ("8.2", answer)
        for answer in (
            says_nothing_of_the_length,
            raises_another_kind,
            returns_nothing_when_too_long,
            allows_one_more,
            limits_the_whole_batch,
            as_array_number,
            as_tensor,
            in_32_bits,
            draws_before_counting,
            remembers_the_first,
            cache_of(lambda c, b, t, n: 2.0 * c.n_layers * b * t * c.emb_dim * n),
            cache_of(lambda c, b, t, n: 2 * (c.n_layers + 1) * b * t * c.emb_dim * n),
            cache_of(lambda c, b, t, n: 2 * c.n_layers * b * (t - 1) * c.emb_dim * n),
            cache_of(lambda c, b, t, n: 2 * c.n_layers * b * (t + 1) * c.emb_dim * n),
            cache_of(lambda c, b, t, n: 2 * c.n_layers * b * t * c.emb_dim * n + c.context_length**2),
            cache_of(lambda c, b, t, n: 2 * c.n_layers * b * max(t, 4) * c.emb_dim * n),
            cache_of(lambda c, b, t, n: 2 * c.n_layers * b * t * c.emb_dim * max(n, 2)),
            cache_of(lambda c, b, t, n: 2 * c.n_layers * b * t * c.emb_dim * (2 if n == 2 else 4)),
            cache_of(lambda c, b, t, n: 2 * 12 * b * t * 768 * n),
            cache_of(lambda c, b, t, n: 2 * c.n_layers * b * t * (c.emb_dim + c.qkv_bias) * n),
            cache_of(lambda c, b, t, n: c.n_layers * b * t * c.emb_dim**2 * n),
            cache_of(lambda c, b, t, n: 2 * c.n_layers * b * t * c.vocab_size * n),
        )
    ),
    *(
        ("8.3", answer)
        for answer in (
            share_of_a_full_part,
            last_share_in_the_gradient_only,
            divided_by_whole_parts,
            rescales_all_gradients,
            replaces_gradients,
            clears_at_the_end,
            matrices_only,
            in_eval_mode,
            ends_in_eval_mode,
            clips,
            decays,
            targets_of_the_first_rows,
            targets_in_another_order,
            inputs_and_targets_swapped,
            in_random_order,
            one_row_too_many,
            as_many_parts_as_rows_per_part,
            fewer_and_larger_parts,
            loss_of_the_whole_batch_at_once,
            loss_after_the_fact,
            loss_of_full_parts,
            first_loss,
            loss_as_array_number,
            losses_as_a_list,
            counts_on_from_call_to_call,
            last_part_only,
            first_part_twice,
            one_gradient_too_many,
            overwrites_targets,
        )
    ),
    *(
        ("8.4", answer)
        for answer in (
            without_head_when_tied,
            six_per_parameter,
            with_projection_biases,
            average_context,
            in_a_step,
            lambda cfg: np.int64(flops_per_token(cfg)),
            lambda cfg: torch.tensor(flops_per_token(cfg)),
            lambda cfg: str(flops_per_token(cfg)),
            lambda cfg: (flops_per_token(cfg),),
            lambda cfg: flops_per_token(cfg) + 1,
            lambda cfg: flops_per_token(cfg) // 10 * 10,
            flops_by(per_weight=8),
            flops_by(weights=lambda c: 12 * c.n_layers * c.emb_dim**2 + c.vocab_size),
            flops_by(weights=lambda c: 12 * c.emb_dim**2 + c.vocab_size * c.emb_dim),
            flops_by(weights=lambda c: 13 * c.n_layers * c.emb_dim**2 + c.vocab_size * c.emb_dim),
            flops_by(weights=lambda c: 12 * c.n_layers * c.emb_dim + c.vocab_size * c.emb_dim),
            flops_by(weights=lambda c: weights_in_matrices(c) + 2 * c.n_layers * c.emb_dim),
            flops_by(weights=lambda c: weights_in_matrices(c) + biases_and_norms(c) - 2 * c.emb_dim),
            flops_by(weights=lambda c: 12 * c.n_layers * c.emb_dim**2 + 50257 * c.emb_dim),
            flops_by(attention=lambda c: 24 * c.n_layers * c.emb_dim * c.context_length),
            flops_by(attention=lambda c: 12 * c.n_layers * c.emb_dim * 1024),
            flops_by(attention=lambda c: 12 * c.n_layers * c.context_length),
            flops_by(attention=lambda c: 12 * c.n_layers * c.context_length**2),
            flops_by(attention=lambda c: 12 * c.n_layers * c.emb_dim * (c.context_length - 1)),
        )
    ),
]
